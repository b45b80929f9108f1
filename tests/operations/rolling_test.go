package operations

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws/wsutil"

	"github.com/carillon-rt/carillon/tests/env"
)

// Gateways are restarted one after another while somebody publishes: nobody
// who publishes notices, the clients move a few at a time, and each of them
// has got everything in the end.
func TestRollingRestart(t *testing.T) {
	const clients, window, channel = 80, 3 * time.Second, "long-rolling"
	c := env.Start(t, env.Apart(2), env.Set("gateway.drain.window="+window.String()))
	keepers := make([]*keeper, clients)
	for i := range keepers {
		keepers[i] = &keeper{}
		if _, err := keepers[i].come(t, c.Gateways[0], channel); err != nil {
			t.Fatal(err)
		}
	}
	load := startLoad(t, t.Context(), c, channel)
	failed := load.failed.Load()
	for i, leaving := range c.Gateways {
		left := make(chan time.Time, clients)
		var moves sync.WaitGroup
		for n, k := range keepers {
			moves.Go(func() {
				if err := k.move(t, c.Gateways[1-i], channel, left); err != nil {
					t.Errorf("client %d: %v", n, err)
				}
			})
		}
		drain(t, leaving)
		moves.Wait()
		close(left)
		checkSpread(t, left, window)
		load.more(t, 20)
		leaving.Stop()
		leaving.Restart()
		load.more(t, 20)
	}
	total := load.end()
	for i, k := range keepers {
		if err := k.listen(total); err != nil {
			t.Fatalf("client %d after %d of %d: %v", i, len(k.seen), total, err)
		}
		checkComplete(t, k.seen, total)
	}
	t.Logf("%d clients, two moves each, %d publications: all of them everywhere", clients, total)
	if n := load.failed.Load() - failed; n != 0 {
		t.Errorf("%d publishes failed, want none", n)
	}
}

// move listens until the gateway sends the client away, and has it go on where
// it was at another one.
func (k *keeper) move(t *testing.T, to *env.Node, channel string, left chan<- time.Time) error {
	err := k.listen(math.MaxInt)
	left <- time.Now()
	var closed wsutil.ClosedError
	if !errors.As(err, &closed) || closed.Code != 4200 {
		return fmt.Errorf("the connection ended with %w, want code 4200", err)
	}
	switch r, err := k.come(t, to, channel); {
	case err != nil:
		return fmt.Errorf("come back: %w", err)
	case !r.Recovered:
		return fmt.Errorf("came back to %+v, want everything recovered", r)
	}
	return nil
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
