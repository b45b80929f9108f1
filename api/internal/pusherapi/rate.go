package pusherapi

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon/proto/app"
)

// rates limits how many messages each app publishes over this node.
type rates struct {
	since time.Time // immutable: steps of the wall clock don't count
	byID  sync.Map  // app id -> *pace, of apps with a limit
}

// take counts n messages of an app, or says how long to wait before the next.
// An event to several channels is a message for each. Up to a second's worth
// may come at once; a request with more is taken whole when it is its turn and
// paid for afterwards.
func (r *rates) take(of *app.App, n int, now time.Time) (wait time.Duration) {
	rate := of.Limits.PublishesPerSecond
	if rate <= 0 || n <= 0 {
		return 0
	}
	p, ok := r.byID.Load(of.ID)
	if !ok {
		p, _ = r.byID.LoadOrStore(of.ID, new(pace))
	}
	return p.(*pace).take(int64(now.Sub(r.since)), int64(max(1, int(time.Second)/rate)), int64(n))
}

// pace is the time in nanoseconds since rates.since at which all will have been paid for.
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

// seconds is a wait as Retry-After gives it: at least 1.
func seconds(wait time.Duration) int { return max(1, int((wait+time.Second-1)/time.Second)) }

// admit refuses messages that are over the app's rate.
func (h *Handler) admit(c *call, messages int) error {
	wait := h.rates.take(c.app, messages, h.deps.Now())
	if wait == 0 {
		return nil
	}
	h.metrics.overRate.Inc()
	return &refusal{
		status: http.StatusTooManyRequests, retryAfter: seconds(wait),
		text: fmt.Sprintf("the app may publish %d messages a second (limits.publishes_per_second), try again in %d s",
			c.app.Limits.PublishesPerSecond, seconds(wait)),
	}
}
