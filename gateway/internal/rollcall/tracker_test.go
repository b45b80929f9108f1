package rollcall

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/proto/presence"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func beat(shard int, term uint64, chains ...presence.BeatChain) *presence.Beat {
	return &presence.Beat{Node: "p", Shards: []presence.BeatShard{{Shard: shard, Term: term, Chains: chains}}}
}

// taken is what is in doubt: "partition/shards reasons".
func taken(t *Tracker) string {
	var out []string
	counts := t.Take(func(p int, set shardSet) {
		if set == allShards {
			out = append(out, fmt.Sprint(p, "/all"))
			return
		}
		for shard := range 64 {
			if set.has(shard) {
				out = append(out, fmt.Sprint(p, "/", shard))
			}
		}
	})
	for why, n := range counts {
		if n > 0 {
			out = append(out, Reason(why).String())
		}
	}
	return strings.Join(out, " ")
}

func TestTracker(t *testing.T) {
	tail := func(p int, last uint64) presence.BeatChain { return presence.BeatChain{Partition: p, Last: last} }
	for name, tc := range map[string]struct {
		do   func(*Tracker)
		want string
	}{
		"nothing": {func(*Tracker) {}, ""},
		"a chain": {func(t *Tracker) {
			t.Event(0, 5, 10, 0)
			t.Event(0, 5, 12, 10)
			t.Event(1, 5, 11, 0)
			t.Event(0, 6, 12, 0)
		}, ""},
		"a gap": {func(t *Tracker) {
			t.Event(0, 5, 10, 0)
			t.Event(0, 5, 12, 11)
		}, "0/5 gap"},
		"begun before we came": {func(t *Tracker) { t.Event(1, 63, 12, 11) }, "1/63 gap"},
		"a repeat": {func(t *Tracker) {
			t.Event(0, 5, 10, 0)
			t.Event(0, 5, 10, 0)
		}, ""},
		"another owner's first event": {func(t *Tracker) {
			t.Event(0, 5, 10, 0)
			t.Event(0, 5, 20, 0)
		}, "0/5 owner"},
		"another owner's first heartbeat": {func(t *Tracker) {
			t.Beat(beat(5, 8), 0)
			t.Event(0, 5, 10, 0)
			t.Beat(beat(5, 15), 0)
			t.Event(0, 5, 20, 0)
		}, "0/5 1/5 owner"},
		"the last heartbeat of the owner before": {func(t *Tracker) {
			t.Beat(beat(5, 15), 0)
			t.Beat(beat(5, 8, tail(0, 100)), 0)
			t.Tick(1000)
		}, ""},
		"a heartbeat that is in time": {func(t *Tracker) {
			t.Beat(beat(5, 8), 0)
			t.Event(0, 5, 10, 0)
			t.Beat(beat(5, 8, tail(0, 11)), 0)
			t.Tick(patienceMs - 1)
			t.Event(0, 5, 11, 10)
			t.Tick(patienceMs + 1)
		}, ""},
		"an event that does not come": {func(t *Tracker) {
			t.Beat(beat(5, 8), 0)
			t.Event(0, 5, 10, 0)
			t.Beat(beat(5, 8, tail(0, 11)), 0)
			t.Beat(beat(5, 8, tail(0, 12)), 200)
			t.Tick(patienceMs)
			t.Event(0, 5, 12, 11) // too late, but known
			t.Tick(10 * patienceMs)
		}, "0/5 late"},
		"a heartbeat from before we came": {func(t *Tracker) {
			t.Beat(beat(5, 8, tail(0, 11)), 0)
			t.Tick(patienceMs)
			t.Event(0, 5, 12, 11)
		}, ""},
		"a chain that begins": {func(t *Tracker) {
			t.Beat(beat(5, 8), 0)
			t.Beat(beat(5, 8, tail(1, 11)), 0)
			t.Tick(patienceMs)
		}, "1/5 late"},
		"a partition": {func(t *Tracker) { t.Doubt(1, Slow) }, "1/all slow"},
		"what can't be": {func(t *Tracker) {
			t.Beat(beat(64, 8), 0)
			t.Beat(beat(-1, 8), 0)
			t.Beat(beat(1, 8, tail(2, 5), tail(-1, 5)), 0)
			t.Tick(patienceMs)
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			tr := NewTracker(2)
			tc.do(tr)
			if got := taken(tr); got != tc.want {
				t.Errorf("in doubt: %q, want %q", got, tc.want)
			}
			if got := taken(tr); got != "" {
				t.Errorf("still in doubt: %q", got)
			}
		})
	}
}

// TestNoLossGoesUnnoticed: events of changing owners are lost at random. When
// heartbeats have told of all, every loss has been followed by a doubt, and
// there is no more doubt. Without a loss and with one owner there is none.
func TestNoLossGoesUnnoticed(t *testing.T) {
	for seed := range uint64(3000) {
		r := rand.New(rand.NewPCG(seed, 3))
		tr := NewTracker(1)
		var term, seq, last uint64 = 1, 1, 0 // of the owner
		now, lost, calm := int64(0), false, true
		tell := func() {
			b := beat(3, term)
			if last != 0 {
				b.Shards[0].Chains = []presence.BeatChain{{Last: last}}
			}
			tr.Beat(b, now)
		}
		check := func() {
			tr.Take(func(int, shardSet) {
				if calm {
					t.Fatalf("seed %d: doubt without a reason", seed)
				}
				lost = false
			})
		}
		tell()
		for range 60 {
			now += 100
			switch n := r.IntN(20); {
			case n < 12:
				seq++
				if seed%3 > 0 && r.IntN(5) == 0 {
					lost, calm = true, false
				} else {
					tr.Event(0, 3, seq, last)
				}
				last = seq
			case n == 12 && seed%3 == 1:
				seq++
				term, last, calm = seq, 0, false
			default:
				tell()
				tr.Tick(now)
			}
			check()
		}
		tell()
		now += patienceMs
		tr.Tick(now)
		check()
		if lost {
			t.Fatalf("seed %d: a loss goes unnoticed", seed)
		}
		now += 10 * patienceMs
		tell()
		if tr.Tick(now); taken(tr) != "" {
			t.Fatalf("seed %d: doubt when all is quiet", seed)
		}
	}
}

func TestReasonsHaveNames(t *testing.T) {
	var names []string
	for why := range reasons {
		if name := why.String(); name == "" || slices.Contains(names, name) {
			t.Errorf("reason %d is %q", why, name)
		}
		names = append(names, why.String())
	}
}
