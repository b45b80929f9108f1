package hook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	gstatus "google.golang.org/grpc/status"
)

// grpcTransport calls the methods of CentrifugoProxy.
type grpcTransport struct {
	// immutable after newGRPCTransport
	target string
	creds  credentials.TransportCredentials
	err    error // why there can be no connection

	conn atomic.Pointer[grpc.ClientConn] // nil once closed
}

// reconnect bounds how long a server that is back waits for us; the breaker
// keeps us from trying too often.
var reconnect = grpc.ConnectParams{
	Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: 2 * time.Second},
	MinConnectTimeout: 2 * time.Second,
}

// newGRPCTransport makes a client that connects when it is first used.
func newGRPCTransport(address string) transport {
	u, err := url.Parse(address)
	if err != nil {
		return &grpcTransport{err: errors.New("its url is none")}
	}
	t := &grpcTransport{target: u.Host, creds: insecure.NewCredentials()}
	if u.Scheme == "grpcs" {
		t.creds = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	conn, err := t.dial()
	t.err = err
	t.conn.Store(conn)
	return t
}

func (t *grpcTransport) dial() (*grpc.ClientConn, error) {
	return grpc.NewClient(t.target, grpc.WithTransportCredentials(t.creds), grpc.WithUserAgent("carillon"),
		grpc.WithConnectParams(reconnect), grpc.WithDisableServiceConfig(), // no retries behind our back
		grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{}), grpc.MaxCallRecvMsgSize(answerBytesMax)))
}

// renew implements renewer: the connection may lead to a machine that is gone
// without a word, which TCP would notice after minutes.
func (t *grpcTransport) renew() {
	old := t.conn.Load()
	if old == nil {
		return
	}
	conn, err := t.dial()
	if err != nil {
		return // the old one may do
	}
	if !t.conn.CompareAndSwap(old, conn) {
		old = conn // closed, or renewed by another
	}
	_ = old.Close()
}

func (t *grpcTransport) encode(req Request) ([]byte, error) {
	return marshal(nil, reflect.ValueOf(req).Elem()), nil
}

func (t *grpcTransport) decode(body []byte, out any) error {
	return unmarshal(body, reflect.ValueOf(out).Elem())
}

func (t *grpcTransport) close() error {
	conn := t.conn.Swap(nil)
	if conn == nil {
		return nil
	}
	return conn.Close()
}

func (t *grpcTransport) send(ctx context.Context, kind Kind, body []byte, headers map[string]string) ([]byte, error) {
	conn := t.conn.Load()
	switch {
	case t.err != nil:
		return nil, &Failure{unreachable, t.err}
	case conn == nil:
		return nil, &Failure{unreachable, errors.New("the hook's settings have changed")}
	}
	md := metadata.New(headers)
	md.Set("type", kind.label()) // what RoadRunner adds comes second
	var reply []byte
	err := conn.Invoke(metadata.NewOutgoingContext(ctx, md), kind.method(), &body, &reply)
	if err == nil {
		return reply, nil
	}
	// The status's message is the application's and may be long.
	code, text := gstatus.Code(err), gstatus.Convert(err).Message()
	err = fmt.Errorf("it answered %s: %.200s", code, text)
	switch code {
	case codes.DeadlineExceeded:
		return nil, &Failure{timeout, err}
	case codes.ResourceExhausted:
		if strings.HasPrefix(text, tooLarge) {
			return nil, &Failure{malformed, err}
		}
		return nil, &Failure{overloaded, err}
	case codes.Unavailable:
		return nil, &Failure{overloaded, err}
	}
	return nil, &Failure{status, err}
}

// tooLarge begins what gRPC says of a message over a limit, with the code that
// servers refuse with when they have too much to do. It is not that.
const tooLarge = "grpc: received message larger than max"

// bytesCodec passes messages as they are encoded.
type bytesCodec struct{}

func (bytesCodec) Name() string { return "proto" }

func (bytesCodec) Marshal(v any) ([]byte, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("no protobuf form for %T", v)
	}
	return *b, nil
}

func (bytesCodec) Unmarshal(data []byte, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("no protobuf form for %T", v)
	}
	*b = append([]byte(nil), data...)
	return nil
}
