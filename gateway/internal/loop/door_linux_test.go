package loop

import (
	"slices"
	"testing"

	"github.com/carillon-rt/carillon/kit/await"
)

// TestLoopsShareConnectionsEvenly: whichever loop accepts, also after one has
// lost all that it had.
func TestLoopsShareConnectionsEvenly(t *testing.T) {
	const loops, each = 4, 150
	s := serveAll(t, Config{}, listenPlain, &script{}, &script{}, &script{}, &script{})
	counts := func() []int64 {
		n := make([]int64, loops)
		for i, l := range s.loops {
			n[i] = l.Stats().Connections
		}
		return n
	}
	check := func(when string) {
		t.Helper()
		n := counts()
		// Loops that accept at the same time may choose the same one.
		if least, most := slices.Min(n), slices.Max(n); most-least > 2*loops+most/balanceShare {
			t.Errorf("%s: loops have %v connections", when, n)
		}
	}
	openBare(t, s.listener.Addr(), loops*each)
	check("at first")
	done := make(chan struct{})
	s.loops[2].Post(func() {
		for slot := range int32(each) {
			if c := s.loops[2].ConnAt(slot); c.state == stateOpen {
				c.Abort("")
			}
		}
		close(done)
	})
	<-done
	await.True(t, "the third is empty", func() bool { return counts()[2] < 5 })
	openBare(t, s.listener.Addr(), each)
	check("when it has filled again")
}

// TestListenersShareLoops: one closes, the loops go on accepting from the
// other, and from a third in its place.
func TestListenersShareLoops(t *testing.T) {
	s := serve(t, Config{}, &script{})
	closing, err := listenPlain(s.loops)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- closing.Run(t.Context()) }()
	openBare(t, closing.Addr(), 3)
	if err := closing.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	third, err := listenPlain(s.loops)
	if err != nil {
		t.Fatal(err)
	}
	go func() { ended <- third.Run(t.Context()) }()
	openBare(t, third.Addr(), 3)
	openBare(t, s.listener.Addr(), 3)
	if got := s.loops[0].Stats().Connections; got != 9 {
		t.Errorf("%d connections, want 9", got)
	}
	if err := third.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// TestLoopsThatHaveStoppedAreNotWaitedFor: a listener may outlive its loops,
// and begin after them.
func TestLoopsThatHaveStoppedAreNotWaitedFor(t *testing.T) {
	s := serve(t, Config{}, &script{})
	late, err := listenPlain(s.loops)
	if err != nil {
		t.Fatal(err)
	}
	s.stop()
	s.running.Wait()
	ended := make(chan error, 1)
	go func() { ended <- late.Run(t.Context()) }()
	if err := late.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}
