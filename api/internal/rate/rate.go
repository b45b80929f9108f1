// Package rate bounds the messages that the apps publish through this node, by
// whatever API.
package rate

import (
	"time"

	"github.com/carillon-rt/carillon/kit/pace"
	"github.com/carillon-rt/carillon/proto/app"
)

// Limits are the rates of all apps, each with its own limit. It is safe for
// for use by several goroutines.
type Limits struct{ paces *pace.Paces }

// New returns limits that nobody has used yet.
func New(now time.Time) *Limits { return &Limits{pace.New(now)} }

// Take takes room for n messages of an app, or says how long to wait for it.
// An event to several channels is a message for each.
func (l *Limits) Take(a *app.App, n int, now time.Time) (wait time.Duration) {
	return l.paces.Take(a.ID, a.Limits.PublishesPerSecond, n, now)
}

// Seconds is a wait as Retry-After gives it: at least 1.
func Seconds(wait time.Duration) int { return max(1, int((wait+time.Second-1)/time.Second)) }
