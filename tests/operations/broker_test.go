package operations

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// NATS goes and comes back: no client loses its connection, what can't be
// published is refused for now, and afterwards all is as before.
func TestNATSRestart(t *testing.T) {
	c := env.Start(t, env.Apart(2))
	before := make([]*client.Client, 2)
	for i, g := range c.Gateways {
		before[i] = dial(t, g)
		before[i].Join("presence-n", user(i))
		before[i].Subscribe("news")
		before[i].Subscribe("durable-news")
	}
	before[0].Expect("pusher_internal:member_added")
	runs := processes(c)
	for round := range 2 {
		c.NATS.Stop()
		for _, channel := range []string{"news", "durable-news"} {
			answer := sayOnce(t, c, channel, "said", "not now")
			if answer.Status != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
				t.Fatalf("without NATS a publish to %s got %d %s, Retry-After %q, want 503 and a time",
					channel, answer.Status, answer.Body, answer.Header.Get("Retry-After"))
			}
		}
		member := newcomerWithoutNATS(t, c)
		c.NATS.Start()
		allReady(t, c)
		hears(t, c, "news", fmt.Sprint("live ", round), before...)
		for n := range 20 {
			hears(t, c, "durable-news", fmt.Sprint(round, "/", n), before...)
		}
		usersAre(t, c, "presence-n", user(0), user(1))
		late := subscribed(t, c.Gateways[1], "private-news", "durable-news")
		late.Join("presence-n", "late")
		for i, cl := range before {
			if f := cl.Expect("pusher_internal:member_added"); client.Member(f) != "late" {
				t.Errorf("client %d got %s, want that late was added", i, f.Raw)
			}
		}
		hears(t, c, "private-news", fmt.Sprint("private ", round), late)
		hears(t, c, "durable-news", fmt.Sprint("all ", round), append(before, late)...)
		late.Close()
		for i, cl := range before {
			if f := cl.Expect("pusher_internal:member_removed"); client.Member(f) != "late" {
				t.Errorf("client %d got %s, want that late was removed", i, f.Raw)
			}
		}
		hears(t, c, "public-later", fmt.Sprint("later ", round), member)
	}
	if after := processes(c); after != runs {
		t.Errorf("processes were %s, now are %s", runs, after)
	}
}

// newcomerWithoutNATS connects and subscribes while NATS is away: the public
// channel is joined now or later, the private one is refused for now.
func newcomerWithoutNATS(t *testing.T, c *env.Cluster) *client.Client {
	t.Helper()
	cl := subscribed(t, c.Gateways[0], "public-later")
	if err := cl.TrySubscribe("private-later", ""); err != nil {
		t.Fatal(err)
	}
	if f := cl.Await("pusher:subscription_error"); f.Channel != "private-later" {
		t.Errorf("got %s, want that private-later is refused", f.Raw)
	}
	return cl
}

// allReady waits until every process says that it is ready, as each does again
// by itself.
func allReady(t *testing.T, c *env.Cluster) {
	t.Helper()
	for _, n := range c.Nodes {
		eventually(t, n.Name+" is ready again", func() bool {
			status, _ := get(t, n, "/readyz")
			return status == http.StatusOK
		})
	}
}

// processes tells which processes run.
func processes(c *env.Cluster) (ids string) {
	for _, n := range c.Nodes {
		ids += fmt.Sprintf("%s %d; ", n.Name, n.PID())
	}
	return ids
}

// Publications that are acknowledged around a restart of NATS come once and
// in order to subscribers that stayed.
func TestNATSRestartUnderLoad(t *testing.T) {
	const around = 50
	c := env.Start(t, env.Apart(2))
	readers := []*client.Client{subscribed(t, c.Gateways[0], "durable-load"), subscribed(t, c.Gateways[1], "durable-load")}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	load := startLoad(t, ctx, c, "durable-load")
	for range 2 {
		load.more(t, around)
		failed := load.failed.Load()
		c.NATS.Stop()
		eventually(t, "an attempt is refused", func() bool { return load.failed.Load() > failed })
		c.NATS.Start()
		load.more(t, around)
	}
	total := load.end()
	for _, r := range readers {
		checkComplete(t, read(t, r, total), total)
	}
	hears(t, c, "durable-load", "the end", readers...)
}
