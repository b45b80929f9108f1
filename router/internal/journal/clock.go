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

const (
	// askFor is how long answers to Ask are waited for: nobody knows how many
	// there will be.
	askFor = 100 * time.Millisecond
	// askAgain is the pause while the connection is away.
	askAgain = 50 * time.Millisecond
)

// Ask hears what others know of the time, and tells them its own. It is for a
// router that begins: if its machine's clock is behind, it would publish before
// what others published, and if it is ahead, others would publish before it,
// until its first heartbeat; either is what gateways take for overtaken.
func (c *Clock) Ask(ctx context.Context, nc *nats.Conn) error {
	inbox := nc.NewInbox()
	sub, err := nc.SubscribeSync(inbox)
	if err != nil {
		return fmt.Errorf("ask for the time: %w", err)
	}
	defer sub.Unsubscribe() // fails only on a closed connection
	for {
		if err = nc.PublishRequest(subject.Clock, inbox, strconv.AppendUint(nil, c.Now(), 10)); err == nil {
			break
		}
		if nc.IsClosed() {
			return fmt.Errorf("ask for the time: %w", err)
		}
		select { // the connection is away, and keeps nothing for later
		case <-ctx.Done():
			return nil
		case <-time.After(askAgain):
		}
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
		if at, err := strconv.ParseUint(string(m.Data), 10, 64); err == nil {
			c.Heard(at)
		}
		_ = m.Respond(strconv.AppendUint(nil, c.Now(), 10)) // who asks does without
	})
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", subject.Clock, err)
	}
	defer asked.Unsubscribe()
	<-ctx.Done()
	return nil
}
