package loop

import (
	"math/bits"
	"time"
)

const (
	wheelTick    = int64(100 * time.Millisecond)
	wheelBuckets = 512 // 51.2 s; later timers are looked at once per round
)

// wheel keeps the timers of a loop's connections: each is in the bucket of
// the tick at which it must be looked at. Moving a timer to a later time costs
// nothing: the connection is found in its old bucket and put on.
type wheel struct {
	slots  *slots
	heads  [wheelBuckets]int32 // slot plus one; 0 is none
	filled [wheelBuckets / 64]uint64
	tick   int64 // buckets up to this tick were emptied
}

// due is when a connection must be looked at, 0 for never.
func (c *Conn) due() int64 {
	switch {
	case c.timerAt == 0:
		return c.deadline
	case c.deadline == 0:
		return c.timerAt
	}
	return min(c.timerAt, c.deadline)
}

// arm sees to it that c is looked at when its timer or deadline has come.
func (w *wheel) arm(c *Conn) {
	due := c.due()
	if due == 0 {
		return // if it is in a bucket it is dropped when met
	}
	tick := (due + wheelTick - 1) / wheelTick
	tick = min(max(tick, w.tick+1), w.tick+wheelBuckets-1)
	if c.flags&flagLinked != 0 {
		if int64(c.wheelAt) <= tick {
			return
		}
		w.unlink(c)
	}
	w.link(c, tick)
}

// next is the loop time of the next tick that has work, or -1.
func (w *wheel) next() int64 {
	from := uint64(w.tick+1) % wheelBuckets
	for i := range uint64(len(w.filled) + 1) {
		word := (from/64 + i) % uint64(len(w.filled))
		set := w.filled[word]
		if i == 0 {
			set &^= 1<<(from%64) - 1
		}
		if i == uint64(len(w.filled)) {
			set &= 1<<(from%64) - 1
		}
		if set == 0 {
			continue
		}
		bucket := word*64 + uint64(bits.TrailingZeros64(set))
		distance := (bucket - from + wheelBuckets) % wheelBuckets
		return (w.tick + 1 + int64(distance)) * wheelTick
	}
	return -1
}

// advance calls look for up to limit connections whose tick has come by now,
// and re-arms each afterwards. It reports whether all were looked at.
func (w *wheel) advance(now int64, limit int, look func(*Conn)) bool {
	target := now / wheelTick
	if target-w.tick > wheelBuckets {
		w.tick = target - wheelBuckets
	}
	for w.tick < target {
		bucket := (w.tick + 1) % wheelBuckets
		for w.heads[bucket] != 0 {
			if limit == 0 {
				return false
			}
			limit--
			c := w.slots.at(w.heads[bucket] - 1)
			w.unlink(c)
			// A timer that was set to the past must not come into the bucket
			// that is being emptied.
			w.tick++
			look(c)
			w.arm(c)
			w.tick--
		}
		w.tick++
	}
	return true
}

func (w *wheel) link(c *Conn, tick int64) {
	bucket := tick % wheelBuckets
	c.wheelAt = uint32(tick)
	c.wheelPrev, c.wheelNext = 0, w.heads[bucket]
	if c.wheelNext != 0 {
		w.slots.at(c.wheelNext - 1).wheelPrev = c.slot + 1
	}
	w.heads[bucket] = c.slot + 1
	w.filled[bucket/64] |= 1 << (bucket % 64)
	c.flags |= flagLinked
}

func (w *wheel) unlink(c *Conn) {
	if c.flags&flagLinked == 0 {
		return
	}
	c.flags &^= flagLinked
	bucket := int64(c.wheelAt) % wheelBuckets
	if c.wheelNext != 0 {
		w.slots.at(c.wheelNext - 1).wheelPrev = c.wheelPrev
	}
	if c.wheelPrev != 0 {
		w.slots.at(c.wheelPrev - 1).wheelNext = c.wheelNext
	} else {
		w.heads[bucket] = c.wheelNext
		if c.wheelNext == 0 {
			w.filled[bucket/64] &^= 1 << (bucket % 64)
		}
	}
	c.wheelNext, c.wheelPrev = 0, 0
}
