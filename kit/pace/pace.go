// Package pace limits how often each of many may do something, such as the
// tenants of a service. It is pure: the caller brings the time.
package pace

import (
	"sync"
	"sync/atomic"
	"time"
)

// Paces is the limits of many, by name. Each may use up to a second's worth at
// once. Any goroutine may use it. It keeps some bytes for each name for ever:
// names must be of a limited set.
type Paces struct {
	since time.Time // immutable: steps of the wall clock don't count
	byID  sync.Map  // name -> *pace, of those with a limit
}

// New begins at now; nobody has used anything.
func New(now time.Time) *Paces { return &Paces{since: now} }

// Take counts n of id, of which rate are allowed per second, or says how long
// to wait before the next. More than a second's worth is taken whole when it
// is its turn, and paid for afterwards. A rate of 0 is no limit.
func (p *Paces) Take(id string, rate, n int, now time.Time) (wait time.Duration) {
	if rate <= 0 || n <= 0 {
		return 0
	}
	return p.of(id).take(int64(now.Sub(p.since)), cost(rate), int64(n))
}

// Reserve counts one of id, whose turn may be later: after wait. Whoever
// reserves has its turn before those who do so after it.
func (p *Paces) Reserve(id string, rate int, now time.Time) (wait time.Duration) {
	if rate <= 0 {
		return 0
	}
	return p.of(id).reserve(int64(now.Sub(p.since)), cost(rate))
}

func (p *Paces) of(id string) *pace {
	at, ok := p.byID.Load(id)
	if !ok {
		at, _ = p.byID.LoadOrStore(id, new(pace))
	}
	return at.(*pace)
}

// cost is what one costs, in nanoseconds.
func cost(rate int) int64 { return int64(max(1, int(time.Second)/rate)) }

// pace is the time in nanoseconds since Paces.since at which all will have been
// paid for.
type pace struct{ paid atomic.Int64 }

func (p *pace) take(now, cost, n int64) (wait time.Duration) {
	for {
		have := p.paid.Load()
		next := max(have, now) + cost
		if ahead := next - now - int64(time.Second); ahead > 0 {
			return time.Duration(ahead)
		}
		if p.paid.CompareAndSwap(have, next+(n-1)*cost) {
			return 0
		}
	}
}

func (p *pace) reserve(now, cost int64) (wait time.Duration) {
	for {
		have := p.paid.Load()
		next := max(have, now) + cost
		if p.paid.CompareAndSwap(have, next) {
			return time.Duration(max(0, next-now-int64(time.Second)))
		}
	}
}
