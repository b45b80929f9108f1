package loop

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// TestWheelAgainstAModel: random timers, set, moved, cancelled and fired over
// hours of simulated time; each must be looked at in its tick, never before it
// is due, and next must never be later than that.
func TestWheelAgainstAModel(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		s := &slots{}
		w := &wheel{slots: s}
		conns := make([]*Conn, 100)
		due := make(map[*Conn]int64)
		for i := range conns {
			conns[i] = s.take()
		}
		now := int64(1)
		for step := range 5000 {
			c := conns[rng.IntN(len(conns))]
			switch rng.IntN(4) {
			case 0:
				c.timerAt = 0
				delete(due, c)
			default:
				c.timerAt = now + rng.Int64N(wheelTick<<rng.IntN(14))
				due[c] = c.timerAt
				w.arm(c)
			}
			now = advanceModel(t, rng, w, due, now, seed, step)
		}
	}
}

// advanceModel moves the time on and checks what was looked at.
func advanceModel(t *testing.T, rng *rand.Rand, w *wheel, due map[*Conn]int64, now int64, seed uint64, step int) int64 {
	t.Helper()
	if rng.IntN(3) > 0 {
		return now
	}
	if next := w.next(); len(due) > 0 {
		earliest := int64(1 << 62)
		for _, at := range due {
			earliest = min(earliest, at)
		}
		if limit := max((earliest+wheelTick-1)/wheelTick, w.tick+1) * wheelTick; next < 0 || next > limit {
			t.Fatalf("seed %d step %d: next is %d, a timer is due at %d", seed, step, next, earliest)
		}
	}
	now += rng.Int64N(wheelTick << rng.IntN(10))
	for !w.advance(now, 1+rng.IntN(50), func(c *Conn) {
		if c.timerAt == 0 || c.timerAt > now {
			return
		}
		if c.timerAt != due[c] {
			t.Fatalf("seed %d step %d: looked at for %d, set to %d", seed, step, c.timerAt, due[c])
		}
		c.timerAt = 0
		delete(due, c)
	}) {
	}
	for _, at := range due {
		if (at+wheelTick-1)/wheelTick <= now/wheelTick && at <= now {
			t.Fatalf("seed %d step %d: timer of %d has not fired at %d", seed, step, at, now)
		}
	}
	return now
}

func TestWheelIsEmptyWithoutTimers(t *testing.T) {
	s := &slots{}
	w := &wheel{slots: s}
	if w.next() != -1 {
		t.Error("an empty wheel has work")
	}
	c := s.take()
	c.timerAt = 10 * wheelTick
	w.arm(c)
	w.unlink(c)
	w.unlink(c)
	if w.next() != -1 {
		t.Error("the wheel has work after its only timer went")
	}
}

func TestSlotsAreReusedOnlyInTheNextTurn(t *testing.T) {
	s := &slots{}
	first := s.take()
	slot, gen := first.slot, first.gen
	s.release(first)
	var taken []int32
	for range pageSlots {
		taken = append(taken, s.take().slot)
	}
	if slices.Contains(taken, slot) {
		t.Error("a slot was reused in the turn in which it was released")
	}
	s.endTurn()
	again := s.take()
	if again.slot != slot || again.gen == gen {
		t.Errorf("slot %d generation %d, want %d and another than %d", again.slot, again.gen, slot, gen)
	}
	if s.has(-1) || !s.has(2*pageSlots-1) || s.has(2*pageSlots) {
		t.Error("has is wrong about what exists")
	}
}
