package fleet

import (
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/carillon-rt/carillon/tests/load/stamp"
	"github.com/carillon-rt/carillon/tests/load/tally"
)

// Measure begins a measurement: counts and latencies start from nothing, and
// what arrives is checked to come once and in each lane's order. With 0 lanes
// it is counted only.
func (f *Fleet) Measure(lanes int) error {
	f.measure = measurement{lanes: lanes, latency: newHistogram()}
	for i := range f.conns {
		c := &f.conns[i]
		c.streams = nil
		if lanes > 0 && c.state == stateLive {
			c.streams = make([]tally.Stream, f.slots*lanes)
		}
	}
	return nil
}

// take counts and checks a message on the k-th channel of a connection, -1 if
// it is none of its channels.
func (m *measurement) take(c *conn, k int, s *stamp.Stamp, now int64) {
	_ = m.latency.RecordValue(min(max(now-s.At, 1), latencyMax.Nanoseconds())) // within its range
	switch {
	case c.streams == nil || m.lanes == 0:
		m.tally.Delivered++
	case k < 0 || s.Lane >= m.lanes:
		m.tally.Delivered++
		m.tally.Unexpected++
	default:
		c.streams[k*m.lanes+s.Lane].Next(s.Seq, &m.tally)
	}
}

// Tally gives what has arrived since Measure. What was published, by lane and
// channel, and has not come to connections that are still there counts as
// missing.
func (f *Fleet) Tally(published Published) (tally.Counts, error) {
	sum := f.measure.tally
	for i := range f.conns {
		c := &f.conns[i]
		if c.streams == nil || c.state != stateLive {
			continue
		}
		for k := range f.slots {
			channel := f.plan.channel(f.plan.First+i, k)
			for lane := range min(f.measure.lanes, len(published)) {
				c.streams[k*f.measure.lanes+lane].End(published[lane][channel], &sum)
			}
		}
	}
	return sum, nil
}

// Latency is the time from a message's stamp to its arrival, in nanoseconds,
// since Measure.
func (f *Fleet) Latency() (*hdrhistogram.Histogram, error) { return f.measure.latency, nil }

// Joins is how long connections took from their beginning to their last
// subscription, in nanoseconds.
func (f *Fleet) Joins() (*hdrhistogram.Histogram, error) { return f.joins, nil }

// Closes counts the connections that the server has closed, by close code:
// 1006 is one without.
func (f *Fleet) Closes() (map[int]int64, error) { return f.closes, nil }

// StopReading makes the plan's slow connections deaf: they read no more.
func (f *Fleet) StopReading() error {
	return f.eachSlow(stateLive, stateDeaf, syscall.EPOLLRDHUP)
}

// ResumeReading has deaf connections read what is there, and go on.
func (f *Fleet) ResumeReading() error {
	return f.eachSlow(stateDeaf, stateLive, syscall.EPOLLIN|syscall.EPOLLRDHUP)
}

func (f *Fleet) eachSlow(from, to state, events uint32) error {
	for i := range f.conns {
		c := &f.conns[i]
		if c.state != from || !f.plan.slow(f.plan.First+i) {
			continue
		}
		c.state, c.streams = to, nil
		if err := f.poller.control(syscall.EPOLL_CTL_MOD, int(c.fd), i, events); err != nil {
			return err
		}
	}
	return nil
}

// pings is how far the fleet's walk over its connections has come.
type pings struct {
	next  int
	began int64
	sent  int64
}

// ping lets connections show that they are there: a walk over all of them in
// each interval. It returns how long until the next is due.
func (f *Fleet) ping() time.Duration {
	now, n := f.clock.Now(), int64(len(f.conns))
	p, each := &f.pings, int64(f.plan.Ping)/n
	if p.began == 0 {
		p.began = now
	}
	for p.began+p.sent*each <= now {
		if i := p.next; f.conns[i].state == stateLive {
			if f.output = f.dialect.AppendPing(f.output[:0]); len(f.output) > 0 {
				f.reply(i, f.output)
			}
		}
		p.next = (p.next + 1) % len(f.conns)
		p.sent++
	}
	return time.Duration(p.began + p.sent*each - now)
}

// churn ends the last subscription of a connection and asks for it again, as
// a client that changes pages does. It returns false if the connection is
// busy with the last time, or gone.
func (f *Fleet) churn(i int) bool {
	c := &f.conns[i]
	if c.state != stateLive || c.churning || f.slots == 0 {
		return false
	}
	number := f.plan.First + i
	name := f.plan.Name(f.plan.channel(number, f.slots-1))
	out := f.dialect.AppendUnsubscribe(f.output[:0], name)
	out = f.dialect.AppendSubscribe(out, number, c.socketID, name)
	f.output = out[:0]
	c.churning = true
	f.counts.Unsubscribed++
	f.reply(i, out)
	return true
}

// SendText sends a text message on connection i.
func (f *Fleet) SendText(i int, payload []byte) {
	f.output = AppendText(f.output[:0], payload)
	f.reply(i, f.output)
}
