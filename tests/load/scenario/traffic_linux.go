package scenario

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// traffic publishes for the scenario's length and checks what arrives.
func (x *run) traffic() error {
	if x.p == nil {
		return errors.New("nothing can be published: say how")
	}
	x.pick = x.picker()
	if x.Warmup > 0 {
		x.phase = "warming up"
		if _, err := x.publishFor(x.Warmup); err != nil {
			return err
		}
	}
	x.phase = "publishing"
	m, err := x.measured(x.Length)
	if err != nil {
		return err
	}
	x.r.traffic(m)
	return nil
}

// measured publishes for a time and reads everything before and after.
func (x *run) measured(length time.Duration) (*measured, error) {
	m := &measured{connections: x.a.Live()}
	var err error
	if m.before, err = read(x.Servers); err != nil {
		return nil, err
	}
	busy, err := x.a.Busy()
	if err != nil {
		return nil, err
	}
	if m.took, err = x.publishFor(length); err != nil {
		return nil, err
	}
	if m.after, err = read(x.Servers); err != nil {
		return nil, err
	}
	if m.busy, err = x.a.Busy(); err != nil {
		return nil, err
	}
	m.busy -= busy
	m.stats = x.p.Stats()
	if m.latency, err = x.a.Latency(); err != nil {
		return nil, err
	}
	m.tally, err = x.a.Tally(x.p.Published())
	return m, err
}

// publishFor publishes for a time, and returns when everything has arrived,
// with the time until then. What does not arrive within the setup's patience
// is not an error here: the tally has it.
func (x *run) publishFor(length time.Duration) (time.Duration, error) {
	x.p.Reset()
	if err := x.a.Measure(x.p.Lanes()); err != nil {
		return 0, err
	}
	x.expect = 0
	base, began := x.a.Counts().Delivered, x.a.Now()
	end := began + int64(length)
	step := x.open
	if x.Rate == 0 {
		step = x.closed
	}
	for n := int64(0); ; {
		now := x.a.Now()
		if now >= end {
			break
		}
		wait := 20 * time.Millisecond
		if err := step(&n, began, base, &wait); err != nil {
			return 0, err
		}
		if err := x.poll(wait); err != nil {
			return 0, err
		}
	}
	return x.arrive(base, began)
}

// arrive waits for what is still under way.
func (x *run) arrive(base, began int64) (time.Duration, error) {
	quiet, last := x.a.Now(), int64(-1)
	for {
		got, stats := x.a.Counts().Delivered-base, x.p.Stats()
		now := x.a.Now()
		if got != last {
			last, quiet = got, now
		}
		missing := x.expect - got
		if (missing <= 0 && stats.Unanswered() == 0) || now-quiet > int64(x.Within) || (missing > 0 && x.a.Live() == 0) {
			return time.Duration(now - began), nil
		}
		if err := x.poll(10 * time.Millisecond); err != nil {
			return 0, err
		}
	}
}

// open publishes at the setup's rate, whatever has arrived. The stamp says
// when a message was due: a generator or server that is late is seen to be.
func (x *run) open(n *int64, began, _ int64, wait *time.Duration) error {
	for x.p.Ready() {
		due := began + int64(float64(*n)/x.Rate*1e9)
		if rest := due - x.a.Now(); rest > 0 {
			*wait = min(*wait, time.Duration(rest))
			return nil
		}
		*n++
		if err := x.publish(due); err != nil {
			return err
		}
	}
	*wait = min(*wait, time.Millisecond) // all publishers wait for answers
	return nil
}

// closed publishes as soon as all but Window - 1 of the messages before have
// arrived.
func (x *run) closed(n *int64, _, base int64, wait *time.Duration) error {
	for x.p.Ready() {
		due := x.expect - (x.a.Counts().Delivered - base)
		each := int64(max(x.subscribersOfNext(), 1))
		if due > (int64(x.Window)-1)*each {
			return nil
		}
		*n++
		if err := x.publish(x.a.Now()); err != nil {
			return err
		}
	}
	*wait = min(*wait, time.Millisecond)
	return nil
}

// publish publishes as many messages as go at once.
func (x *run) publish(at int64) error {
	channels := make([]int, 0, 64)
	for range max(x.Each, 1) {
		channels = append(channels, x.pick())
		x.expect += int64(x.subscribers(channels[len(channels)-1]))
	}
	if err := x.p.Publish(at, channels...); err != nil {
		return fmt.Errorf("publish: %w", err)
	}
	return nil
}

// subscribers is how many connections that read get a channel's messages.
func (x *run) subscribers(channel int) int {
	switch {
	case x.Kind == Publish:
		return 0
	case x.Plan.Dialect == "raw":
		return x.a.Live()
	case channel < x.Plan.Shared:
		return x.a.Live() - x.deaf()
	}
	return x.Plan.Subscribers(channel, x.Plan.Connections)
}

// deaf is how many of the live connections do not read.
func (x *run) deaf() int {
	if x.phase != "some do not read" {
		return 0
	}
	return x.Plan.SlowConnections(x.Plan.Connections)
}

func (x *run) subscribersOfNext() int {
	if x.Kind == Fanout || x.Kind == Slow {
		return x.subscribers(0)
	}
	return 1
}

// picker says which channel is next.
func (x *run) picker() func() int {
	p := &x.Plan
	random := rand.New(rand.NewPCG(1, uint64(p.Connections)))
	switch {
	case x.Kind == Publish: // nobody is subscribed to these
		base := p.OwnChannel(p.Connections, 0)
		return func() int { return base + random.IntN(1000) }
	case x.Kind == Channels && (p.Own > 0 || p.Spread > 0):
		return func() int {
			if p.Shared > 0 && random.Float64() < x.Mix {
				return p.SharedChannel(random.IntN(p.Shared))
			}
			if p.Own > 0 {
				return p.OwnChannel(random.IntN(p.Connections), random.IntN(p.Own))
			}
			return p.SpreadChannel(random.IntN(p.Spread))
		}
	}
	return func() int { return 0 }
}
