package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/subject"
)

// Clock is a time that all routers agree on to within the delay of their
// fastest heartbeat: none is behind what it has heard of another one, whatever
// their machines' clocks say (Kulkarni et al., Logical Physical Clocks, 2014).
// It says nothing about the hour.
type Clock struct {
	// immutable after NewClock
	start time.Time
	since func(time.Time) time.Duration // monotonic

	ahead atomic.Int64 // microseconds before the machine's clock
}

// clockMax keeps what another router says from overflowing.
const clockMax = 1 << 62

// NewClock returns the clock of a router that has heard of no other.
func NewClock() *Clock { return &Clock{start: time.Now(), since: time.Since} }

// Now is the time in microseconds. It never goes back.
func (c *Clock) Now() uint64 { return uint64(c.own() + c.ahead.Load()) }

func (c *Clock) own() int64 { return c.start.UnixMicro() + c.since(c.start).Microseconds() }

// Heard takes the time of another router.
func (c *Clock) Heard(at uint64) {
	if at > clockMax {
		return
	}
	behind := int64(at) - c.own()
	for {
		ahead := c.ahead.Load()
		if behind <= ahead || c.ahead.CompareAndSwap(ahead, behind) {
			return
		}
	}
}

// Listen hears the heartbeats of all routers until ctx ends.
func (c *Clock) Listen(ctx context.Context, nc *nats.Conn) error {
	sub, err := nc.Subscribe(subject.AllSync, func(m *nats.Msg) {
		var beat history.Heartbeat
		if json.Unmarshal(m.Data, &beat) == nil { // gateways count those that can't be read
			c.Heard(beat.Clock)
		}
	})
	if err != nil {
		return fmt.Errorf("subscribe to heartbeats: %w", err)
	}
	<-ctx.Done()
	_ = sub.Unsubscribe() // fails only on a closed connection
	return nil
}
