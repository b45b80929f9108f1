// Package rate limits how many messages each app publishes over this node,
// whichever API they come by.
package rate

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon/proto/app"
)

// Limits are the rates of all apps. They may be used by any goroutine.
type Limits struct {
	since time.Time // immutable: steps of the wall clock don't count
	byID  sync.Map  // app id -> *pace, of apps with a limit
}

// New returns limits that nothing has been taken of at now.
func New(now time.Time) *Limits { return &Limits{since: now} }

// Take counts n messages of an app, or says how long to wait before the next.
// An event to several channels is a message for each. Up to a second's worth
// may come at once; a request with more is taken whole when it is its turn and
// paid for afterwards.
func (l *Limits) Take(of *app.App, n int, now time.Time) (wait time.Duration) {
	rate := of.Limits.PublishesPerSecond
	if rate <= 0 || n <= 0 {
		return 0
	}
	p, ok := l.byID.Load(of.ID)
	if !ok {
		p, _ = l.byID.LoadOrStore(of.ID, new(pace))
	}
	return p.(*pace).take(int64(now.Sub(l.since)), int64(max(1, int(time.Second)/rate)), int64(n))
}

// pace is the time in nanoseconds since Limits.since at which all will have
// been paid for.
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

// Seconds is a wait in whole seconds, rounded up: at least 1.
func Seconds(wait time.Duration) int { return max(1, int((wait+time.Second-1)/time.Second)) }
