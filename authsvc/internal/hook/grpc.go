package hook

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/url"
	"reflect"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	gstatus "google.golang.org/grpc/status"
)

// grpcTransport calls the methods of CentrifugoProxy.
type grpcTransport struct {
	conn *grpc.ClientConn
	err  error // why there is no conn
}

// newGRPCTransport makes a client that connects when it is first used.
func newGRPCTransport(address string) transport {
	u, err := url.Parse(address)
	if err != nil {
		return &grpcTransport{err: errors.New("its url is none")}
	}
	creds := insecure.NewCredentials()
	if u.Scheme == "grpcs" {
		creds = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
	conn, err := grpc.NewClient(u.Host, grpc.WithTransportCredentials(creds), grpc.WithUserAgent("carillon"),
		grpc.WithDisableServiceConfig(), // no retries behind our back
		grpc.WithDefaultCallOptions(grpc.ForceCodec(bytesCodec{}), grpc.MaxCallRecvMsgSize(answerBytesMax)))
	return &grpcTransport{conn: conn, err: err}
}

func (t *grpcTransport) encode(req Request) ([]byte, error) {
	return marshal(nil, reflect.ValueOf(req).Elem()), nil
}

func (t *grpcTransport) decode(body []byte, out any) error {
	return unmarshal(body, reflect.ValueOf(out).Elem())
}

func (t *grpcTransport) close() error {
	if t.conn == nil {
		return nil
	}
	return t.conn.Close()
}

func (t *grpcTransport) send(ctx context.Context, kind Kind, body []byte, headers map[string]string) ([]byte, error) {
	if t.err != nil {
		return nil, &Failure{unreachable, t.err}
	}
	md := metadata.New(headers)
	// RoadRunner's workers tell the kinds apart by this; what it adds comes second.
	md.Set("type", string(kind))
	var reply []byte
	err := t.conn.Invoke(metadata.NewOutgoingContext(ctx, md), kind.method(), &body, &reply)
	if err == nil {
		return reply, nil
	}
	// The status's message is the application's and may be long.
	code := gstatus.Code(err)
	err = fmt.Errorf("it answered %s: %.200s", code, gstatus.Convert(err).Message())
	switch code {
	case codes.DeadlineExceeded:
		return nil, &Failure{timeout, err}
	case codes.Unavailable, codes.ResourceExhausted:
		return nil, &Failure{overloaded, err}
	}
	return nil, &Failure{status, err}
}

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
