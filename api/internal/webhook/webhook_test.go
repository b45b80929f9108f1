package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/signature"
	"github.com/carillon-rt/carillon/proto/subject"
)

// fast has times that a test can wait for.
func fast() Config {
	cfg := DefaultConfig()
	cfg.Timeout, cfg.Window = 2*time.Second, time.Minute
	cfg.BackoffMin, cfg.BackoffMax = 5*time.Millisecond, 20*time.Millisecond
	cfg.AckWait = time.Second
	return cfg
}

// tell is an app with webhooks; its first key is disabled.
func tell(id string, hooks ...app.Webhook) app.App {
	k := "key"
	if id != "3" {
		k += "-of-" + id
	}
	return app.App{ID: id, Keys: []app.Key{{Key: "off-" + id, Secret: "x", Disabled: true}, {Key: k, Secret: "secret"}}, Webhooks: hooks}
}

// node is one api node's webhook service.
type node struct {
	*Service
	t    *testing.T
	apps *app.Registry
	nc   *nats.Conn
	stop func()
}

func startNode(t *testing.T, srv *natstest.TestServer, cfg Config, apps ...app.App) *node {
	t.Helper()
	registry, err := app.NewRegistry(apps)
	if err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, apps: registry, nc: srv.Conns(t).Req}
	n.Service, err = New(cfg, Deps{NATS: n.nc, Apps: registry, Log: natstest.Logger(t), Metrics: telemetry.NewMetrics()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(n.stop)
	await.True(t, "the queue to open", func() bool { return n.Ready() == nil })
	return n
}

func (n *node) publish(app string, events ...hook.Event) {
	n.t.Helper()
	for _, ev := range events {
		data, err := json.Marshal(ev)
		if err != nil {
			n.t.Fatal(err)
		}
		if _, err := n.js.Publish(n.t.Context(), subject.Hook(app), data); err != nil {
			n.t.Fatal(err)
		}
	}
}

func occupied(channel string) hook.Event {
	return hook.Event{Name: hook.ChannelOccupied, Channel: channel, TimeMs: time.Now().UnixMilli()}
}

// stored is the number of messages in a stream.
func (n *node) stored(stream string) uint64 {
	n.t.Helper()
	s, err := n.js.Stream(n.t.Context(), stream)
	if err != nil {
		n.t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

func (n *node) untilDone() {
	n.t.Helper()
	await.True(n.t, "the queue to be empty", func() bool { return n.stored(subject.HookStream) == 0 })
}

func TestDelivery(t *testing.T) {
	r := newReceiver(t, nil)
	n := startNode(t, natstest.Server(t), fast(), tell("3", app.Webhook{URL: r.URL, Headers: map[string]string{"X-Own": "1", "Content-Type": "text/plain"}}))
	zero := 0
	n.publish("3",
		hook.Event{Name: hook.ChannelOccupied, Channel: "a", TimeMs: 1},
		hook.Event{Name: hook.MemberAdded, Channel: "presence-b", UserID: "7"},
		hook.Event{Name: hook.ClientEvent, Channel: "private-c", Event: "client-<x>", Data: `{"a":"<&>"}`, SocketID: "1.2", UserID: "8"},
		hook.Event{Name: hook.ClientEvent, Channel: "private-d", Event: "client-x", SocketID: "1.2"},
		hook.Event{Name: hook.SubscriptionCount, Channel: "e", SubscriptionCount: &zero},
		hook.Event{Name: hook.CacheMiss, Channel: "cache-f"},
	)
	n.untilDone()
	got := map[string]string{}
	for _, c := range r.got() {
		_, events, _ := strings.Cut(c.body, `"events":`)
		got[c.channels()] = strings.TrimSuffix(events, "}")
		if c.header.Get("X-Own") != "1" {
			t.Errorf("own header is %q", c.header.Get("X-Own"))
		}
	}
	want := map[string]string{
		"a":          `[{"name":"channel_occupied","channel":"a"}]`,
		"presence-b": `[{"name":"member_added","channel":"presence-b","user_id":"7"}]`,
		"private-c":  `[{"name":"client_event","channel":"private-c","event":"client-<x>","data":"{\"a\":\"<&>\"}","socket_id":"1.2","user_id":"8"}]`,
		"private-d":  `[{"name":"client_event","channel":"private-d","event":"client-x","data":"","socket_id":"1.2"}]`,
		"e":          `[{"name":"subscription_count","channel":"e","subscription_count":0}]`,
		"cache-f":    `[{"name":"cache_miss","channel":"cache-f"}]`,
	}
	if len(r.got()) != len(want) {
		t.Errorf("%d requests, want one for each of %d events", len(r.got()), len(want))
	}
	for channel, body := range want {
		if got[channel] != body {
			t.Errorf("events of %s: %s, want %s", channel, got[channel], body)
		}
	}
}

// An endpoint on NATS gets what one on HTTP gets. It has taken the events when
// it has answered, with anything but an error.
func TestDeliveryOverNATS(t *testing.T) {
	srv := natstest.Server(t)
	n := startNode(t, srv, fast(), tell("3", app.Webhook{URL: "nats:shop.events", Headers: map[string]string{"X-Own": "1", "Host": "x"}}))
	n.publish("3", occupied("a"))
	await.True(t, "an attempt with nobody there", func() bool { return testutil.ToFloat64(n.metrics.attempts["error"]) > 0 })

	answers := []string{`{"error":{"code":1}}`, `{"error":"not now"}`, "500", `{"error":null,"ok":true}`, "", "thanks"}
	bodies := make(chan string, 16)
	_, err := srv.Conns(t).Req.Subscribe("shop.events", func(m *nats.Msg) {
		if m.Header.Get("X-Own") != "1" || m.Header.Get("Content-Type") != "application/json" || m.Header.Get("Host") != "" ||
			m.Header.Get("X-Pusher-Key") != "key" || !signature.Verify("secret", string(m.Data), m.Header.Get("X-Pusher-Signature")) {
			t.Errorf("headers are %v", m.Header)
		}
		answer := answers[0]
		answers = answers[1:]
		_, events, _ := strings.Cut(string(m.Data), `"events":`)
		bodies <- events
		reply := &nats.Msg{Data: []byte(answer)}
		if answer == "500" { // as a service of package micro says it
			reply = &nats.Msg{Header: nats.Header{"Nats-Service-Error": {"db is down"}, "Nats-Service-Error-Code": {"500"}}}
		}
		_ = m.RespondMsg(reply)
	})
	if err != nil {
		t.Fatal(err)
	}
	n.untilDone()
	n.publish("3", occupied("b"))
	n.untilDone()
	n.publish("3", occupied("c"))
	n.untilDone()
	close(bodies)
	for _, channel := range []string{"a", "a", "a", "a", "b", "c"} {
		if got, want := <-bodies, `[{"name":"channel_occupied","channel":"`+channel+`"}]}`; got != want {
			t.Errorf("told %s, want %s", got, want)
		}
	}
	if taken, refused := testutil.ToFloat64(n.metrics.attempts["taken"]), testutil.ToFloat64(n.metrics.attempts["refused"]); taken != 3 || refused != 3 {
		t.Errorf("%v taken, %v refused", taken, refused)
	}
}

// Events of single clients go to webhooks that list them. A filter of channels
// leaves those of no channel alone.
func TestEventsOfClients(t *testing.T) {
	all, some := newReceiver(t, nil), newReceiver(t, nil)
	n := startNode(t, natstest.Server(t), fast(), tell("3", app.Webhook{URL: all.URL}, app.Webhook{
		URL: some.URL, Events: []string{hook.Connected, hook.Disconnected, hook.Unsubscribed}, ChannelPrefix: "g",
	}))
	n.publish("3",
		hook.Event{Name: hook.Connected, SocketID: "1.2", TimeMs: 1},
		hook.Event{Name: hook.Connected, SocketID: "1.3", UserID: "8", TimeMs: 2},
		hook.Event{Name: hook.Unsubscribed, Channel: "g", SocketID: "1.3", UserID: "8", Code: 2500, Reason: "insufficient state", TimeMs: 3},
		hook.Event{Name: hook.Unsubscribed, Channel: "h", SocketID: "1.3", UserID: "8", TimeMs: 4},
		hook.Event{Name: hook.Disconnected, SocketID: "1.2", TimeMs: 5},
		hook.Event{Name: hook.Disconnected, SocketID: "1.3", UserID: "8", Code: 3012, Reason: "no pong", TimeMs: 6},
		hook.Event{Name: hook.Disconnected, UserID: "9", Reason: hook.GatewayLost, TimeMs: 7},
	)
	n.untilDone()
	if got := all.got(); len(got) != 0 {
		t.Errorf("a webhook that lists nothing got %d requests", len(got))
	}
	var got []string
	for _, c := range some.got() {
		_, events, _ := strings.Cut(c.body, `"events":[`)
		got = append(got, strings.TrimSuffix(events, "]}"))
	}
	want := []string{
		`{"name":"connected","socket_id":"1.2","time_ms":1}`,
		`{"name":"connected","user_id":"8","socket_id":"1.3","time_ms":2}`,
		`{"name":"disconnected","socket_id":"1.2","code":0,"reason":"","time_ms":5}`,
		`{"name":"disconnected","user_id":"8","socket_id":"1.3","code":3012,"reason":"no pong","time_ms":6}`,
		`{"name":"disconnected","user_id":"9","code":0,"reason":"gateway lost","time_ms":7}`,
		`{"name":"unsubscribed","channel":"g","user_id":"8","socket_id":"1.3","code":2500,"reason":"insufficient state","time_ms":3}`,
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestFilters(t *testing.T) {
	all, some, other := newReceiver(t, nil), newReceiver(t, nil), newReceiver(t, nil)
	n := startNode(t, natstest.Server(t), fast(),
		tell("3", app.Webhook{URL: all.URL}, app.Webhook{
			URL: some.URL, Events: []string{hook.ChannelOccupied}, ChannelPrefix: "private-", ChannelSuffix: "-x",
		}), tell("4", app.Webhook{URL: other.URL}), tell("5"))
	n.publish("3", occupied("private-a-x"), occupied("private-a"), hook.Event{Name: hook.ChannelVacated, Channel: "private-b-x"})
	n.publish("5", occupied("nobody-asks"))
	n.publish("6", occupied("no-such-app"))
	n.untilDone()
	if got := all.seen(); len(got) != 3 {
		t.Errorf("the endpoint for all got %v", got)
	}
	if got := some.seen(); len(got) != 1 || got["private-a-x"] != 1 {
		t.Errorf("the endpoint with filters got %v, want private-a-x", got)
	}
	if got := other.got(); len(got) != 0 {
		t.Errorf("another app's endpoint got %v", got)
	}
}

func TestBatches(t *testing.T) {
	r := newReceiver(t, nil)
	cfg := fast()
	cfg.BatchWait = time.Second // a full batch doesn't wait
	cfg.BatchMax = 5
	n := startNode(t, natstest.Server(t), cfg, tell("3", app.Webhook{URL: r.URL, Batch: true}))
	for _, c := range "abcdefg" {
		n.publish("3", occupied(string(c)))
	}
	n.untilDone()
	calls := r.got()
	if len(calls) != 2 || calls[0].channels() != "a,b,c,d,e" || calls[1].channels() != "f,g" {
		t.Errorf("%d requests: %v", len(calls), calls)
	}
}

// Batches of large events are smaller: NATS carries no more, and receivers
// have limits of their own.
func TestBatchesOfLargeEvents(t *testing.T) {
	srv := natstest.Server(t)
	n := startNode(t, srv, fast(), tell("3", app.Webhook{URL: "nats:shop.events", Batch: true}))
	var mu sync.Mutex
	seen := map[string]bool{}
	if _, err := srv.Conns(t).Req.Subscribe("shop.events", func(m *nats.Msg) {
		var c call
		if err := json.Unmarshal(m.Data, &c); err != nil {
			t.Error(err)
		}
		mu.Lock()
		for _, ev := range c.Events {
			seen[fmt.Sprint(ev["channel"])] = true
		}
		mu.Unlock()
		_ = m.Respond(nil)
	}); err != nil {
		t.Fatal(err)
	}
	for i := range 40 {
		ev := occupied(fmt.Sprint(i))
		ev.Name, ev.Data = hook.ClientEvent, strings.Repeat("x", 60<<10)
		n.publish("3", ev)
	}
	n.untilDone()
	mu.Lock()
	defer mu.Unlock()
	if len(seen) != 40 || testutil.ToFloat64(n.metrics.attempts["error"]) > 0 {
		t.Errorf("%d events came, with %v errors", len(seen), testutil.ToFloat64(n.metrics.attempts["error"]))
	}
}

// That a webhook takes batches now counts for what follows, however busy it is.
func TestBatchesTurnedOn(t *testing.T) {
	release := make(chan struct{})
	r := newReceiver(t, func(int, http.ResponseWriter) { <-release })
	cfg := fast()
	cfg.Concurrency, cfg.Timeout = 1, 20*time.Second
	n := startNode(t, natstest.Server(t), cfg, tell("3", app.Webhook{URL: r.URL}))
	n.publish("3", occupied("a"))
	await.True(t, "a request", func() bool { return len(r.got()) == 1 })
	if err := n.apps.Replace([]app.App{tell("3", app.Webhook{URL: r.URL, Batch: true})}); err != nil {
		t.Fatal(err)
	}
	n.publish("3", occupied("b"), occupied("c"))
	await.True(t, "both to wait", func() bool { return testutil.ToFloat64(n.metrics.held) == 3 })
	close(release)
	n.untilDone()
	if calls := r.got(); len(calls) != 2 || calls[1].channels() != "b,c" {
		t.Errorf("%d requests: %v", len(calls), calls)
	}
}

func TestRetriesUntilTaken(t *testing.T) {
	for _, tc := range []struct {
		name string
		fail func(w http.ResponseWriter)
	}{
		{"500", func(w http.ResponseWriter) { w.WriteHeader(500) }},
		{"404", func(w http.ResponseWriter) { w.WriteHeader(404) }},
		{"redirect", func(w http.ResponseWriter) {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(307)
		}},
		{"no answer", func(http.ResponseWriter) { panic(http.ErrAbortHandler) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newReceiver(t, func(n int, w http.ResponseWriter) {
				if n < 4 {
					tc.fail(w)
				}
			})
			n := startNode(t, natstest.Server(t), fast(), tell("3", app.Webhook{URL: r.URL}))
			n.publish("3", occupied("a"))
			n.untilDone()
			calls := r.got()
			if len(calls) != 4 {
				t.Fatalf("%d requests, want 3 refused ones and one taken", len(calls))
			}
			for i := 1; i < len(calls); i++ {
				if calls[i].TimeMs < calls[i-1].TimeMs {
					t.Errorf("request %d has time_ms %d after %d", i, calls[i].TimeMs, calls[i-1].TimeMs)
				}
			}
			if calls[3].TimeMs == calls[0].TimeMs {
				t.Error("the time was not stamped again")
			}
			if v := testutil.ToFloat64(n.metrics.delivered); v != 1 {
				t.Errorf("%v delivered events counted", v)
			}
		})
	}
}

// A receiver that hangs is cut off at the timeout.
func TestTimeout(t *testing.T) {
	release := make(chan struct{})
	r := newReceiver(t, func(n int, _ http.ResponseWriter) {
		if n == 1 {
			<-release
		}
	})
	cfg := fast()
	cfg.Timeout = 100 * time.Millisecond
	n := startNode(t, natstest.Server(t), cfg, tell("3", app.Webhook{URL: r.URL}))
	n.publish("3", occupied("a"))
	n.untilDone()
	close(release)
	if got := len(r.got()); got != 2 {
		t.Errorf("%d requests, want one that hung and one more", got)
	}
	if v := testutil.ToFloat64(n.metrics.attempts["error"]); v != 1 {
		t.Errorf("%v failed attempts counted", v)
	}
}

// Events for a dead endpoint do not hold up another one.
func TestDeadEndpointBlocksNobody(t *testing.T) {
	dead := newReceiver(t, func(_ int, w http.ResponseWriter) { w.WriteHeader(503) })
	alive := newReceiver(t, nil)
	n := startNode(t, natstest.Server(t), fast(),
		tell("3", app.Webhook{URL: dead.URL}, app.Webhook{URL: alive.URL}))
	for i := range 200 {
		n.publish("3", occupied(fmt.Sprint("c", i)))
	}
	await.True(t, "the living endpoint to get everything", func() bool { return len(alive.seen()) == 200 })
	for channel, times := range alive.seen() {
		if times != 1 {
			t.Errorf("%s was told %d times", channel, times)
		}
	}
	if n.stored(subject.HookStream) != 200 {
		t.Errorf("%d events in the queue, want all 200: the dead endpoint has not taken them", n.stored(subject.HookStream))
	}
	dead.mu.Lock()
	dead.answer = nil
	dead.mu.Unlock()
	n.untilDone()
	if got := len(dead.seen()); got != 200 {
		t.Errorf("the endpoint got %d of 200 when it was back", got)
	}
	if got := len(alive.got()); got != 200 {
		t.Errorf("the living endpoint got %d requests, want 200", got)
	}
}

// Many dead endpoints together block nobody either: what waits for them never
// is all that may be taken from the queue.
func TestDeadEndpointsLeaveRoom(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	r := newReceiver(t, nil)
	cfg := fast()
	cfg.PendingMax, cfg.EndpointMax, cfg.Window = 20, 10, time.Hour
	apps := []app.App{tell("3", app.Webhook{URL: r.URL})}
	for _, id := range []string{"4", "5", "6"} {
		apps = append(apps, tell(id, app.Webhook{URL: gone.URL}))
	}
	n := startNode(t, natstest.Server(t), cfg, apps...)
	for i := range 15 {
		for _, a := range apps[1:] {
			n.publish(a.ID, occupied(fmt.Sprint(i)))
		}
	}
	n.publish("3", occupied("a"))
	await.True(t, "the event of the one that lives", func() bool { return r.seen()["a"] == 1 })
}

func TestMalformedEvent(t *testing.T) {
	r := newReceiver(t, nil)
	n := startNode(t, natstest.Server(t), fast(), tell("3", app.Webhook{URL: r.URL}))
	for _, data := range []string{"", "nonsense", "{}", `[1]`} {
		if _, err := n.js.Publish(t.Context(), subject.Hook("3"), []byte(data)); err != nil {
			t.Fatal(err)
		}
	}
	n.publish("3", occupied("a"))
	n.untilDone()
	if got := r.seen(); len(got) != 1 || got["a"] != 1 {
		t.Errorf("got %v, want a alone", got)
	}
	if v := testutil.ToFloat64(n.metrics.malformed); v != 4 {
		t.Errorf("%v malformed events counted, want 4", v)
	}
}

func TestRetryAfterHeader(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "7": 7 * time.Second, "-1": 0, "999999": time.Hour, "soon": 0,
		"Fri, 02 Jan 2026 03:04:15 GMT": 10 * time.Second, "Fri, 02 Jan 2026 03:04:00 GMT": 0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("Retry-After %q is %s, want %s", value, got, want)
		}
	}
}

func TestConfigValidate(t *testing.T) {
	if err := DefaultConfig().Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	for name, change := range map[string]func(*Config){
		"replicas": func(c *Config) { c.Replicas = 0 }, "window": func(c *Config) { c.Window = 0 },
		"backoff": func(c *Config) { c.BackoffMax = c.BackoffMin - 1 }, "concurrency": func(c *Config) { c.Concurrency = 0 },
		"ack wait": func(c *Config) { c.AckWait = 0 },
	} {
		cfg := DefaultConfig()
		if change(&cfg); cfg.Validate() == nil {
			t.Errorf("%s: nothing is wrong", name)
		}
	}
}
