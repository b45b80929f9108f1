package gateway

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/gateway/internal/edge"
	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/subject"
)

// startEvents starts what takes events, with the function that stops it.
func startEvents(t *testing.T, srv *natstest.TestServer, size int) (e *events, js jetstream.JetStream, stop func()) {
	t.Helper()
	deps := srv.Deps(t, "gw", Role)
	e, err := newEvents(deps.NATS.Req, size, deps)
	if err != nil {
		t.Fatal(err)
	}
	if js, err = jetstream.New(deps.NATS.Req); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	return e, js, func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func disconnected(i int) edge.Event {
	return edge.Event{Kind: app.ClientDisconnected, SocketID: fmt.Sprint(i), User: "7", Code: 3012, Reason: "no pong", AtMs: 5}
}

// stored are the events in the work queue.
func stored(t *testing.T, js jetstream.JetStream) jetstream.StreamState {
	t.Helper()
	s, err := js.Stream(t.Context(), subject.HookStream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State
}

// A crowd that goes at once blocks nobody, and all of it is told, at the latest
// when the node stops.
func TestEventsOfACrowd(t *testing.T) {
	leaktest.Check(t)
	srv := natstest.Server(t)
	e, js, stop := startEvents(t, srv, 20_000)
	if _, err := js.CreateStream(t.Context(), hook.StreamConfig(1)); err != nil {
		t.Fatal(err)
	}
	const n = 10_000
	began := time.Now()
	for i := range n {
		e.Tell("2001", disconnected(i))
	}
	t.Logf("%d events put in %s", n, time.Since(began))
	stop()
	t.Logf("stored after %s", time.Since(began))
	if got := stored(t, js).Msgs; got != n {
		t.Fatalf("%d of %d events are stored", got, n)
	}
	s, err := js.Stream(t.Context(), subject.HookStream)
	if err != nil {
		t.Fatal(err)
	}
	msg, err := s.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	var ev hook.Event
	want := hook.Event{Name: hook.Disconnected, UserID: "7", SocketID: "0", Code: 3012, Reason: "no pong", TimeMs: 5}
	if err := json.Unmarshal(msg.Data, &ev); err != nil || ev != want || msg.Subject != subject.Hook("2001") || msg.Header.Get(jetstream.MsgIDHeader) == "" {
		t.Errorf("stored %s on %s with %v", msg.Data, msg.Subject, msg.Header)
	}
}

// While nobody has created the work queue events wait for it, up to the limit;
// each is stored once, or counted as lost.
func TestEventsWaitForTheirStream(t *testing.T) {
	leaktest.Check(t)
	srv := natstest.Server(t)
	deps := srv.Deps(t, "gw", Role)
	var fates [hook.Lost + 1]atomic.Int64
	q, err := hook.NewQueue(deps.NATS.Req, hook.QueueConfig{
		Size: 100, Log: deps.Log, Count: func(fate hook.Fate, n int) { fates[fate].Add(int64(n)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(deps.NATS.Req)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 150 {
		q.Put("2001", fmt.Sprint(i), hook.Event{Name: hook.Connected, SocketID: fmt.Sprint(i)})
	}
	if n, lost := q.Len(), fates[hook.Lost].Load(); n != 100 || lost != 50 {
		t.Fatalf("%d of 150 wait and %d are lost, the limit is 100", n, lost)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	await.True(t, "the stream not to be there", func() bool { return fates[hook.Retried].Load() == 100 })
	if _, err := js.CreateStream(t.Context(), hook.StreamConfig(1)); err != nil {
		t.Fatal(err)
	}
	await.True(t, "all that were kept are sent", func() bool { return fates[hook.Sent].Load() == 100 })
	if got := stored(t, js).Msgs; got != 100 || fates[hook.Lost].Load() != 50 {
		t.Errorf("%d events are stored, %d lost", got, fates[hook.Lost].Load())
	}

	// What is left at the end and can't be stored is lost, and that takes no time.
	if err := js.DeleteStream(t.Context(), subject.HookStream); err != nil {
		t.Fatal(err)
	}
	q.Put("2001", "last", hook.Event{Name: hook.Connected})
	cancel()
	if err := <-done; err != nil || fates[hook.Lost].Load() != 51 {
		t.Errorf("ended with %v, %d lost", err, fates[hook.Lost].Load())
	}
}

// An event that is too large for NATS is lost at once, and holds up no other.
func TestAnEventThatIsTooLarge(t *testing.T) {
	leaktest.Check(t)
	deps := natstest.Server(t).Deps(t, "gw", Role)
	var fates [hook.Lost + 1]atomic.Int64
	q, err := hook.NewQueue(deps.NATS.Req, hook.QueueConfig{
		Size: 100, Create: true, Log: deps.Log, Count: func(fate hook.Fate, n int) { fates[fate].Add(int64(n)) },
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- q.Run(ctx) }()
	q.Put("2001", "a", hook.Event{Name: hook.Connected, Data: strings.Repeat("x", 2<<20)})
	q.Put("2001", "b", hook.Event{Name: hook.Connected})
	await.True(t, "one is sent and one is lost", func() bool { return fates[hook.Sent].Load() == 1 && fates[hook.Lost].Load() == 1 })
	cancel()
	if err := <-done; err != nil || fates[hook.Retried].Load() != 0 {
		t.Errorf("ended with %v, %d were tried again", err, fates[hook.Retried].Load())
	}
}

// From a socket to the work queue: also what happens while the node stops.
func TestEventsReachTheWorkQueue(t *testing.T) {
	w := newWorldWith(t, testConfig(), Options{}, nil, app.App{
		ID: "1", Keys: []app.Key{{Key: "key"}}, Webhooks: []app.Webhook{{URL: "http://x", Events: []string{app.ClientConnected, app.ClientDisconnected, app.ClientUnsubscribed}}},
	})
	w.makeJournal()
	if _, err := w.js.CreateStream(t.Context(), hook.StreamConfig(1)); err != nil {
		t.Fatal(err)
	}
	c := w.dial(ws.Dialer{}, "ws")
	c.expect("pusher:connection_established")
	c.send(`{"event":"pusher:subscribe","data":{"channel":"news"}}`)
	c.expect("subscription_succeeded")
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	s, err := w.js.Stream(t.Context(), subject.HookStream)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range s.CachedInfo().State.LastSeq {
		msg, err := s.GetMsg(t.Context(), i+1)
		if err != nil {
			t.Fatal(err)
		}
		var ev hook.Event
		if err := json.Unmarshal(msg.Data, &ev); err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.TrimSpace(fmt.Sprint(ev.Name, " ", ev.Channel, " ", ev.Code)))
	}
	if want := []string{"connected  0", "unsubscribed news 4200", "disconnected  4200"}; !slices.Equal(got, want) {
		t.Errorf("queued %q, want %q", got, want)
	}
}
