package presence

import "time"

// clock is the machine's time in Unix milliseconds, except that it is never put
// back: it goes on evenly then, as all that is due later counts on it. It
// belongs to one goroutine.
type clock struct {
	// read gives the machine's time, which may be put back, and one that never
	// is, but may stand still while the machine sleeps.
	read  func() (wall, even int64)
	ahead int64 // of what goes evenly
	// behind is how much earlier it is by the machine's clock, since that was put
	// back.
	behind int64
}

func newClock() clock {
	start := time.Now()
	return clock{read: func() (wall, even int64) {
		now := time.Now()
		return now.UnixMilli(), start.UnixMilli() + now.Sub(start).Milliseconds()
	}}
}

func (c *clock) nowMs() int64 {
	wall, even := c.read()
	c.ahead = max(c.ahead, wall-even)
	now := even + c.ahead
	c.behind = now - wall
	return now
}
