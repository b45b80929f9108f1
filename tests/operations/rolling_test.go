package operations

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// Gateways are restarted one after another while somebody publishes: nobody
// who publishes notices, and the clients move a few at a time.
func TestRollingRestart(t *testing.T) {
	const clients, window = 80, 3 * time.Second
	c := env.Start(t, env.Apart(2), env.Set("gateway.drain.window="+window.String()))
	ctx := t.Context()
	load := startLoad(t, ctx, c, "durable-rolling")
	failed := load.failed.Load()
	for i, leaving := range c.Gateways {
		staying := c.Gateways[1-i]
		var moved atomic.Int64
		var moves sync.WaitGroup
		left := make(chan time.Time, clients)
		for range clients {
			cl := subscribed(t, leaving, "durable-rolling")
			moves.Go(func() {
				if bye := untilClose(t, cl); bye.code != 4200 {
					t.Errorf("a client was closed with %d, want 4200", bye.code)
				}
				left <- time.Now()
				if comesBack(t, staying) {
					moved.Add(1)
				}
			})
		}
		drain(t, leaving)
		moves.Wait()
		close(left)
		checkSpread(t, left, window)
		if n := moved.Load(); n != clients {
			t.Errorf("%d of %d clients came back", n, clients)
		}
		load.more(t, 20)
		leaving.Stop()
		leaving.Restart()
		load.more(t, 20)
	}
	load.end()
	if n := load.failed.Load() - failed; n != 0 {
		t.Errorf("%d publishes failed, want none", n)
	}
}

func comesBack(t *testing.T, to *env.Node) bool {
	again, err := client.TryDial(t, to.Public(), env.Key, client.WithSecret(env.Secret))
	if err == nil {
		err = again.TrySubscribe("durable-rolling", "")
	}
	if err != nil {
		t.Errorf("come back: %v", err)
	}
	return err == nil
}

// drain runs carillon drain for a node and waits for it.
func drain(t *testing.T, n *env.Node) {
	t.Helper()
	out, err := env.Command(t, nil, "drain", "--url", "http://"+n.Ops()).CombinedOutput()
	if err != nil || string(out) != "drained\n" {
		t.Errorf("drain of %s: %v: %s", n.Name, err, out)
	}
}

// checkSpread wants clients to have left over most of the window, and no
// quarter of that time to have most of them. That they are even is what the
// test of the schedule checks; here a slow machine must not matter.
func checkSpread(t *testing.T, left <-chan time.Time, window time.Duration) {
	t.Helper()
	const quarters = 4
	var times []time.Time
	for at := range left {
		times = append(times, at)
	}
	slices.SortFunc(times, time.Time.Compare)
	var buckets [quarters]int
	total := times[len(times)-1].Sub(times[0]) + 1
	for _, at := range times {
		buckets[int64(at.Sub(times[0]))*quarters/int64(total)]++
	}
	t.Logf("reconnects in each quarter of %s: %v", total.Round(time.Millisecond), buckets)
	if total < window/2 || slices.Max(buckets[:]) > len(times)*3/4 {
		t.Errorf("reconnects are not spread over %s: %v in %s", window, buckets, total)
	}
}

// Each service can be drained alone: what was acknowledged before is kept, and
// the process waits for its signal.
func TestDrainEachService(t *testing.T) {
	c := env.Start(t, env.Apart(1), env.Routers(2), env.PresenceNodes(2))
	reader := subscribed(t, c.Gateways[0], "durable-each")
	load := startLoad(t, t.Context(), c, "durable-each")
	for _, name := range []string{"router", "presence", "authsvc"} {
		load.more(t, 20)
		n := c.Named(name)
		drain(t, n)
		load.more(t, 20)
		select {
		case <-n.Exited():
			t.Errorf("%s ended by itself", name)
		default:
		}
		n.Stop()
		if code := n.ExitCode(); code != 0 {
			t.Errorf("%s ended with %d, want 0", name, code)
		}
		n.Restart()
	}
	total := load.end()
	checkComplete(t, read(t, reader, total), total)
	drain(t, c.API)
	drain(t, c.Gateways[0])
	if code := reader.ExpectClose(); code != 4200 {
		t.Errorf("the client was closed with %d, want 4200", code)
	}
}
