package operations

import (
	"net/http"
	"slices"
	"testing"

	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// startTwins starts two of everything over three NATS servers, with proxies
// between all.
func startTwins(t *testing.T) *env.Cluster {
	t.Helper()
	return env.Start(t, env.Apart(2), env.Brokers(3), env.Proxied(), env.Routers(2), env.PresenceNodes(2), env.Authorizers(2), env.APIs(2))
}

// One of three NATS servers is split from the other two, with a process of
// every role and clients on both sides. Clients on either side stay. On the
// smaller one durable publishes are refused for now and the others go on (what
// is asked of services may be refused, too, while NATS does not know that those
// on the other side are out of reach); on the larger one everything does. After that each client has everything that
// was acknowledged, once and in one order, on the connection that it had.
func TestNATSSplit(t *testing.T) {
	for name, notice := range map[string]bool{"held up": false, "disconnected": true} {
		t.Run(name, func(t *testing.T) {
			c := startTwins(t)
			few := []string{"gateway-1", "router-1", "presence-1", "authsvc-1", "api-1"}
			small, large := api(t, c), api(t, c)
			small.Base = "http://" + c.Named("api-1").API()
			here, there := subscribed(t, c.Gateways[1], "durable-news", "news"), subscribed(t, c.Gateways[0], "durable-news", "news")
			hears(t, c, "durable-news", "before", here, there)

			heal := c.SplitNATS("nats-2", few, notice)
			event := client.Event{Name: "said", Data: "of the few", Channels: []string{"durable-news"}, IdempotencyKey: "few"}
			eventually(t, "the smaller side has found together", func() bool {
				answer, err := small.Trigger(t.Context(), client.Event{Name: "said", Data: "aside", Channels: []string{"news"}})
				return err == nil && answer.Status == http.StatusOK
			})
			for range 3 {
				refusedForNow(t, small, event)
			}
			large.MustPublish(t, client.Event{Name: "said", Data: "of the many", Channels: []string{"durable-news"}, IdempotencyKey: "many"})
			expectOn(t, there, "durable-news", "of the many")
			late := subscribed(t, c.Gateways[1], "other")

			heal()
			expectOn(t, here, "durable-news", "of the many")
			small.MustPublish(t, event)
			for _, cl := range []*client.Client{here, there} {
				expectOn(t, cl, "durable-news", "of the few")
			}
			late.Subscribe("private-news")
			hears(t, c, "private-news", "after", late)
			say(t, c, "durable-news", "said", "after")
			for _, cl := range []*client.Client{here, there} {
				expectOn(t, cl, "durable-news", "after") // what was asked for in the split may come by
			}
		})
	}
}

// refusedForNow wants a publish to be answered 503, with a time to wait.
func refusedForNow(t *testing.T, calls client.API, e client.Event) {
	t.Helper()
	answer, err := calls.Trigger(t.Context(), e)
	if err != nil || answer.Status != http.StatusServiceUnavailable || answer.Header.Get("Retry-After") == "" {
		t.Fatalf("a publish got %d %s, Retry-After %q (%v), want 503 and a time", answer.Status, answer.Body, answer.Header.Get("Retry-After"), err)
	}
}

// expectOn passes over events of other channels.
func expectOn(t *testing.T, cl *client.Client, channel, data string) {
	t.Helper()
	for f := cl.Expect("said"); f.Channel != channel || f.Text() != data; f = cl.Expect("said") {
		if f.Channel == channel {
			t.Fatalf("got %s, want %s on %s", f.Raw, data, channel)
		}
	}
}

// Gossip shows a gateway, or everybody else, to be gone, while NATS works:
// nobody is taken for gone, and whoever comes and goes is told of everywhere.
func TestGossipSplit(t *testing.T) {
	for name, side := range map[string][]string{
		"a gateway alone": {"gateway-1"},
		"two halves":      {"gateway-1", "router-1", "presence-1", "authsvc-1", "api-1"},
	} {
		t.Run(name, func(t *testing.T) {
			c := startTwins(t)
			dial(t, c.Gateways[1]).Join("presence-split", "stays")
			told := watchRoom(t, c.Gateways[0], "presence-split", "observer")
			usersAre(t, c, "presence-split", "observer", "stays")
			heal := c.Gossip.Split(false, side...)
			eventually(t, "the sides have lost each other", func() bool {
				return !slices.Contains(c.Gateways[0].Sees(), "gateway-1") && !slices.Contains(c.Gateways[1].Sees(), "gateway-0") &&
					!slices.Contains(c.Named("presence").Sees(), "gateway-1")
			})
			comes := dial(t, c.Gateways[1])
			comes.Join("presence-split", "comes")
			eventually(t, "comes is added", func() bool { return told.times("added", "comes") > 0 })
			usersAre(t, c, "presence-split", "comes", "observer", "stays")
			comes.Close()
			told.wants(t, []string{"comes"}, []string{"comes"})
			heal()
			eventually(t, "all see each other again", func() bool {
				return !slices.ContainsFunc(c.Nodes, func(n *env.Node) bool { return len(n.Sees()) <= len(c.Nodes) })
			})
			usersAre(t, c, "presence-split", "observer", "stays")
			told.wants(t, []string{"comes"}, []string{"comes"})
		})
	}
}
