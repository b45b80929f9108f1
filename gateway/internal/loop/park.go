package loop

import (
	"github.com/carillon-rt/carillon/gateway/internal/framing"
	"github.com/carillon-rt/carillon/gateway/internal/netpoll"
)

// A parked connection is open and has no socket: the client comes now and then
// to fetch what was queued. It always has an outbox, so that whoever queues
// for it takes the way of a client that doesn't read; the limits of bytes, age
// and memory are the same.

// Parks has the connection, which was opened with Stream, live on without a
// socket when it loses it. The handler is an Exchanger.
func (c *Conn) Parks() { c.flags |= flagParks }

// Parked says whether the connection has no socket.
func (c *Conn) Parked() bool { return c.state == stateOpen && c.fd < 0 && c.pipe == nil }

// NewParked makes an open connection without a socket for a client that came
// with another one; Handler.Open is not called. It returns nil when the loop
// has no room for more connections.
func (c *core) NewParked(from *Conn, f framing.Framing) *Conn {
	if c.stats.connections.Load() >= int64(c.cfg.ConnectionsMax) {
		return nil
	}
	c.stats.connections.Add(1)
	c.stats.opened.Add(1)
	s := c.slots.take()
	s.core, s.state, s.flags, s.fd = c, stateOpen, flagOpened|flagParks, -1
	s.ip, s.port, s.lastInput = from.ip, from.port, c.now.Load()
	s.http = &exchange{framing: f}
	s.out = &outbox{}
	c.writer.backlog.has(s)
	return s
}

// Heard notes that the peer sent something by another connection.
func (c *Conn) Heard() { c.lastInput = c.core.now.Load() }

// Take removes from a parked connection what is queued, whole frames of up to
// most bytes but at least one frame, and returns it; nil if there is nothing.
func (c *Conn) Take(most int) []byte {
	if !c.Parked() {
		return nil
	}
	w := &c.core.writer
	if c.dirty { // queued in this turn
		w.write(c)
		if !c.Parked() {
			return nil // too much
		}
	}
	taken := c.out.take(most)
	w.backlog.changed(c.out)
	c.deadline = 0
	if !c.out.empty() {
		w.ages(c)
	}
	return taken
}

// take removes whole items of up to most bytes, but at least one.
func (o *outbox) take(most int) []byte {
	n, size := 0, 0
	for _, it := range o.items[o.next:] {
		if n > 0 && size+len(it.bytes) > most {
			break
		}
		n++
		size += len(it.bytes)
	}
	if n == 0 {
		return nil
	}
	taken := make([]byte, 0, size)
	for _, it := range o.items[o.next : o.next+n] {
		taken = append(taken, it.bytes...)
	}
	o.advance(size)
	return taken
}

// restart has a frame that was begun written again from its start: nobody
// could do anything with the half of it.
func (o *outbox) restart() {
	o.bytes += o.offset
	o.offset = 0
}

// park takes the socket from an open connection.
func (c *core) park(s *Conn) {
	if s.pipe != nil {
		s.pipe.Close()
		s.pipe = nil
		c.shedder.pipes--
	} else if err := netpoll.CloseFD(int(s.fd)); err != nil {
		c.log.Error("close socket", "err", err)
	}
	s.fd = -1
	if s.out == nil {
		s.out = &outbox{}
		c.writer.backlog.has(s)
	}
	s.out.restart()
	c.writer.backlog.changed(s.out)
	c.parked = append(c.parked, s.Handle())
}

// ages sets the time at which what waits in the outbox is too old.
func (w *writer) ages(s *Conn) {
	s.deadline = s.out.oldest() + int64(w.core.cfg.OutboxAgeMax)
	w.core.wheel.arm(s)
}

// waits takes note of what was queued for a parked connection.
func (w *writer) waits(s *Conn) {
	if s.out.empty() {
		return
	}
	if s.deadline == 0 {
		w.ages(s)
	}
	w.core.ready = append(w.core.ready, s.Handle())
}

// keepUnsent makes an outbox of a turn's output whose socket was lost.
func (w *writer) keepUnsent(s *Conn) {
	s.out = &outbox{}
	w.gather.moveTo(s.out, 0, w.core.now.Load())
	w.backlog.has(s)
}

// tellParked calls Parked and Ready for those that are due.
func (c *core) tellParked() {
	for len(c.parked)+len(c.ready) > 0 {
		parked, ready := c.parked, c.ready
		c.parked, c.ready = nil, nil
		for _, h := range parked {
			if s := c.Conn(h); s != nil {
				c.guard.parked(s)
			}
		}
		for _, h := range ready {
			if s := c.Conn(h); s != nil && s.Parked() && !s.out.empty() {
				c.guard.ready(s)
			}
		}
	}
}

// Unplug closes the socket of a connection that parks: its client comes by
// another one. Parked is called as if the socket had been lost.
func (c *Conn) Unplug() {
	if c.state == stateOpen && c.flags&flagParks != 0 && !c.Parked() {
		c.core.park(c)
	}
}
