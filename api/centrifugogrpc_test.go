package api_test

import (
	"context"
	"crypto/tls"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/carillon-rt/carillon/api"
	"github.com/carillon-rt/carillon/kit/certtest"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/centrifugo/apipb"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

func withGRPC(c *apiConfig) { c.CentrifugoGRPC.Listen = "127.0.0.1:0" }

func keyless(c *apiConfig) { c.CentrifugoGRPC.Listen, c.CentrifugoGRPC.KeylessApp = "127.0.0.1:0", "7" }

// dial gives a client of the API over gRPC.
func (f *fixture) dial(creds credentials.TransportCredentials) (apipb.CentrifugoApiClient, *grpc.ClientConn) {
	f.t.Helper()
	conn, err := grpc.NewClient(f.api.CentrifugoGRPCAddr(), grpc.WithTransportCredentials(creds))
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { conn.Close() })
	return apipb.NewCentrifugoApiClient(conn), conn
}

// with is a context with metadata.
func with(pairs ...string) context.Context {
	return metadata.AppendToOutgoingContext(context.Background(), pairs...)
}

func TestCentrifugoGRPCKeys(t *testing.T) {
	f := start(t, withGRPC).router()
	client, _ := f.dial(insecure.NewCredentials())
	call := func(ctx context.Context) (*apipb.PublishResponse, error) {
		return client.Publish(ctx, &apipb.PublishRequest{Channel: "a", Data: []byte("1")})
	}
	for _, tc := range []struct {
		name string
		ctx  context.Context
		code codes.Code
	}{
		{"key", with("authorization", "apikey api-key"), codes.OK},
		{"key in a header of its own", with("x-api-key", "api-key"), codes.OK},
		{"no key", with(), codes.Unauthenticated},
		{"wrong key", with("authorization", "apikey nobody's"), codes.Unauthenticated},
		{"disabled app", with("authorization", "apikey api-key-of-8"), codes.PermissionDenied},
	} {
		if _, err := call(tc.ctx); status.Code(err) != tc.code {
			t.Errorf("%s: %v, want %s", tc.name, err, tc.code)
		}
	}
	if pubs := f.take(); len(pubs) != 2 || pubs[0].App != "7" {
		t.Errorf("published %+v", pubs)
	}
}

// A caller that can't send keys speaks for one app; one that sends a key for
// that of the key.
func TestCentrifugoGRPCKeyless(t *testing.T) {
	f := start(t, keyless).router()
	client, _ := f.dial(insecure.NewCredentials())
	for _, tc := range []struct {
		ctx  context.Context
		code codes.Code
		app  string
	}{
		{with(), codes.OK, "7"},
		{with("authorization", "apikey api-key-of-9"), codes.OK, "9"},
		{with("authorization", "apikey nobody's"), codes.Unauthenticated, ""},
	} {
		_, err := client.Publish(tc.ctx, &apipb.PublishRequest{Channel: "a", Data: []byte("1")}, grpc.UseCompressor(gzip.Name))
		pubs := f.take()
		if status.Code(err) != tc.code || (err == nil) != (len(pubs) == 1) || len(pubs) == 1 && pubs[0].App != tc.app {
			t.Errorf("%v: published %+v, want %s", err, pubs, tc.app)
		}
	}
}

// A port without keys must not be open to all.
func TestCentrifugoGRPCRefusesToStart(t *testing.T) {
	deps := natstest.Server(t).Deps(t, "api-1", "api")
	registry, err := app.NewRegistry(apps())
	if err != nil {
		t.Fatal(err)
	}
	cert := certtest.New(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, tc := range map[string]struct {
		change func(*api.Config)
		text   string
	}{
		"all addresses without keys": {func(c *api.Config) { c.CentrifugoGRPC.Listen, c.CentrifugoGRPC.KeylessApp = "0.0.0.0:0", "7" }, "loopback"},
		"TLS alone is no protection": {func(c *api.Config) {
			c.CentrifugoGRPC.Listen, c.CentrifugoGRPC.KeylessApp, c.CentrifugoGRPC.Cert, c.CentrifugoGRPC.Key = "0.0.0.0:0", "7", cert.CertFile, cert.KeyFile
		}, "client_ca"},
		"app that there is not": {func(c *api.Config) { c.CentrifugoGRPC.Listen, c.CentrifugoGRPC.KeylessApp = "127.0.0.1:0", "77" }, "id of an app"},
		"address":               {func(c *api.Config) { c.CentrifugoGRPC.Listen = "10000" }, "host:port"},
		"half a certificate":    {func(c *api.Config) { c.CentrifugoGRPC.Listen, c.CentrifugoGRPC.Cert = "127.0.0.1:0", cert.CertFile }, "go together"},
		"authorities alone":     {func(c *api.Config) { c.CentrifugoGRPC.Listen, c.CentrifugoGRPC.ClientCA = "127.0.0.1:0", cert.CertFile }, "needs cert"},
		"certificate that is missing": {func(c *api.Config) {
			c.CentrifugoGRPC.Listen, c.CentrifugoGRPC.Cert, c.CentrifugoGRPC.Key = "127.0.0.1:0", "none", "none"
		}, "cert and key"},
		"authorities that are none": {func(c *api.Config) {
			c.CentrifugoGRPC.Listen, c.CentrifugoGRPC.Cert, c.CentrifugoGRPC.Key, c.CentrifugoGRPC.ClientCA = "127.0.0.1:0", cert.CertFile, cert.KeyFile, cert.KeyFile
		}, "no certificate"},
		"port that is taken": {func(c *api.Config) { c.CentrifugoGRPC.Listen = taken.Addr().String() }, "bind gRPC port"},
	} {
		cfg := api.DefaultConfig()
		cfg.Listen = "127.0.0.1:0"
		tc.change(&cfg)
		if _, err := api.New(cfg, deps, registry); err == nil || !strings.Contains(err.Error(), tc.text) || !strings.Contains(err.Error(), "centrifugo_grpc") {
			t.Errorf("%s: %v, want %q", name, err, tc.text)
		}
	}
}

// With client certificates, callers without one stay outside.
func TestCentrifugoGRPCClientCertificates(t *testing.T) {
	cert := certtest.New(t)
	f := start(t, func(c *apiConfig) {
		c.CentrifugoGRPC.Listen, c.CentrifugoGRPC.KeylessApp = "127.0.0.1:0", "7"
		c.CentrifugoGRPC.Cert, c.CentrifugoGRPC.Key, c.CentrifugoGRPC.ClientCA = cert.CertFile, cert.KeyFile, cert.CertFile
	}).router()
	settings := &tls.Config{RootCAs: cert.Roots, MinVersion: tls.VersionTLS13}
	stranger, _ := f.dial(credentials.NewTLS(settings))
	if _, err := stranger.Publish(with(), &apipb.PublishRequest{Channel: "a", Data: []byte("1")}); status.Code(err) != codes.Unavailable {
		t.Errorf("without a certificate: %v", err)
	}
	settings = settings.Clone()
	settings.Certificates = []tls.Certificate{cert.Server}
	client, _ := f.dial(credentials.NewTLS(settings))
	if res, err := client.Publish(with(), &apipb.PublishRequest{Channel: "a", Data: []byte("1")}); err != nil || res.GetError() != nil {
		t.Errorf("with a certificate: %v, %v", res, err)
	}
}

// TestCentrifugoGRPC calls every method.
func TestCentrifugoGRPC(t *testing.T) {
	f := start(t, keyless).router().presence().history().hooks()
	commands := f.gateways(control.Answer{Node: "gw-1"})
	f.occupy(
		presence.ChannelInfo{Name: "room:1", Subscriptions: 1, Members: []presence.MemberInfo{{ID: "1.1", Info: `{"user":"u","client":"1.1","conn_info":1,"chan_info":2}`}}},
	)
	f.keep(1<<10, message.Publication{
		Kind: message.Event, Data: []byte{0xff}, Info: []byte(`{"user":"u","client":"1.1","conn_info":{}}`), Tags: []message.Tag{{Key: "k", Value: "v"}},
	})
	c, _ := f.dial(insecure.NewCredentials())
	ctx := with()
	same := func(name string, got proto.Message, err error, want proto.Message) {
		t.Helper()
		if err != nil || !proto.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", name, got, err, want)
		}
	}
	at := &apipb.PublishResult{Offset: 1024, Epoch: "epoch"}
	pub, err := c.Publish(ctx, &apipb.PublishRequest{Channel: "news:1", Data: []byte{0xff}, Tags: map[string]string{"k": "v"}, IdempotencyKey: "i"})
	same("publish", pub, err, &apipb.PublishResponse{Result: at})
	if pubs := f.take(); len(pubs) != 1 || string(pubs[0].Data) != "\xff" || len(pubs[0].Tags) != 1 || pubs[0].IdempotencyKey != "i" {
		t.Errorf("published %+v", pubs)
	}
	cast, err := c.Broadcast(ctx, &apipb.BroadcastRequest{Channels: []string{"news:1", "nobody:1"}, B64Data: "MQ==", SkipHistory: true})
	if r := cast.GetResult().GetResponses(); err != nil || len(r) != 2 || r[0].GetResult() == nil || r[1].GetError().GetCode() != 102 {
		t.Errorf("broadcast: %v, %v", cast, err)
	}
	who, err := c.Presence(ctx, &apipb.PresenceRequest{Channel: "room:1"})
	same("presence", who, err, &apipb.PresenceResponse{Result: &apipb.PresenceResult{Presence: map[string]*apipb.ClientInfo{
		"1.1": {User: "u", Client: "1.1", ConnInfo: []byte("1"), ChanInfo: []byte("2")},
	}}})
	stats, err := c.PresenceStats(ctx, &apipb.PresenceStatsRequest{Channel: "room:1"})
	same("presence_stats", stats, err, &apipb.PresenceStatsResponse{Result: &apipb.PresenceStatsResult{NumClients: 1, NumUsers: 1}})
	past, err := c.History(ctx, &apipb.HistoryRequest{Channel: "news:1", Limit: 5, Since: &apipb.StreamPosition{Epoch: "epoch"}})
	same("history", past, err, &apipb.HistoryResponse{Result: &apipb.HistoryResult{Epoch: "epoch", Offset: 9216, Publications: []*apipb.Publication{{
		Data: []byte{0xff}, Info: &apipb.ClientInfo{User: "u", Client: "1.1", ConnInfo: []byte("{}")}, Offset: 1024, Tags: map[string]string{"k": "v"},
	}}}})
	f.take()
	gone, err := c.HistoryRemove(ctx, &apipb.HistoryRemoveRequest{Channel: "news:1"})
	same("history_remove", gone, err, &apipb.HistoryRemoveResponse{Result: &apipb.HistoryRemoveResult{}})
	if pubs := f.take(); len(pubs) != 1 || pubs[0].Kind != message.HistoryRemoved {
		t.Errorf("published %+v", pubs)
	}
	list, err := c.Channels(ctx, &apipb.ChannelsRequest{Pattern: "room*", Limit: 1})
	same("channels", list, err, &apipb.ChannelsResponse{Result: &apipb.ChannelsResult{Channels: map[string]*apipb.ChannelInfo{"room:1": {NumClients: 1}}}})
	called, err := c.RPC(ctx, &apipb.RPCRequest{Method: "chat.echo", Params: []byte("1")})
	same("rpc", called, err, &apipb.RPCResponse{Result: &apipb.RPCResult{Data: []byte(`{"echo":1}`)}})
	nodes, err := c.Info(ctx, &apipb.InfoRequest{})
	if n := nodes.GetResult().GetNodes(); err != nil || len(n) != 1 || n[0].GetName() != "api-1" || n[0].GetUid() == "" {
		t.Errorf("info: %v, %v", nodes, err)
	}
	operations(t, c, commands)
}

func operations(t *testing.T, c apipb.CentrifugoApiClient, commands <-chan control.Command) {
	t.Helper()
	ctx := with()
	sub, err := c.Subscribe(ctx, &apipb.SubscribeRequest{
		Channel: "a", User: "u", ExpireAt: 5, Info: []byte("1"), RecoverSince: &apipb.StreamPosition{Offset: 3, Epoch: "e"},
		Override: &apipb.SubscribeOptionOverride{ForceRecovery: &apipb.BoolValue{Value: true}, ForcePositioning: &apipb.BoolValue{}},
	})
	if op := (<-commands).Operation; err != nil || sub.GetError() != nil || op.User != "u" || op.Subscribe.SinceOffset != 3 || op.Subscribe.Grant.Info != "1" ||
		!*op.Subscribe.Grant.ForceRecovery || *op.Subscribe.Grant.ForcePosition || op.Subscribe.Grant.Presence != nil {
		t.Errorf("subscribe: %v, %v: %+v", sub, err, op)
	}
	unsub, err := c.Unsubscribe(ctx, &apipb.UnsubscribeRequest{Channel: "a", Client: "1.1"})
	if op := (<-commands).Operation; err != nil || unsub.GetError() != nil || op.Client != "1.1" || op.Unsubscribe != "a" {
		t.Errorf("unsubscribe: %v, %v: %+v", unsub, err, op)
	}
	bye, err := c.Disconnect(ctx, &apipb.DisconnectRequest{AllUsers: true, Disconnect: &apipb.Disconnect{Code: 4000, Reason: "r"}, Whitelist: []string{"2.2"}})
	if op := (<-commands).Operation; err != nil || bye.GetError() != nil || !op.All || op.Disconnect.Code != 4000 || len(op.Except) != 1 {
		t.Errorf("disconnect: %v, %v: %+v", bye, err, op)
	}
	fresh, err := c.Refresh(ctx, &apipb.RefreshRequest{User: "u", Expired: true})
	if op := (<-commands).Operation; err != nil || fresh.GetError() != nil || !op.Refresh.Expired {
		t.Errorf("refresh: %v, %v: %+v", fresh, err, op)
	}
	// A field that is not known here would narrow the target.
	labelled := &apipb.DisconnectRequest{User: "u"}
	labelled.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 6, protowire.BytesType), "x"))
	if bye, err = c.Disconnect(ctx, labelled); err != nil || bye.GetError().GetCode() != 108 {
		t.Errorf("with a label filter: %v, %v", bye, err)
	}
}

func TestCentrifugoGRPCErrors(t *testing.T) {
	f := start(t, keyless).router()
	c, conn := f.dial(insecure.NewCredentials())
	transport := with("x-centrifugo-error-mode", "transport")
	res, err := c.Publish(with(), &apipb.PublishRequest{Channel: "nobody:1", Data: []byte("1")})
	if err != nil || res.GetError().GetCode() != 102 || res.GetResult() != nil {
		t.Errorf("in the response: %v, %v", res, err)
	}
	if _, err = c.Publish(transport, &apipb.PublishRequest{Channel: "nobody:1", Data: []byte("1")}); status.Code(err) != codes.NotFound {
		t.Errorf("as a status: %v", err)
	}
	if _, err = c.Publish(transport, &apipb.PublishRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a bad request: %v", err)
	}
	// Methods of other editions, which are not in the file of the protocol.
	const service = "/centrifugal.centrifugo.api.CentrifugoApi/"
	paid := &apipb.ErrorOnly{}
	if err := conn.Invoke(with(), service+"BlockUser", &emptypb.Empty{}, paid); err != nil || paid.GetError().GetCode() != 108 {
		t.Errorf("a paid method: %v, %v", paid, err)
	}
	if err := conn.Invoke(transport, service+"BlockUser", &emptypb.Empty{}, paid); status.Code(err) != codes.Unimplemented {
		t.Errorf("a paid method as a status: %v", err)
	}
	for _, method := range []string{service + "Nothing", "/other.Service/BlockUser"} {
		if err := conn.Invoke(with(), method, &emptypb.Empty{}, &emptypb.Empty{}); status.Code(err) != codes.Unimplemented {
			t.Errorf("%s: %v", method, err)
		}
	}
	if err := conn.Invoke(with("x-api-key", "nobody's"), service+"BlockUser", &emptypb.Empty{}, paid); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a paid method with a wrong key: %v", err)
	}
	large := &apipb.PublishRequest{Channel: "a", Data: make([]byte, 3<<20)}
	if _, err := c.Publish(with(), large, grpc.UseCompressor(gzip.Name)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a request that is large when unpacked: %v", err)
	}
}

func TestCentrifugoGRPCBatch(t *testing.T) {
	f := start(t, keyless).router().presence().history().hooks()
	commands := f.gateways(control.Answer{Node: "gw-1"})
	c, _ := f.dial(insecure.NewCredentials())
	paid := &apipb.Command{}
	paid.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 21, protowire.BytesType), nil))
	list := []*apipb.Command{
		{Publish: &apipb.PublishRequest{Channel: "news:1", Data: []byte("1")}},
		{Broadcast: &apipb.BroadcastRequest{Channels: []string{"news:1"}, Data: []byte("1")}},
		{Subscribe: &apipb.SubscribeRequest{Channel: "a", User: "u"}},
		{Unsubscribe: &apipb.UnsubscribeRequest{Channel: "a", User: "u"}},
		{Disconnect: &apipb.DisconnectRequest{User: "u"}},
		{Presence: &apipb.PresenceRequest{Channel: "room:1"}},
		{PresenceStats: &apipb.PresenceStatsRequest{Channel: "room:1"}},
		{History: &apipb.HistoryRequest{Channel: "news:1"}},
		{HistoryRemove: &apipb.HistoryRemoveRequest{Channel: "news:1"}},
		{Info: &apipb.InfoRequest{}},
		{Rpc: &apipb.RPCRequest{Method: "chat.echo", Params: []byte("1")}},
		{Refresh: &apipb.RefreshRequest{User: "u"}},
		{Channels: &apipb.ChannelsRequest{}},
		{Connections: &apipb.ConnectionsRequest{}},
		paid,
		{},
	}
	for _, parallel := range []bool{false, true} {
		out, err := c.Batch(with(), &apipb.BatchRequest{Commands: list, Parallel: parallel})
		r := out.GetReplies()
		if err != nil || len(r) != len(list) {
			t.Fatalf("%v, %v", out, err)
		}
		for i := range list[:14] {
			// A reply has one field, with the number of its command's.
			set := 0
			r[i].ProtoReflect().Range(func(fd protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
				if set++; !list[i].ProtoReflect().Has(list[i].ProtoReflect().Descriptor().Fields().ByNumber(fd.Number())) {
					t.Errorf("reply %d is %v", i, r[i])
				}
				return true
			})
			if set != 1 {
				t.Errorf("reply %d is %v", i, r[i])
			}
		}
		if r[14].GetError().GetCode() != 108 || r[15].GetError().GetCode() != 107 {
			t.Errorf("replies to commands without a method: %v, %v", r[14], r[15])
		}
		for range 4 {
			<-commands
		}
	}
	if _, err := c.Batch(with(), &apipb.BatchRequest{Commands: make([]*apipb.Command, 1001)}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("1001 commands: %v", err)
	}
}

// PHP clients of RoadRunner send a disconnect as an unsubscribe. Who has that
// taken for what it is meant to be can still unsubscribe.
func TestCentrifugoGRPCRoadRunner(t *testing.T) {
	f := start(t, keyless, func(c *apiConfig) { c.CentrifugoGRPC.RoadRunnerDisconnect = true })
	commands := f.gateways()
	c, _ := f.dial(insecure.NewCredentials())
	for _, tc := range []struct {
		name string
		sent proto.Message
		want control.Select
		code uint32
		text string
	}{
		{"a disconnect", &apipb.DisconnectRequest{User: "u"}, control.Select{User: "u"}, 3503, "force disconnect"},
		{"with a reason", &apipb.DisconnectRequest{User: "u", Disconnect: &apipb.Disconnect{Code: 0, Reason: "bye"}}, control.Select{}, 0, ""},
		{"an unsubscribe", &apipb.UnsubscribeRequest{Channel: "a", User: "u"}, control.Select{User: "u"}, 0, ""},
		{"an unsubscribe of a client", &apipb.UnsubscribeRequest{Channel: "a", Client: "1.1"}, control.Select{Client: "1.1"}, 0, ""},
	} {
		raw, err := proto.Marshal(tc.sent)
		if err != nil {
			t.Fatal(err)
		}
		request := &apipb.UnsubscribeRequest{}
		if err := proto.Unmarshal(raw, request); err != nil {
			t.Fatal(err)
		}
		res, err := c.Unsubscribe(with(), request)
		if err != nil {
			t.Fatal(err)
		}
		if tc.name == "with a reason" { // of code 0, which is none
			if res.GetError().GetCode() != 107 {
				t.Errorf("%s: %v", tc.name, res)
			}
			continue
		}
		op := (<-commands).Operation
		if res.GetError() != nil || op.User != tc.want.User || op.Client != tc.want.Client || (op.Disconnect != nil) != (tc.code != 0) {
			t.Errorf("%s: %v, %+v", tc.name, res, op)
		}
		if d := op.Disconnect; d != nil && (d.Code != tc.code || d.Text != tc.text) {
			t.Errorf("%s: %+v", tc.name, d)
		}
	}
}
