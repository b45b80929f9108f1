package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
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

// askFor is how long answers to Ask are waited for: nobody knows how many there
// will be.
const askFor = 100 * time.Millisecond

// Ask hears what others know of the time, and is for a router that begins: one
// whose machine's clock is behind would otherwise publish before what routers
// that have gone published, which gateways take for overtaken.
func (c *Clock) Ask(ctx context.Context, nc *nats.Conn) error {
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return fmt.Errorf("ask for the time: %w", err)
	}
	defer sub.Unsubscribe() // fails only on a closed connection
	if err := nc.PublishRequest(subject.Clock, inbox, nil); err != nil {
		return fmt.Errorf("ask for the time: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, askFor)
	defer cancel()
	for {
		m, err := sub.NextMsgWithContext(ctx)
		if err != nil { // that was all, or there is nobody
			return nil
		}
		if at, err := strconv.ParseUint(string(m.Data), 10, 64); err == nil {
			c.Heard(at)
		}
	}
}

// Listen hears the heartbeats of all routers, and answers those who Ask, until
// ctx ends.
func (c *Clock) Listen(ctx context.Context, nc *nats.Conn) error {
	beats, err := nc.Subscribe(subject.AllSync, func(m *nats.Msg) {
		var beat history.Heartbeat
		if json.Unmarshal(m.Data, &beat) == nil { // gateways count those that can't be read
			c.Heard(beat.Clock)
		}
	})
	if err != nil {
		return fmt.Errorf("subscribe to heartbeats: %w", err)
	}
	defer beats.Unsubscribe() // fails only on a closed connection, as below
	asked, err := nc.Subscribe(subject.Clock, func(m *nats.Msg) {
		_ = m.Respond(strconv.AppendUint(nil, c.Now(), 10)) // who asks does without
	})
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", subject.Clock, err)
	}
	defer asked.Unsubscribe()
	<-ctx.Done()
	return nil
}
