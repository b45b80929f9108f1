package webhook

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/subject"
)

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
			await.True(t, "both events to be tried", func() bool { return len(r.seen()) == 2 })
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
	await.True(t, "the request", func() bool { return len(r.got()) == 1 })
	consumer, err := first.js.Consumer(t.Context(), subject.HookStream, consumerName)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	await.True(t, "more than twice the time of an acknowledgement", func() bool { return time.Since(begin) > 2500*time.Millisecond })
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
	await.True(t, "a publish", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
		defer cancel()
		_, err := n.js.Publish(ctx, subject.Hook("3"), data, jetstream.WithMsgID("after"))
		return err == nil
	})
	await.True(t, "the event after the restart", func() bool { return r.seen()["after"] == 1 })
}

// A stream that begins anew, as its files were lost, counts from 1 again: what
// is held of the old one does not stand for what is new.
func TestStreamBeginsAnew(t *testing.T) {
	srv := natstest.Server(t)
	open := make(chan struct{})
	r := newReceiver(t, func(n int, _ http.ResponseWriter) {
		if n == 1 {
			<-open
		}
	})
	cfg := fast()
	cfg.Timeout = 20 * time.Second
	n := startNode(t, srv, cfg, tell("3", app.Webhook{URL: r.URL}))
	n.publish("3", occupied("old"))
	await.True(t, "the request", func() bool { return len(r.got()) == 1 })
	if err := n.js.DeleteStream(t.Context(), subject.HookStream); err != nil {
		t.Fatal(err)
	}
	await.True(t, "the queue to be opened again", func() bool {
		_, err := n.js.Consumer(t.Context(), subject.HookStream, consumerName)
		return err == nil
	})
	n.publish("3", occupied("new"))
	await.True(t, "the new event", func() bool { return r.seen()["new"] == 1 })
	close(open)
	n.untilDone()
}
