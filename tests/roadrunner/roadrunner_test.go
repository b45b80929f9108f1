package roadrunner

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/tests/env"
	"github.com/carillon-rt/carillon/tests/wire"
)

// app is the id of the application's app.
const app = "2001"

func TestMain(m *testing.M) { leaktest.Main(m) }

// start starts two gateways that ask a worker under RoadRunner about
// everything, and lets it call the server API.
func start(t *testing.T) (*env.Cluster, *Plugin, *Worker) {
	t.Helper()
	p, w := Start(t)
	c := env.Start(t, env.Apart(2),
		env.Set("api.centrifugo_grpc.listen=127.0.0.1:0", "api.centrifugo_grpc.keyless_app="+app, "api.centrifugo_grpc.roadrunner_disconnect=true"),
		env.Config(fmt.Sprintf(`
  - id: %q
    keys: [{key: shop-key, secret: shop-secret}]
    policies:
      - {match: "rr:*", history: {size: 100, ttl: 5m, recover: true}, presence: true, publish: subscribers, subscribe_hook: php, publish_hook: php, sub_refresh_hook: php}
      - {match: "last:*", cache_ttl: 5m, cache_empty_hook: php}
    hooks: [{name: php, url: "grpc://%s", timeout: 5s, forward_headers: [Cookie], headers: {X-Shop: main}, include_meta: true}]
    centrifugo: {enabled: true, connect_hook: php, refresh_hook: php, rpc: [{match: "*", hook: php}]}
`, app, p.Addr)))
	at, ok := c.API.Addresses()
	if !ok || at.CentrifugoGRPC == "" {
		t.Fatalf("the api node does not serve the server API over gRPC: %+v", at)
	}
	p.Use(at.CentrifugoGRPC)
	return c, p, w
}

// ofAnn begins every request about the client of Ann.
const ofAnn = `transport: "websocket" protocol: "protobuf" encoding: "json" user: "42" meta: '{"tenant":"acme"}' `

// answerConnect has Ann signed in until a time, 0 is for good.
func answerConnect(w *Worker, until int64, more string) {
	w.Answer("connect", fmt.Sprintf(`result { user: "42" expire_at: %d info: '{"name":"Ann"}' data: '{"hello":1}' meta: '{"tenant":"acme"}' %s }`, until, more))
}

// signIn connects a client as Ann.
func signIn(t *testing.T, w *Worker, gateway string) *client {
	t.Helper()
	c := connect(t, gateway, "s1")
	c.expect(`connected {"hello":1}`)
	w.Expect(t, c.id(), "connect", `transport: "websocket" protocol: "protobuf" encoding: "json" data: '{"session":"s1"}' name: "shop" version: "1.2"`)
	return c
}

func TestQuestions(t *testing.T) {
	cluster, _, w := start(t)
	gateway := cluster.Gateways[1].Public()

	t.Run("connect", func(t *testing.T) {
		answerConnect(w, 0, `channels: "rr:inbox"`)
		c := connect(t, gateway, "s1")
		c.expect(`connected {"hello":1}`)
		c.expect(`rr:inbox: subscribed `)
		q := w.Expect(t, c.id(), "connect", `transport: "websocket" protocol: "protobuf" encoding: "json" data: '{"session":"s1"}' name: "shop" version: "1.2"`)
		for name, want := range map[string]string{"cookie": "sid=s1", "x-shop": "main"} {
			if got := q.Header[name]; !slices.Equal(got, []string{want}) {
				t.Errorf("the worker got the header %s: %q, want %q", name, got, want)
			}
		}
	})
	t.Run("connect refused", func(t *testing.T) {
		w.Answer("connect", `disconnect { code: 4501 reason: "who are you" }`)
		c := connect(t, gateway, "s1")
		c.expect(`disconnected 4501 who are you`)
	})
	answerConnect(w, 0, "")

	t.Run("subscribe and publish", func(t *testing.T) {
		c := signIn(t, w, gateway)
		w.Answer("subscribe", `result { info: '{"role":"host"}' data: '{"topic":"tea"}' }`)
		s := c.subscribe("rr:room", `{"from":"lobby"}`)
		c.expect(`rr:room: subscribed {"topic":"tea"}`)
		w.Expect(t, c.id(), "subscribe", ofAnn+`channel: "rr:room" data: '{"from":"lobby"}'`)

		w.Answer("publish", `result { data: '{"text":"edited"}' }`)
		if _, err := s.Publish(t.Context(), []byte(`{"text":"hi"}`)); err != nil {
			t.Errorf("publish: %v", err)
		}
		w.Expect(t, c.id(), "publish", ofAnn+`channel: "rr:room" data: '{"text":"hi"}'`)
		c.expect(`rr:room: {"text":"edited"} from 42 {"name":"Ann"} {"role":"host"}`)

		w.Answer("publish", `error { code: 1001 message: "too loud" }`)
		_, err := s.Publish(t.Context(), []byte(`{"text":"HI"}`))
		expectError(t, err, 1001, "too loud")
		w.Take(c.id())

		w.Answer("subscribe", `error { code: 403 message: "members only" }`)
		s = c.subscribe("rr:club", `{}`)
		c.expect(`rr:club: unsubscribed 403 members only`)
		if s.State() != centrifuge.SubStateUnsubscribed {
			t.Errorf("a subscription that was refused is %s", s.State())
		}
	})

	t.Run("rpc", func(t *testing.T) {
		c := signIn(t, w, gateway)
		w.Answer("rpc", `result { data: '{"id":1,"name":"Ann"}' }`)
		got, err := c.RPC(t.Context(), "get:users/1", []byte(`{"fields":["name"]}`))
		if err != nil || string(got.Data) != `{"id":1,"name":"Ann"}` {
			t.Errorf("the call gave %s, %v", got.Data, err)
		}
		w.Expect(t, c.id(), "rpc", ofAnn+`method: "get:users/1" data: '{"fields":["name"]}'`)

		w.Answer("rpc", `error { code: 404 message: "no such user" }`)
		_, err = c.RPC(t.Context(), "get:users/2", nil)
		expectError(t, err, 404, "no such user")
		w.Expect(t, c.id(), "rpc", ofAnn+`method: "get:users/2"`)

		w.Answer("rpc", `disconnect { code: 4502 reason: "enough" }`)
		_, _ = c.RPC(t.Context(), "get:users/3", nil) // the connection ends before an answer
		c.expect(`disconnected 4502 enough`)
	})

	t.Run("refresh", func(t *testing.T) {
		answerConnect(w, time.Now().Unix()+1, "")
		w.Answer("refresh", fmt.Sprintf(`result { expire_at: %d }`, time.Now().Unix()+3600))
		c := signIn(t, w, gateway)
		w.Expect(t, c.id(), "refresh", ofAnn)

		answerConnect(w, time.Now().Unix()+1, "")
		w.Answer("refresh", `result { expired: true }`)
		c = signIn(t, w, gateway)
		c.expect(`connecting 3005 connection expired`)
		answerConnect(w, 0, "")
		c.expect(`connected {"hello":1}`)
	})

	t.Run("sub_refresh", func(t *testing.T) {
		c := signIn(t, w, gateway)
		w.Answer("sub_refresh", fmt.Sprintf(`result { expire_at: %d }`, time.Now().Unix()+3600))
		w.Answer("subscribe", fmt.Sprintf(`result { expire_at: %d }`, time.Now().Unix()+1))
		c.subscribe("rr:short", "")
		c.expect(`rr:short: subscribed `)
		w.Expect(t, c.id(), "subscribe", ofAnn+`channel: "rr:short"`)
		q := w.Expect(t, c.id(), "sub_refresh", ofAnn+`channel: "rr:short"`)
		if !slices.Equal(q.Header["type"], []string{"sub_refresh", "subrefresh"}) {
			t.Errorf("the header's type is %q: the worker reads the first and the plug-in adds the second", q.Header["type"])
		}
	})
}

// A channel has no last value: the worker publishes one when it is told, and the
// client gets it with its subscription.
func TestEmptyCache(t *testing.T) {
	cluster, p, w := start(t)
	answerConnect(w, 0, "")
	c := signIn(t, w, cluster.Gateways[0].Public())
	w.Answer("notifycacheempty", `result { populated: true }`)
	w.Before("notifycacheempty", func() {
		if _, err := p.Do("Publish", `channel: "last:tea" data: '{"price":7}'`); err != nil {
			t.Errorf("publish: %v", err)
		}
	})
	c.subscribe("last:tea", "")
	c.expect(`last:tea: subscribed `)
	c.expect(`last:tea: {"price":7}`)
	q := w.Expect(t, "", "notifycacheempty", `channel: "last:tea"`)
	if !slices.Equal(q.Header["type"], []string{"notifycacheempty", "notifycacheempty"}) {
		t.Errorf("the header's type is %q", q.Header["type"])
	}

	// It does not answer: the client is subscribed without a value.
	subscribed := make(chan struct{})
	w.Before("notifycacheempty", func() { <-subscribed })
	c.subscribe("last:none", "")
	c.expect(`last:none: subscribed `)
	close(subscribed)
}

// expectError checks the error that a client was answered with.
func expectError(t *testing.T, err error, code uint32, message string) {
	t.Helper()
	var answered *centrifuge.Error
	if !errors.As(err, &answered) || answered.Code != code || answered.Message != message {
		t.Errorf("the client got the error %v, want %d %s", err, code, message)
	}
}

func TestCalls(t *testing.T) {
	cluster, p, w := start(t)
	answerConnect(w, 0, "")
	w.Answer("subscribe", `result { info: '{"role":"guest"}' }`)
	one, two := signIn(t, w, cluster.Gateways[0].Public()), signIn(t, w, cluster.Gateways[1].Public())
	for _, c := range []*client{one, two} {
		c.subscribe("rr:room", "")
		c.expect(`rr:room: subscribed `)
	}

	// The PHP SDK has skip_history on unless it is told otherwise.
	p.MustDo("Publish", `channel: "rr:room" data: '{"n":0}' skip_history: true`)
	at := wire.Field(p.MustDo("Publish", `channel: "rr:room" data: '{"n":1}' tags { key: "kind" value: "news" }`), "result.offset").Uint()
	if at == 0 {
		t.Error("a publication of a channel with a history has no offset")
	}
	sent := wire.Field(p.MustDo("Broadcast", `channels: "rr:room" channels: "rr:other" data: '{"n":2}'`), "result.responses").List()
	if sent.Len() != 2 {
		t.Errorf("a broadcast to two channels has %d responses", sent.Len())
	}
	for _, c := range []*client{one, two} {
		for n := range 3 {
			c.expect(fmt.Sprintf(`rr:room: {"n":%d}`, n))
		}
	}

	past := p.MustDo("History", `channel: "rr:room" limit: 10`)
	kept := wire.Field(past, "result.publications").List()
	if kept.Len() != 2 || wire.Text(kept.Get(0).Message(), "data") != `{"n":1}` || wire.Field(kept.Get(0).Message(), "offset").Uint() != at || wire.Text(kept.Get(1).Message(), "data") != `{"n":2}` {
		t.Errorf("the history is %v, want what was published without skip_history, the first at %d", past, at)
	}
	if tag := wire.Field(kept.Get(0).Message(), "tags").Map().Get(wire.Key("kind")); !tag.IsValid() || tag.String() != "news" {
		t.Errorf("the first publication of the history lost its tag: %v", past)
	}

	await.Within(t, patience, "both clients are present", func() bool {
		return wire.Field(p.MustDo("PresenceStats", `channel: "rr:room"`), "result.num_clients").Uint() == 2
	})
	stats := p.MustDo("PresenceStats", `channel: "rr:room"`)
	if users := wire.Field(stats, "result.num_users").Uint(); users != 1 {
		t.Errorf("two clients of Ann are %d users", users)
	}
	present := wire.Field(p.MustDo("Presence", `channel: "rr:room"`), "result.presence").Map()
	for _, c := range []*client{one, two} {
		info := present.Get(wire.Key(c.id()))
		if !info.IsValid() {
			t.Fatalf("presence lacks client %s: %v", c.id(), present)
		}
		for name, want := range map[string]string{"user": "42", "client": c.id(), "conn_info": `{"name":"Ann"}`, "chan_info": `{"role":"guest"}`} {
			if got := wire.Text(info.Message(), name); got != want {
				t.Errorf("presence has %s %q of client %s, want %q", name, got, c.id(), want)
			}
		}
	}
	await.Within(t, patience, "the channel is listed with both clients", func() bool {
		channels := wire.Field(p.MustDo("Channels", `pattern: "rr:*"`), "result.channels").Map().Get(wire.Key("rr:room"))
		return channels.IsValid() && wire.Field(channels.Message(), "num_clients").Uint() == 2
	})
	var clients uint64
	nodes := wire.Field(p.MustDo("Info", ""), "result.nodes").List()
	for i := range nodes.Len() {
		clients += wire.Field(nodes.Get(i).Message(), "num_clients").Uint()
	}
	if clients != 2 {
		t.Errorf("the nodes have %d clients, want 2", clients)
	}

	p.MustDo("Subscribe", `channel: "rr:news" user: "42" data: '{"given":true}'`)
	for _, c := range []*client{one, two} {
		c.expect(`rr:news: subscribed {"given":true}`)
	}
	p.MustDo("Publish", `channel: "rr:news" data: '{"n":3}'`)
	for _, c := range []*client{one, two} {
		c.expect(`rr:news: {"n":3}`)
	}
	p.MustDo("Unsubscribe", `channel: "rr:news" user: "42"`)
	for _, c := range []*client{one, two} {
		c.expect(`rr:news: unsubscribed`)
	}

	p.MustDo("HistoryRemove", `channel: "rr:room"`)
	await.Within(t, patience, "the history is gone", func() bool {
		return wire.Field(p.MustDo("History", `channel: "rr:room" limit: 10`), "result.publications").List().Len() == 0
	})

	p.MustDo("Disconnect", fmt.Sprintf(`user: "42" client: %q disconnect { code: 4503 reason: "closing time" reconnect: true }`, one.id()))
	one.expect(`disconnected 4503 closing time`)
	if out, err := p.DisconnectByPHP(`user: "42"`); err != nil || wire.Field(out, "error.code").Uint() != 0 {
		t.Errorf("a disconnect of the PHP SDK: %v, %v", out, err)
	}
	two.expect(`disconnected 3503 force disconnect`)
	await.Within(t, patience, "nobody is present", func() bool {
		return wire.Field(p.MustDo("PresenceStats", `channel: "rr:room"`), "result.num_clients").Uint() == 0
	})
}

// Calls of paid editions, which the plug-in passes on too, and calls that make
// no sense.
func TestCallsRefused(t *testing.T) {
	_, p, _ := start(t)
	for _, method := range []string{"BlockUser", "RevokeToken", "DeviceRegister", "SendPushNotification", "UpdateUserStatus"} {
		out, err := p.DoUnknown(method)
		if err != nil || wire.Field(out, "error.code").Uint() != 108 || wire.Text(out, "error.message") == "" {
			t.Errorf("%s: %v, %v, want error 108 and what it is about", method, out, err)
		}
	}
	_, err := p.DoUnknown("NoSuchMethod")
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("a method that is nowhere: %v, want Unimplemented", err)
	}
	for _, c := range []struct {
		method, request string
		code            uint64
	}{
		{"Publish", `data: "{}"`, 107},
		{"Publish", `channel: "rr:room"`, 107},
		{"Presence", `channel: "plain"`, 108},
		{"History", `channel: "plain" limit: 1`, 108},
		{"Disconnect", ``, 107},
	} {
		out, err := p.Do(c.method, c.request)
		if err != nil || wire.Field(out, "error.code").Uint() != c.code {
			t.Errorf("%s {%s}: %v, %v, want error %d", c.method, c.request, out, err, c.code)
		}
	}
}
