package badinput

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/cluster"
	"github.com/carillon-rt/carillon/proto/subject"
	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// garbage is no message of anything.
var garbage = []byte("\xff\x00{garbage\x01\xfe\xff\xff\xff\xff\x7f")

const (
	requestsMalformed = "carillon_router_requests_malformed_total"
	batchMalformed    = "carillon_gateway_batch_malformed_total"
	plainTerminated   = "carillon_router_plain_terminated_total"
	presenceMalformed = "carillon_presence_malformed_total"
)

func publicationsRefused(reason string) string {
	return fmt.Sprintf("carillon_router_publications_refused_total{reason=%q}", reason)
}

func TestNATSDoor(t *testing.T) {
	w := start(t, env.Apart(1))
	nc, err := nats.Connect(w.cluster.NATS.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	t.Run("document", func(t *testing.T) { w.badDocuments(t, nc) })
	t.Run("plain", func(t *testing.T) { w.badPlain(t, nc) })
	t.Run("request", func(t *testing.T) { w.badRequests(t, nc) })
	t.Run("garbage", func(t *testing.T) { w.badBroadcasts(t, nc) })
	t.Run("journal", func(t *testing.T) { w.badJournal(t, nc) })
}

// ask sends a request and gives the answer.
func ask(t *testing.T, nc *nats.Conn, to string, body []byte) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), client.Patience)
	defer cancel()
	msg, err := nc.RequestWithContext(ctx, to, body)
	if err != nil {
		t.Fatalf("request to %s: %v", to, err)
	}
	return string(msg.Data)
}

// badDocuments are publish requests of a backend that must be refused.
func (w *world) badDocuments(t *testing.T, nc *nats.Conn) {
	const shape = `; want {"channel": ..., "event": ..., "data": ...} or {"batch": [...]}`
	receipt := func(code int, told string) string {
		return fmt.Sprintf(`{"receipts":[{"error":%s,"code":%d}]}`, quoted(told), code)
	}
	whole := func(told string) string { return `{"error":` + quoted(told) + `,"receipts":[]}` }
	for _, c := range []struct{ name, app, body, metric, want string }{
		{"cut JSON", env.AppID, `{"channel":`, requestsMalformed, whole("body is not a publish document: unexpected end of JSON input" + shape)},
		{"garbage", env.AppID, string(garbage), requestsMalformed, whole("body is not a publish document: invalid character 'ÿ' looking for beginning of value" + shape)},
		{"channel that is a number", env.AppID, `{"channel":1}`, requestsMalformed, whole("body is not a publish document: channel is a number, not a string" + shape)},
		{"channels that is a string", env.AppID, `{"batch":[{"channels":"a"}]}`, requestsMalformed, whole("body is not a publish document: batch.channels is a string, not a list of strings" + shape)},
		{"empty batch", env.AppID, `{"batch":[]}`, requestsMalformed, whole("batch is empty")},
		{"tags that are a list", env.AppID, `{"channel":"a","data":1,"tags":[]}`, requestsMalformed, whole("body is not a publish document: tags must be an object of strings" + shape)},
		{"unknown app", "9999", `{"channel":"a","data":1}`, publicationsRefused("unknown_app"), receipt(3, `no app has the id "9999"`)},
		{"disabled app", "1002", `{"channel":"a","data":1}`, publicationsRefused("app_disabled"), receipt(4, "app 1002 is disabled")},
		{"no channel", env.AppID, `{"data":1}`, publicationsRefused("bad_channel"), receipt(5, "channel name is empty")},
		{"channel with a control character", env.AppID, `{"channel":"a\u0007","data":1}`, publicationsRefused("bad_channel"), receipt(5, "channel name holds the control character U+0007")},
		{"channel too long", env.AppID, `{"channel":"` + strings.Repeat("x", 256) + `","data":1}`, publicationsRefused("bad_channel"), receipt(5, "channel name has 256 bytes, at most 255 are allowed")},
		{"reserved event", env.AppID, `{"channel":"a","event":"pusher:x","data":1}`, publicationsRefused("bad_event"), receipt(6, `event name "pusher:x" begins with the reserved prefix "pusher:"`)},
		{"no data", env.AppID, `{"channel":"a"}`, publicationsRefused("bad_publication"), receipt(8, "data is missing: give a string, or any JSON")},
		{"data too large", env.AppID, `{"channel":"a","data":"` + strings.Repeat("x", 10<<10+1) + `"}`, publicationsRefused("too_large"), receipt(7, "data has 10241 bytes, app 1001 allows 10240")},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.counts(t, c.metric, 1, func() {
				got := ask(t, nc, subject.Publish(c.app), []byte(c.body))
				if got != c.want {
					t.Errorf("answered %s\nwant     %s", got, c.want)
				}
			})
		})
	}
}

// badPlain are messages in the work queue that can never be published: they
// are removed, and what is behind them comes through.
func (w *world) badPlain(t *testing.T, nc *nats.Conn) {
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	put := func(t *testing.T, msg *nats.Msg) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), client.Patience)
		defer cancel()
		if _, err := js.PublishMsg(ctx, msg); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		name, subject string
		event         string
		data          []byte
	}{
		{"no channel", "car.in.1001", "e", nil},
		{"unknown app", "car.in.9999.a", "e", nil},
		{"disabled app", "car.in.1002.a", "e", nil},
		{"reserved event", "car.in.1001.a", "pusher_internal:member_added", nil},
		{"data too large", "car.in.1001.a", "e", make([]byte, 10<<10+1)},
		{"channel too long", "car.in.1001." + strings.Repeat("x", 256), "e", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.counts(t, plainTerminated, 1, func() {
				msg := nats.NewMsg(c.subject)
				msg.Header.Set(subject.HeaderEvent, c.event)
				msg.Data = c.data
				put(t, msg)
			})
		})
	}
	s := w.greeted(t, env.Key)
	s.subscribes(subscribe("behind", "", ""))
	msg := nats.NewMsg("car.in.1001.behind")
	msg.Header.Set(subject.HeaderEvent, "e")
	msg.Data = []byte("comes through")
	put(t, msg)
	s.gets(`{"event":"e","channel":"behind","data":"comes through"}`)
}

// badRequests are questions between services that can't be read. Each has an
// answer, so that who asks need not wait.
func (w *world) badRequests(t *testing.T, nc *nats.Conn) {
	bystanders := channel.Key{App: env.AppID, Name: "bystander"}
	for _, c := range []struct{ name, subject, metric, want string }{
		{"subscribe", subject.AuthSubscribe, decided("subscribe", "malformed"), `{"allow":false,"reason":"bad_data","message":"the authorization request is not the JSON that it should be: `},
		{"sign-in", subject.AuthSignIn, decided("signin", "malformed"), `{"allow":false,"reason":"bad_data","message":"the authorization request is not the JSON that it should be: `},
		{"connect", subject.AuthConnect, decided("connect", "malformed"), `{"allow":false,"reason":"bad_data","message":"the authorization request is not the JSON that it should be: `},
		{"refresh", subject.AuthRefresh, decided("refresh", "malformed"), `{"allow":false,"reason":"bad_data","message":"the authorization request is not the JSON that it should be: `},
		{"subscription refresh", subject.AuthSubRefresh, decided("sub_refresh", "malformed"), `{"allow":false,"reason":"bad_data","message":"the authorization request is not the JSON that it should be: `},
		{"empty cache", subject.AuthCacheEmpty, decided("cache_empty", "malformed"), `{"allow":false,"reason":"bad_data","message":"the authorization request is not the JSON that it should be: `},
		{"client's publication", subject.AuthPublish, decided("publish", "malformed"), `{"allow":false,"reason":"bad_data","message":"the authorization request is not the JSON that it should be: `},
		{"call", subject.AuthRPC, decided("rpc", "malformed"), `{"allow":false,"reason":"bad_data","message":"the authorization request is not the JSON that it should be: `},
		{"publish", subject.AnyRouterPublish, requestsMalformed, ""},
		{"history", subject.History(0), "carillon_router_history_requests_malformed_total", `{"error":"not a history request: `},
		{"presence query", subject.PresenceQuery(0), presenceMalformed, `{"error":"the query is not the JSON that it should be: `},
		{"presence delta", subject.PresenceDelta(bystanders.Shard(subject.PresenceShards)), presenceMalformed, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.counts(t, c.metric, 1, func() {
				if got := ask(t, nc, c.subject, garbage); !strings.HasPrefix(got, c.want) || got == "" {
					t.Errorf("answered %q, want %s", got, c.want)
				}
			})
		})
	}
}

// badBroadcasts are messages that nobody answers.
func (w *world) badBroadcasts(t *testing.T, nc *nats.Conn) {
	terminateAll := []byte(`{"app":"1001","terminate_user":7}`)
	for _, c := range []struct {
		name, subject, metric string
		body                  []byte
	}{
		{"live batch", subject.Live(0), batchMalformed, garbage},
		{"live batch cut", subject.Live(0), batchMalformed, []byte{1, 200}},
		{"heartbeat", subject.Sync(0), batchMalformed, garbage},
		{"empty heartbeat", subject.Sync(0), batchMalformed, nil},
		{"command", subject.GatewayControl, batchMalformed, garbage},
		{"command with a number", subject.GatewayControl, batchMalformed, terminateAll},
		{"snapshot request", subject.GatewaySnapshot("gateway-0"), "carillon_gateway_presence_malformed_total", garbage},
		{"note between presence nodes", subject.PresenceNotes(0), presenceMalformed, garbage},
		{"webhook event", subject.Hook(env.AppID), `carillon_api_webhook_events_total{reason="malformed"}`, garbage},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.counts(t, c.metric, 1, func() {
				if err := nc.Publish(c.subject, c.body); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
	t.Run("flood of garbage", func(t *testing.T) {
		const n = 1_000 // fewer than a partition may have waiting
		w.counts(t, batchMalformed, n, func() {
			for range n {
				if err := nc.Publish(subject.Live(1), garbage); err != nil {
					t.Fatal(err)
				}
			}
		})
	})
}

// badJournal puts garbage where it is stored: gateways and routers pass over
// it, now and when they read the journal again.
func (w *world) badJournal(t *testing.T, nc *nats.Conn) {
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	durable := channel.Key{App: env.AppID, Name: "durable-bystander"}
	partitions, err := cluster.Partitions(t.Context(), js, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	to := subject.Log(durable.Partition(partitions))
	for _, body := range [][]byte{garbage, nil, bytes.Repeat(garbage, 1000)} {
		followed := w.metric(t, "carillon_router_followed_malformed_total")
		w.counts(t, batchMalformed, 1, func() {
			ctx, cancel := context.WithTimeout(t.Context(), client.Patience)
			defer cancel()
			if _, err := js.Publish(ctx, to, body); err != nil {
				t.Fatal(err)
			}
		})
		w.reaches(t, "carillon_router_followed_malformed_total", followed+1)
	}
	router := w.cluster.Named("router")
	router.Stop()
	router.Restart()
	w.reaches(t, "carillon_router_followed_malformed_total", 3) // it has read all of them again
	w.unharmed(t)
}
