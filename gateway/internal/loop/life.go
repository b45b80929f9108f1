package loop

import (
	"github.com/carillon-rt/carillon/gateway/internal/netpoll"
	"github.com/carillon-rt/carillon/gateway/internal/ws"
)

// ended is a connection that ended for the handler.
type ended struct {
	slot    int32
	request bool // it was a request that is not answered
	why     Closure
}

// timer looks at a connection whose timer or deadline may have come.
func (c *core) timer(s *Conn) {
	now := c.now.Load()
	if s.deadline != 0 && s.deadline <= now {
		s.deadline = 0
		c.deadlineCame(s, now)
	}
	if s.timerAt != 0 && s.timerAt <= now && s.state == stateOpen {
		s.timerAt = 0
		c.guard.tick(s, now)
	}
}

// deadlineCame acts on the deadline that the connection's state set.
func (c *core) deadlineCame(s *Conn, now int64) {
	switch s.state {
	case stateHead:
		c.stats.headTimeouts.Add(1)
		if s.http == nil {
			c.kill(s)
			return
		}
		c.refuse(s, 408, "the request head did not arrive in time")
	case stateBody:
		c.stats.headTimeouts.Add(1)
		c.abandon(s)
		c.refuse(s, 408, "the request body did not arrive in time")
	case stateAnswer:
		c.abandon(s)
		c.refuse(s, 503, "the request could not be answered in time")
	case stateOpen:
		c.writer.outboxAge(s, now)
	case stateClosing, stateDraining:
		c.kill(s)
	}
}

// end ends a connection for the handler: Closed is called soon.
func (c *core) end(s *Conn, why Closure) {
	if s.flags&flagEnded != 0 {
		return
	}
	s.flags |= flagEnded
	s.timerAt = 0
	if s.flags&flagOpened != 0 {
		c.stats.closed[why.Cause].Add(1)
		c.ended = append(c.ended, ended{slot: s.slot, why: why})
	}
}

// linger leaves the socket open for a while after the end: to finish writing,
// and to let the peer read what was written before it sees the socket closed.
func (c *core) linger(s *Conn, st state, then after) {
	if s.Parked() {
		c.kill(s) // there is nobody to wait for
		return
	}
	s.state, s.after = st, then
	s.deadline = c.now.Load() + int64(c.cfg.CloseTimeout)
	c.wheel.arm(s)
	if !s.dirty && s.out == nil {
		c.written(s)
	}
}

// written does what was to be done when everything has been written.
func (c *core) written(s *Conn) {
	switch s.after {
	case afterNothing:
	case afterClose:
		c.kill(s)
	case afterShutdown:
		s.after = afterNothing
		if s.pipe != nil {
			s.pipe.CloseWrite()
		} else if netpoll.ShutdownFD(int(s.fd)) != nil {
			c.kill(s)
		}
	}
}

// fail ends a connection with a close frame and without waiting for the
// peer's.
func (c *core) fail(s *Conn, why Closure) {
	c.writer.closeFrame(s, why.Code, why.Reason)
	c.end(s, why)
	c.linger(s, stateDraining, afterShutdown)
}

// refuse answers a request with a status and closes.
func (c *core) refuse(s *Conn, status int, text string) {
	if status < 200 || status > 599 {
		status = 500
	}
	c.stats.refused.Add(1)
	c.writer.queuePrivate(s, refusal(status, text))
	c.linger(s, stateDraining, afterShutdown)
}

// lost ends a connection whose socket failed or ended.
func (c *core) lost(s *Conn, err error) {
	switch {
	case s.state != stateOpen:
	case s.flags&flagParks != 0:
		c.park(s)
		return
	default:
		c.end(s, Closure{Cause: CauseLost, Code: ws.CloseAbnormal, Reason: err.Error()})
	}
	c.kill(s)
}

// kill closes the socket. The slot is freed at the end of the turn.
func (c *core) kill(s *Conn) {
	if s.state == stateDead || s.state == stateFree {
		return
	}
	if s.state == stateOpen {
		c.end(s, Closure{Cause: CauseAborted, Code: ws.CloseAbnormal})
	}
	c.abandon(s)
	switch {
	case s.flags&flagDetached != 0 || s.Parked():
	case s.pipe != nil:
		s.pipe.Close()
	default:
		if err := netpoll.CloseFD(int(s.fd)); err != nil {
			c.log.Error("close socket", "err", err)
		}
	}
	s.state, s.after, s.dirty = stateDead, afterNothing, false
	c.writer.backlog.gone(s, c.slots.at)
	s.first, s.out, s.http, s.head, s.tail = nil, nil, nil, 0, 0
	s.timerAt, s.deadline = 0, 0
	s.reader = ws.Reader{}
	c.wheel.unlink(s)
	c.killed = append(c.killed, s.slot)
}

// reap calls Closed for the connections that ended.
func (c *core) reap() {
	for len(c.ended) > 0 {
		batch := c.ended
		c.ended = nil
		for _, e := range batch {
			s := c.slots.at(e.slot)
			if e.request {
				c.guard.abandoned(s)
			} else {
				c.guard.closed(s, e.why)
			}
			s.Data = nil
		}
	}
}

// freeKilled gives back the slots of closed sockets.
func (c *core) freeKilled() {
	for _, slot := range c.killed {
		s := c.slots.at(slot)
		if s.flags&flagOverflow != 0 {
			c.stats.overflowing.Add(-1)
		} else {
			c.stats.connections.Add(-1)
		}
		if s.pipe != nil {
			c.shedder.pipes--
		}
		c.slots.release(s)
	}
	c.killed = c.killed[:0]
	c.slots.endTurn()
}
