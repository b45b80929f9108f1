package journal

import (
	"context"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/natstest"
)

// machine is a Clock on a machine whose own clock is moved by hand.
func machine(start time.Time) (*Clock, *time.Duration) {
	passed := new(time.Duration)
	return &Clock{start: start, since: func(time.Time) time.Duration { return *passed }}, passed
}

func TestClock(t *testing.T) {
	begin := time.UnixMicro(1_700_000_000_000_000)
	fast, fastPassed := machine(begin.Add(5 * time.Second))
	slow, slowPassed := machine(begin)
	pass := func(d time.Duration) { *fastPassed += d; *slowPassed += d }
	apart := func() time.Duration { return time.Duration(int64(fast.Now())-int64(slow.Now())) * time.Microsecond }

	fast.Heard(slow.Now())
	if apart() != 5*time.Second {
		t.Fatalf("a clock is put back: %s apart", apart())
	}
	sent := fast.Now()
	pass(40 * time.Millisecond) // a slow heartbeat
	slow.Heard(sent)
	if apart() != 40*time.Millisecond {
		t.Errorf("%s apart after a heartbeat that took 40 ms", apart())
	}
	sent = fast.Now()
	pass(time.Millisecond)
	slow.Heard(sent)
	pass(time.Hour)
	if apart() != time.Millisecond {
		t.Errorf("%s apart after one that took 1 ms", apart())
	}
	before := slow.Now()
	for _, nonsense := range []uint64{0, 1<<64 - 1} {
		slow.Heard(nonsense)
	}
	if slow.Now() != before {
		t.Errorf("moved by %d", int64(slow.Now()-before))
	}
}

// A router that begins on a machine whose clock is ahead tells the others at
// once: what they publish before its first heartbeat would seem overtaken.
func TestOthersHearWhoAsks(t *testing.T) {
	srv := natstest.Server(t)
	begin := time.UnixMicro(1_700_000_000_000_000)
	slow, _ := machine(begin)
	fast, _ := machine(begin.Add(5 * time.Second))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- slow.Listen(ctx, srv.Conns(t).Live) }()
	nc := srv.Conns(t).Live
	await.True(t, "both tell the same time", func() bool {
		if err := fast.Ask(t.Context(), nc); err != nil {
			t.Fatal(err)
		}
		return slow.Now() == fast.Now()
	})
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// NATS may be away for a moment just when a router begins.
func TestAskWhileNATSIsAway(t *testing.T) {
	srv := natstest.Server(t)
	nc := srv.Conns(t).Live
	srv.Stop()
	await.True(t, "the connection is away", func() bool { return !nc.IsConnected() })
	clock, _ := machine(time.Now())
	asked := make(chan error, 1)
	go func() { asked <- clock.Ask(t.Context(), nc) }()
	srv.Start()
	if err := <-asked; err != nil {
		t.Error(err)
	}
}
