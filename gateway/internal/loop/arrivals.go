package loop

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/carillon-rt/carillon/gateway/internal/netpoll"
)

const (
	// arrivalsMax is how many accepted connections may wait for their loop.
	arrivalsMax = 1024
	// overflowMax is how many connections above ConnectionsMax a loop keeps
	// for as long as it takes to refuse them politely.
	overflowMax = 256
)

// arrival is an accepted connection: a descriptor, or a net.Conn for a pipe.
type arrival struct {
	fd   int
	conn net.Conn
	addr netip.AddrPort
	read []byte // what others have read of it already
}

// drop closes an arrival that no loop took.
func (a arrival) drop() {
	if a.conn != nil {
		_ = a.conn.Close()
		return
	}
	_ = netpoll.CloseFD(a.fd)
}

// arrivals is the bounded queue of connections that others have accepted for a
// loop.
type arrivals struct {
	wake func() // immutable

	// atomic
	length atomic.Int64 // of those that wait, in queue or with whoever took them
	closed atomic.Bool

	mu sync.Mutex
	// guarded by mu
	queue []arrival
	spare []arrival
}

func (a *arrivals) init(wake func()) { a.wake = wake }

// add queues an arrival unless the queue is full or closed.
func (a *arrivals) add(next arrival) bool {
	a.mu.Lock()
	if a.closed.Load() || len(a.queue) >= arrivalsMax {
		a.mu.Unlock()
		return false
	}
	a.queue = append(a.queue, next)
	a.length.Add(1)
	a.mu.Unlock()
	a.wake()
	return true
}

// take returns all that wait; call admitted for each, and give them back with
// done. Until then they count: a loop that is about to have fifty more
// connections is not the emptiest.
func (a *arrivals) take() []arrival {
	if !a.waiting() {
		return nil
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	taken := a.queue
	a.queue, a.spare = a.spare[:0], nil
	return taken
}

// admitted says that one that was taken is a connection now, or is gone.
func (a *arrivals) admitted() { a.length.Add(-1) }

// done takes back the memory of take.
func (a *arrivals) done(taken []arrival) {
	clear(taken)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.spare = taken[:0]
}

func (a *arrivals) waiting() bool { return a.length.Load() > 0 }

// close refuses further arrivals and drops those that wait.
func (a *arrivals) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed.Store(true)
	for _, waiting := range a.queue {
		waiting.drop()
	}
	a.length.Add(-int64(len(a.queue)))
	a.queue = nil
}

// admitArrivals makes connections of all that wait.
func (c *core) admitArrivals() {
	taken := c.arrivals.take()
	if taken == nil {
		return
	}
	for _, a := range taken {
		c.admit(a)
		c.arrivals.admitted()
	}
	c.arrivals.done(taken)
}

// admit makes a connection of an arrival.
func (c *core) admit(a arrival) {
	c.stats.accepted.Add(1)
	var flags connFlags
	gauge := &c.stats.connections
	if gauge.Load() >= int64(c.cfg.ConnectionsMax) {
		flags, gauge = flagOverflow, &c.stats.overflowing
		if gauge.Load() >= overflowMax {
			c.stats.dropped.Add(1)
			a.drop()
			return
		}
	}
	gauge.Add(1)
	now := c.now.Load()
	s := c.slots.take()
	s.core, s.state, s.flags = c, stateHead, flags
	s.ip, s.port = a.addr.Addr().As16(), a.addr.Port()
	s.lastInput, s.deadline = now, now+int64(c.cfg.HeadTimeout)
	c.wheel.arm(s)
	if a.conn != nil {
		s.fd = -1
		c.shedder.pipes++
		s.pipe = netpoll.NewPipe(a.conn, c.poller, c.cfg.SendBufferBytes, &c.group)
		s.pipe.Start(s.slot, s.gen)
	} else {
		s.fd = int32(a.fd)
		if err := s.watch(netpoll.None, netpoll.Read); err != nil {
			c.log.Error("admit connection", "err", err)
			c.kill(s)
		}
	}
	if len(a.read) > 0 && s.state == stateHead {
		c.reader.requests(s, a.read)
	}
}

// load is how many connections the loop has or is about to have.
func (c *core) load() int64 {
	return c.stats.connections.Load() + c.arrivals.length.Load()
}
