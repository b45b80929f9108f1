// Package roadrunner has Carillon serve an application that runs under
// RoadRunner, with a client of Centrifugo's in between.
//
// RoadRunner's own plug-in (the Go module centrifuge of roadrunner-server) is
// not among the modules that can be had here, and nor is anything it is built
// on. So Plugin does what it does: it serves CentrifugoProxy over gRPC, gives
// each call to a worker as the protobuf message with a header in JSON, and
// calls CentrifugoApi without a key. Worker takes it up as the PHP SDK does.
package roadrunner

import (
	"context"
	"encoding/json"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/carillon-rt/carillon/tests/wire"
)

// patience is how long anything may take.
const patience = 15 * time.Second

// Payload is what the plug-in sends to a worker through its pipe.
type Payload struct {
	// Context is the header: a JSON object of lists of strings, which are the
	// call's metadata and, appended to what may be there, its type.
	Context []byte
	// Body is the request of the call.
	Body []byte
}

// types are what the plug-in appends to the header's type, by method.
var types = map[string]string{
	"Connect": "connect", "Refresh": "refresh", "Subscribe": "subscribe", "Publish": "publish", "RPC": "rpc",
	"SubRefresh": "subrefresh", "NotifyCacheEmpty": "notifycacheempty",
}

// Plugin stands in for RoadRunner's.
type Plugin struct {
	// Addr is where it serves CentrifugoProxy, host:port.
	Addr string

	t      testing.TB
	proxy  *wire.Service
	api    *wire.Service
	worker *Worker
	conn   *grpc.ClientConn // to CentrifugoApi; nil before Use
}

// Start serves until the test ends.
func Start(t testing.TB) (*Plugin, *Worker) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	proxy := wire.Proxy(t)
	p := &Plugin{Addr: l.Addr().String(), t: t, proxy: proxy, api: wire.API(t), worker: newWorker(t, proxy)}
	server := grpc.NewServer(grpc.UnknownServiceHandler(p.serve))
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(l) // ends with Stop
	}()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return p, p.worker
}

// serve passes one call on.
func (p *Plugin) serve(_ any, stream grpc.ServerStream) error {
	full, _ := grpc.MethodFromServerStream(stream)
	method := p.proxy.Method(full)
	if method == nil {
		return status.Errorf(codes.Unimplemented, "unknown method %s", full)
	}
	request := dynamicpb.NewMessage(method.Input())
	if err := stream.RecvMsg(request); err != nil {
		return err
	}
	body, err := proto.Marshal(request)
	if err != nil {
		return err
	}
	md, _ := metadata.FromIncomingContext(stream.Context())
	md = md.Copy()
	md.Append("type", types[string(method.Name())])
	header, err := json.Marshal(md)
	if err != nil {
		return err
	}
	raw, err := p.worker.exec(Payload{Context: header, Body: body})
	if err != nil {
		return err
	}
	response := dynamicpb.NewMessage(method.Output())
	if err := proto.Unmarshal(raw, response); err != nil {
		return err
	}
	return stream.SendMsg(response)
}

// Use has the plug-in call the server API at this address from now on, without
// a key and with compressed requests.
func (p *Plugin) Use(addr string) {
	p.t.Helper()
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.UseCompressor(gzip.Name)))
	if err != nil {
		p.t.Fatalf("reach the server API: %v", err)
	}
	p.t.Cleanup(func() { conn.Close() })
	p.conn = conn
}

// Do calls a method of the server API, as a worker does through the plug-in's
// RPC, with a request in protobuf's text form.
func (p *Plugin) Do(method, request string) (*dynamicpb.Message, error) {
	p.t.Helper()
	d := p.api.Methods.ByName(protoreflect.Name(method))
	if d == nil {
		p.t.Fatalf("there is no method %s", method)
	}
	return p.do(method, string(d.Input().Name()), request, string(d.Output().Name()))
}

// DisconnectByPHP disconnects as the PHP SDK up to 2.x does: it has the plug-in
// call Unsubscribe with the bytes of another request. The plug-in can't read
// those with a code, which are no text.
func (p *Plugin) DisconnectByPHP(request string) (*dynamicpb.Message, error) {
	p.t.Helper()
	return p.do("Unsubscribe", "DisconnectRequest", request, "Empty")
}

// DoUnknown calls a method that the plug-in knows and this package does not,
// with an empty request. Every response begins with its error.
func (p *Plugin) DoUnknown(method string) (*dynamicpb.Message, error) {
	p.t.Helper()
	return p.do(method, "Nothing", "", "Empty")
}

func (p *Plugin) do(method, message, text, response string) (*dynamicpb.Message, error) {
	p.t.Helper()
	in, err := p.api.Message(message, text)
	if err != nil {
		p.t.Fatal(err)
	}
	out, err := p.api.Message(response, "")
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	defer cancel()
	return out, p.conn.Invoke(ctx, p.api.Path(method), in, out)
}

// MustDo is Do that fails the test if the call has no result.
func (p *Plugin) MustDo(method, request string) *dynamicpb.Message {
	p.t.Helper()
	out, err := p.Do(method, request)
	if err != nil {
		p.t.Fatalf("%s {%s}: %v", method, request, err)
	}
	if code := wire.Field(out, "error.code").Uint(); code != 0 {
		p.t.Fatalf("%s {%s}: error %d %s", method, request, code, wire.Text(out, "error.message"))
	}
	return out
}
