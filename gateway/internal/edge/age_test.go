package edge

import (
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/loop"
)

// Connections of neighbouring slots, which came at once, reach their age
// evenly over the jittered time, in two runs of the node at different times.
func TestAgesAreSpread(t *testing.T) {
	const n, buckets = 100_000, 10
	a := Ages{Max: time.Hour, Jitter: 0.25}
	same := 0
	var in [buckets]int
	for i := range n {
		h := loop.Handle{Loop: int32(i % 2), Slot: int32(i / 2), Gen: 1}
		age := a.of(7, h)
		if age <= 45*time.Minute || age > time.Hour {
			t.Fatalf("connection %d may reach %s, want 45 to 60 minutes", i, age)
		}
		if age != a.of(7, h) {
			t.Fatal("a connection's age changes")
		}
		if age == a.of(8, h) {
			same++
		}
		in[min(int((age-45*time.Minute)*buckets/(15*time.Minute)), buckets-1)]++
	}
	for i, got := range in {
		if got < n/buckets*9/10 || got > n/buckets*11/10 {
			t.Errorf("bucket %d has %d of %d connections: %v", i, got, n, in)
		}
	}
	if same > n/1000 {
		t.Errorf("%d connections have the same age in another run", same)
	}
	if got := (Ages{Max: time.Hour}).of(7, loop.Handle{}); got != time.Hour {
		t.Errorf("without jitter the age is %s", got)
	}
}

// Old connections are told to come back at once, and find their place;
// clients that are busy go as well.
func TestMaxAge(t *testing.T) {
	f := startWith(t, func(c *Config) { c.Ages = Ages{Max: 200 * time.Millisecond, Jitter: 0.5} })
	idle, busy := f.raw("/app/k?protocol=7"), f.raw("/app/k?protocol=7")
	busy.send(`{"event":"pusher:subscribe","data":{"channel":"news"}}`)
	for _, c := range []*wsClient{idle, busy} {
		c.expect("connection_established")
	}
	idle.expect("has reached its maximum age")
	for { // with or without the subscription: it is a matter of time
		if msg := busy.expect("pusher"); strings.Contains(msg, "has reached its maximum age") {
			break
		}
	}
	idle.expectClose(4200)
	busy.expectClose(4200)
	f.until("both are counted", func() bool {
		closes := 0
		for why, n := range f.edge.Stats().Closes {
			if why.String() == "max_age" {
				closes = int(n)
			}
		}
		return closes == 2
	})
	f.raw("/app/k?protocol=7").expect("connection_established")
}
