package hook

import "time"

// Of a breaker.
const (
	breakAfter = 10 // failures in a row
	breakFirst = time.Second
	breakMax   = 10 * time.Second
)

// breaker keeps requests from an endpoint that is down, so that clients get
// their "can't tell now" at once: after breakAfter failures in a row it lets
// nothing through but one request after a pause, which doubles as long as
// those fail. It is pure: its owner tells it the time and guards it.
type breaker struct {
	failures int
	pause    time.Duration // 0 while closed
	until    time.Time     // no request before
}

// allow says whether a request may be made now, and whether it is the trial of
// an open breaker. A trial that does not report its result is followed by the
// next a pause later.
func (b *breaker) allow(now time.Time) (ok, trial bool) {
	if b.pause == 0 {
		return true, false
	}
	if now.Before(b.until) {
		return false, false
	}
	b.until = now.Add(b.pause)
	return true, true
}

// result takes how a request ended. Failures of requests that were under way
// when the breaker opened say nothing new.
func (b *breaker) result(now time.Time, ok, trial bool) {
	if ok {
		*b = breaker{}
		return
	}
	b.failures++
	switch {
	case b.pause == 0 && b.failures >= breakAfter:
		b.pause = breakFirst
	case b.pause > 0 && trial:
		b.pause = min(2*b.pause, breakMax)
	default:
		return
	}
	b.until = now.Add(b.pause)
}

// open says whether requests are kept back.
func (b *breaker) open() bool { return b.pause > 0 }
