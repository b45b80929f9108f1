package operations

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// One service after another goes and comes back; clients notice only what
// can't be otherwise, and nothing else has to be restarted.
func TestServicesRestart(t *testing.T) {
	c := env.Start(t, env.Apart(2))
	t.Run("router under load", func(t *testing.T) { restartRouter(t, c) })
	t.Run("authsvc", func(t *testing.T) { restartAuth(t, c) })
	t.Run("presence", func(t *testing.T) { restartPresence(t, c) })
	t.Run("api", func(t *testing.T) {
		reader := subscribed(t, c.Gateways[1], "durable-api")
		for _, way := range ends {
			way.end(c.API)
			c.API.Restart()
			hears(t, c, "durable-api", way.name, reader)
		}
	})
}

// restartRouter stops and kills the only router while somebody publishes:
// what was acknowledged comes once and in order.
func restartRouter(t *testing.T, c *env.Cluster) {
	const enough = 50 // publications around each restart of the router
	readers := []*client.Client{subscribed(t, c.Gateways[0], "durable-load"), subscribed(t, c.Gateways[1], "durable-load")}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	load := startLoad(t, ctx, c, "durable-load")
	router := c.Named("router")
	for _, way := range ends {
		load.more(t, enough)
		failed := load.failed.Load()
		way.end(router)
		eventually(t, "an attempt is refused", func() bool { return load.failed.Load() > failed })
		router.Restart()
		load.more(t, enough)
	}
	total := load.end()
	for _, r := range readers {
		seen := read(t, r, total)
		checkComplete(t, seen, total)
	}
	hears(t, c, "durable-load", "the end", readers...) // and nothing after the last
}

// load is a publisher that sends numbers, one after another, each until it is
// acknowledged, with a key that makes repeats harmless.
type load struct {
	acked, failed atomic.Int64
	stop          context.CancelFunc
	done          chan struct{}
}

func startLoad(t *testing.T, ctx context.Context, c *env.Cluster, channel string) *load {
	t.Helper()
	stopping, stop := context.WithCancel(ctx)
	l := &load{stop: stop, done: make(chan struct{})}
	calls, name := api(t, c), t.Name()
	go func() {
		defer close(l.done)
		for n := 0; stopping.Err() == nil; n++ {
			data := fmt.Sprintf("p/%06d", n)
			e := client.Event{Name: "n", Data: data, Channels: []string{channel}, IdempotencyKey: name + data}
			if err := l.publish(ctx, calls, e); err != nil {
				t.Errorf("publish %s: %v", data, err)
				return
			}
		}
	}()
	t.Cleanup(func() { stop(); <-l.done })
	return l
}

func (l *load) publish(ctx context.Context, calls client.API, e client.Event) error {
	for {
		answer, err := calls.Trigger(ctx, e)
		switch {
		case err != nil:
			return err
		case answer.Status == http.StatusOK:
			l.acked.Add(1)
			return nil
		case answer.Status != http.StatusServiceUnavailable:
			return fmt.Errorf("%d %s", answer.Status, answer.Body)
		}
		l.failed.Add(1)
	}
}

// more waits until n more are acknowledged.
func (l *load) more(t *testing.T, n int64) {
	t.Helper()
	want := l.acked.Load() + n
	eventually(t, fmt.Sprint(n, " more publications are acknowledged"), func() bool { return l.acked.Load() >= want })
}

// end ends the load and gives the number of acknowledged publications.
func (l *load) end() int {
	l.stop()
	<-l.done
	return int(l.acked.Load())
}

// restartAuth: without authorization the door is shut, for now, and stays
// open to what is public.
func restartAuth(t *testing.T, c *env.Cluster) {
	before := subscribed(t, c.Gateways[0], "private-auth")
	auth := c.Named("authsvc")
	for _, way := range ends {
		way.end(auth)
		cl := dial(t, c.Gateways[0])
		cl.Subscribe("public-auth")
		if err := cl.TrySubscribe("private-auth", ""); err != nil {
			t.Fatal(err)
		}
		f := cl.Await("pusher:subscription_error")
		var refusal struct {
			Type   string `json:"type"`
			Status int    `json:"status"`
		}
		if err := json.Unmarshal([]byte(f.Text()), &refusal); err != nil || f.Channel != "private-auth" ||
			refusal.Type != "ServerError" || refusal.Status < 500 {
			t.Errorf("%s: refused with %s, want a ServerError", way.name, f.Raw)
		}
		hears(t, c, "private-auth", way.name, before)
		hears(t, c, "public-auth", way.name, cl)
		auth.Restart()
		cl.Subscribe("private-auth")
		hears(t, c, "private-auth", way.name+" and back", before, cl)
	}
}

// restartPresence: members stay members while nobody counts them.
func restartPresence(t *testing.T, c *env.Cluster) {
	observer, other := dial(t, c.Gateways[0]), dial(t, c.Gateways[1])
	observer.Join("presence-p", "observer")
	other.Join("presence-p", "other")
	observer.Expect("pusher_internal:member_added")
	presence := c.Named("presence")
	for _, way := range ends {
		way.end(presence)
		hears(t, c, "presence-p", way.name, observer, other)
		presence.Restart()
		usersAre(t, c, "presence-p", "observer", "other")
		late := dial(t, c.Gateways[1])
		if roster := client.Members(late.Join("presence-p", "late")); len(roster) != 3 {
			t.Errorf("%s: roster is %v, want three", way.name, roster)
		}
		for _, cl := range []*client.Client{observer, other} { // and nothing before it
			if f := cl.Expect("pusher_internal:member_added"); client.Member(f) != "late" {
				t.Errorf("%s: got %s, want that late was added", way.name, f.Raw)
			}
		}
		late.Close()
		for _, cl := range []*client.Client{observer, other} {
			if f := cl.Expect("pusher_internal:member_removed"); client.Member(f) != "late" {
				t.Errorf("%s: got %s, want that late was removed", way.name, f.Raw)
			}
		}
		usersAre(t, c, "presence-p", "observer", "other")
	}
}
