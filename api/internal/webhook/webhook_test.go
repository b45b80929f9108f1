package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"

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

// call is one request that a receiver got.
type call struct {
	header http.Header
	body   string
	TimeMs int64 `json:"time_ms"`
	Events []map[string]any
}

func (c call) channels() string {
	var all []string
	for _, ev := range c.Events {
		all = append(all, fmt.Sprint(ev["channel"]))
	}
	return strings.Join(all, ",")
}

// receiver is an application's endpoint; it checks what every request must have.
type receiver struct {
	*httptest.Server
	t *testing.T

	mu sync.Mutex
	// guarded by mu
	calls  []call
	answer func(n int, w http.ResponseWriter) // n is the number of the request, from 1
}

func newReceiver(t *testing.T, answer func(n int, w http.ResponseWriter)) *receiver {
	r := &receiver{t: t, answer: answer}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	c := call{header: req.Header, body: string(body)}
	if err := json.Unmarshal(body, &c); err != nil {
		r.t.Errorf("body %s: %v", body, err)
	}
	if got := req.Header.Values("Content-Type"); len(got) != 1 || got[0] != "application/json" {
		r.t.Errorf("Content-Type is %q", got)
	}
	if req.Header.Get("X-Pusher-Key") != "key" || !signature.Verify("secret", string(body), req.Header.Get("X-Pusher-Signature")) {
		r.t.Errorf("signature %q of key %q is wrong", req.Header.Get("X-Pusher-Signature"), req.Header.Get("X-Pusher-Key"))
	}
	if age := time.Since(time.UnixMilli(c.TimeMs)); age < -time.Second || age > 5*time.Second {
		r.t.Errorf("time_ms is %s old", age)
	}
	r.mu.Lock()
	r.calls = append(r.calls, c)
	n, answer := len(r.calls), r.answer
	r.mu.Unlock()
	if answer != nil {
		answer(n, w)
	}
}

func (r *receiver) got() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// seen counts how often each channel was told of.
func (r *receiver) seen() map[string]int {
	out := map[string]int{}
	for _, c := range r.got() {
		for _, ev := range c.Events {
			out[fmt.Sprint(ev["channel"])]++
		}
	}
	return out
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
	until(t, "the queue to open", func() bool { return n.Ready() == nil })
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
	until(n.t, "the queue to be empty", func() bool { return n.stored(subject.HookStream) == 0 })
}

func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
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
	until(t, "the living endpoint to get everything", func() bool { return len(alive.seen()) == 200 })
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

// What a node has not delivered when it stops, or when it dies, goes to the next one.
func TestRestart(t *testing.T) {
	for _, way := range []string{"stop", "crash"} {
		t.Run(way, func(t *testing.T) {
			srv := natstest.Server(t)
			r := newReceiver(t, func(_ int, w http.ResponseWriter) { w.WriteHeader(500) })
			hooks := tell("3", app.Webhook{URL: r.URL})
			cfg := fast()
			if way == "stop" {
				cfg.AckWait = time.Hour // it is given back, not missed
			}
			first := startNode(t, srv, cfg, hooks)
			first.publish("3", occupied("a"), occupied("b"))
			until(t, "both events to be tried", func() bool { return len(r.seen()) == 2 })
			if way == "crash" {
				first.nc.Close() // nothing is given back
			}
			first.stop()
			r.mu.Lock()
			r.calls, r.answer = nil, nil
			r.mu.Unlock()
			second := startNode(t, srv, cfg, hooks)
			second.untilDone()
			if got := r.seen(); got["a"] != 1 || got["b"] != 1 {
				t.Errorf("after the restart it got %v, want a and b once", got)
			}
		})
	}
}

// While an event waits for its endpoint, the queue is told so: no second node gets it.
func TestHeldEventsAreNotDeliveredTwice(t *testing.T) {
	srv := natstest.Server(t)
	open := make(chan struct{})
	r := newReceiver(t, func(int, http.ResponseWriter) { <-open })
	cfg := fast() // AckWait 1s
	cfg.Timeout = 20 * time.Second
	hooks := tell("3", app.Webhook{URL: r.URL})
	first, second := startNode(t, srv, cfg, hooks), startNode(t, srv, cfg, hooks)
	first.publish("3", occupied("a"))
	until(t, "the request", func() bool { return len(r.got()) == 1 })
	consumer, err := first.js.Consumer(t.Context(), subject.HookStream, consumerName)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	until(t, "more than twice the time of an acknowledgement", func() bool { return time.Since(begin) > 2500*time.Millisecond })
	info, err := consumer.Info(t.Context())
	if err != nil || info.NumRedelivered != 0 || info.NumAckPending != 1 {
		t.Errorf("consumer has %d redelivered, %d pending (%v), want 0 and 1", info.NumRedelivered, info.NumAckPending, err)
	}
	close(open)
	second.untilDone()
	if got := len(r.got()); got != 1 {
		t.Errorf("%d requests, want 1", got)
	}
}

// Two nodes share the work: everything once.
func TestOncePerCluster(t *testing.T) {
	srv := natstest.Server(t)
	r := newReceiver(t, nil)
	hooks := tell("3", app.Webhook{URL: r.URL})
	first, second := startNode(t, srv, fast(), hooks), startNode(t, srv, fast(), hooks)
	for i := range 100 {
		first.publish("3", occupied(fmt.Sprint("c", i)))
	}
	second.untilDone()
	seen := r.seen()
	if len(seen) != 100 || len(r.got()) != 100 {
		t.Errorf("%d events in %d requests, want 100", len(seen), len(r.got()))
	}
}

func TestDeadEventsAndReplay(t *testing.T) {
	r := newReceiver(t, func(_ int, w http.ResponseWriter) { w.WriteHeader(500) })
	other := newReceiver(t, nil)
	cfg := fast()
	cfg.Window = 50 * time.Millisecond
	n := startNode(t, natstest.Server(t), cfg, tell("3", app.Webhook{URL: r.URL}, app.Webhook{URL: other.URL}))
	n.publish("3", occupied("a"), occupied("b"))
	until(t, "the events to die", func() bool { return n.stored(subject.DeadHookStream) == 2 })
	n.untilDone()
	stream, err := n.js.Stream(t.Context(), subject.DeadHookStream)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := stream.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if raw.Subject != "car.hook-dead.3" || !strings.Contains(raw.Header.Get(hook.ErrorHeader), "500") || raw.Header.Get(hook.AttemptsHeader) == "0" {
		t.Errorf("dead event on %s with %v", raw.Subject, raw.Header)
	}
	var ev hook.Event
	if err := json.Unmarshal(raw.Data, &ev); err != nil || ev.Channel == "" || ev.TimeMs == 0 {
		t.Errorf("dead event is %s (%v)", raw.Data, err)
	}
	r.mu.Lock()
	r.calls, r.answer = nil, nil
	r.mu.Unlock()
	if got := replay(n, "?limit=x"); got.Code != 400 {
		t.Errorf("replay with a bad limit: %d", got.Code)
	}
	if got := replay(n, "?app=99"); got.Body.String() != "replayed 0\n" {
		t.Errorf("replay of another app: %s", got.Body)
	}
	if got := replay(n, "?app=3&limit=1"); got.Body.String() != "replayed 1\n" {
		t.Errorf("replay of one: %s", got.Body)
	}
	if got := replay(n, ""); got.Body.String() != "replayed 1\n" {
		t.Errorf("replay of the rest: %s", got.Body)
	}
	until(t, "the replayed events", func() bool { return len(r.seen()) == 2 })
	n.untilDone()
	if got := other.seen(); got["a"] != 1 || got["b"] != 1 {
		t.Errorf("the endpoint that had them already got %v", got)
	}
	if n.stored(subject.DeadHookStream) != 0 {
		t.Error("replayed events are still dead")
	}
}

func replay(n *node, query string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	n.ReplayPage().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/debug/hooks/replay"+query, nil))
	return w
}

// The address was wrong: events that died for it go to the corrected one.
func TestReplayToCorrectedAddress(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	cfg := fast()
	cfg.Window = 30 * time.Millisecond
	n := startNode(t, natstest.Server(t), cfg, tell("3", app.Webhook{URL: gone.URL + "/?token=hidden"}))
	n.publish("3", occupied("a"))
	until(t, "the event to die", func() bool { return n.stored(subject.DeadHookStream) == 1 })
	stream, err := n.js.Stream(t.Context(), subject.DeadHookStream)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := stream.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if text := raw.Header.Get(hook.ErrorHeader); text == "" || strings.Contains(text, "hidden") {
		t.Errorf("the reason is %q, want one without the address", text)
	}
	r := newReceiver(t, nil)
	if err := n.apps.Replace([]app.App{tell("3", app.Webhook{URL: r.URL})}); err != nil {
		t.Fatal(err)
	}
	if count, err := n.Replay(t.Context(), "3", 0); count != 1 || err != nil {
		t.Fatalf("replayed %d: %v", count, err)
	}
	until(t, "the event", func() bool { return r.seen()["a"] == 1 })
}

// A webhook that is taken out of the configuration gets nothing more; what waited for it is dropped.
func TestRemovedWebhook(t *testing.T) {
	r := newReceiver(t, func(_ int, w http.ResponseWriter) { w.WriteHeader(500) })
	n := startNode(t, natstest.Server(t), fast(), tell("3", app.Webhook{URL: r.URL}))
	n.publish("3", occupied("a"))
	until(t, "a request", func() bool { return len(r.got()) > 0 })
	if err := n.apps.Replace([]app.App{tell("3")}); err != nil {
		t.Fatal(err)
	}
	n.untilDone()
	if v := testutil.ToFloat64(n.metrics.removed); v != 1 {
		t.Errorf("%v removed events counted", v)
	}
	if n.stored(subject.DeadHookStream) != 0 {
		t.Error("it was put to the dead events")
	}
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

// NATS goes away and comes back: delivery goes on without a restart.
func TestNATSRestart(t *testing.T) {
	srv := natstest.Server(t)
	r := newReceiver(t, nil)
	n := startNode(t, srv, fast(), tell("3", app.Webhook{URL: r.URL}))
	n.publish("3", occupied("before"))
	n.untilDone()
	srv.Stop()
	srv.Start()
	data, err := json.Marshal(occupied("after"))
	if err != nil {
		t.Fatal(err)
	}
	// A publish that meets the end of the old connection is lost: publishers repeat under the same id.
	until(t, "a publish", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := n.js.Publish(ctx, subject.Hook("3"), data, jetstream.WithMsgID("after"))
		return err == nil
	})
	until(t, "the event after the restart", func() bool { return r.seen()["after"] == 1 })
}

func TestPage(t *testing.T) {
	r := newReceiver(t, func(_ int, w http.ResponseWriter) { w.WriteHeader(418) })
	n := startNode(t, natstest.Server(t), fast(), tell("3", app.Webhook{URL: r.URL + "/?token=hidden"}))
	n.publish("3", occupied("a"))
	until(t, "the failure to be listed", func() bool {
		w := httptest.NewRecorder()
		n.Page().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/debug/hooks", nil))
		if strings.Contains(w.Body.String(), "hidden") {
			t.Fatal("the page shows the address, which may hold secrets")
		}
		return strings.Contains(w.Body.String(), "418")
	})
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
