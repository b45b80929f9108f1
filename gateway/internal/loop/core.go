package loop

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/netpoll"
	"github.com/carillon-rt/carillon/gateway/internal/ws"
)

const (
	eventsPerTurn = 256
	timersPerTurn = 4_096
)

// callbacks are the methods of Handler that don't depend on its mail.
type callbacks interface {
	Request(c *Conn, head *Head) Verdict
	Open(c *Conn)
	Message(c *Conn, text bool, payload []byte)
	Closed(c *Conn, why Closure)
	Tick(c *Conn, now int64)
	EndTurn()
}

// mailer delivers the loop's mail; it knows the type that core doesn't.
type mailer interface {
	// deliver hands over a turn's worth.
	deliver()
	// waiting reports whether there is more.
	waiting() bool
}

// core is a loop without the type of its mail.
type core struct {
	// immutable after New
	cfg     Config
	log     *slog.Logger
	handler callbacks
	slow    SlowCloser // nil if the handler isn't one
	mail    mailer
	poller  netpoll.Poller
	started time.Time

	// owned by the loop
	slots   slots
	wheel   wheel
	events  []netpoll.Event
	input   []byte // the one read buffer
	request Head
	decoder *ws.Decoder
	dirty   []int32 // slots with something to write
	urgent  []int32 // the same, of the slices of a flush
	ended   []ended // connections whose Closed is due
	killed  []int32 // sockets closed in this turn
	arena   arena
	nodes   []node
	gather  gather
	turn    turnCounts

	// goroutine-safe
	arrivals arrivals
	stats    counters
	group    sync.WaitGroup // goroutines of pipes

	// atomic
	now      atomic.Int64
	sleeping atomic.Bool
	stopping atomic.Bool
}

// ended is a connection that ended for the handler.
type ended struct {
	slot int32
	why  Closure
}

// init fills what the zero value lacks.
func (c *core) init(cfg Config, h callbacks, m mailer, poller netpoll.Poller) {
	c.cfg, c.log, c.handler, c.mail, c.poller = cfg, cfg.Log, h, m, poller
	c.slow, _ = h.(SlowCloser)
	c.started = time.Now()
	c.wheel.slots = &c.slots
	c.events = make([]netpoll.Event, eventsPerTurn)
	c.input = make([]byte, cfg.ReadBuffer)
	c.decoder = ws.NewDecoder(cfg.MessageBytesMax)
	c.nodes = make([]node, 1)
	c.arrivals.init(c.wake)
}

// Now is the loop's monotonic time in nanoseconds as of the current turn. It
// may be called from any goroutine.
func (c *core) Now() int64 { return c.now.Load() }

// Conn returns the connection of a handle, or nil if it has ended.
func (c *core) Conn(h Handle) *Conn {
	if int(h.Loop) != c.cfg.Index || !c.slots.has(h.Slot) {
		return nil
	}
	s := c.slots.at(h.Slot)
	if s.gen != h.Gen || s.state != stateOpen {
		return nil
	}
	return s
}

// ConnAt returns the connection in a slot, without asking whose it is: for
// subscriber lists, which hold the slots of connections between Open and
// Closed. Sending to one that has ended meanwhile does nothing.
func (c *core) ConnAt(slot int32) *Conn { return c.slots.at(slot) }

// wake makes the loop look for work, with one system call if it sleeps and
// none if it doesn't.
func (c *core) wake() {
	if c.sleeping.Load() && c.sleeping.CompareAndSwap(true, false) {
		c.poller.Wake()
	}
}

// run turns until the loop is told to stop.
func (c *core) run() error {
	for !c.stopping.Load() {
		if err := c.oneTurn(); err != nil {
			return err
		}
	}
	return nil
}

// oneTurn is: wait, read, mail, timers, EndTurn, write.
func (c *core) oneTurn() error {
	n, err := c.wait()
	if err != nil {
		return err
	}
	began := c.tick()
	c.admitArrivals()
	c.handleEvents(c.events[:n])
	c.reap()
	c.mail.deliver()
	c.wheel.advance(began, timersPerTurn, c.timer)
	c.reap()
	c.callEndTurn()
	err = c.flush()
	c.reap()
	c.freeKilled()
	c.stats.publish(&c.turn, c.tick()-began)
	return err
}

// wait waits for events, unless there is work already.
func (c *core) wait() (int, error) {
	timeout := time.Duration(-1)
	if next := c.wheel.next(); next >= 0 {
		timeout = max(time.Duration(next-c.tick()), 0)
	}
	if len(c.dirty) > 0 {
		timeout = 0
	}
	if timeout != 0 {
		// Whoever posts after this sees sleeping and wakes; what was posted
		// before is seen here.
		c.sleeping.Store(true)
		if c.mail.waiting() || c.arrivals.waiting() || c.stopping.Load() {
			timeout = 0
		}
	}
	n, err := c.poller.Wait(c.events, timeout)
	c.sleeping.Store(false)
	if err != nil {
		return 0, fmt.Errorf("loop %d: %w", c.cfg.Index, err)
	}
	return n, nil
}

// tick reads the clock.
func (c *core) tick() int64 {
	// Loop time starts above 0, because a timer at 0 is none.
	now := int64(time.Since(c.started)) + 1
	c.now.Store(now)
	return now
}

func (c *core) handleEvents(events []netpoll.Event) {
	for i := range events {
		ev := &events[i]
		s := c.slots.at(ev.Slot)
		if s.gen != ev.Gen || s.state == stateFree || s.state == stateDead || s.flags&flagDetached != 0 {
			continue
		}
		if ev.Writable && s.out != nil {
			c.drain(s)
		}
		if ev.Readable && s.state != stateDead {
			c.readable(s)
		}
	}
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
		c.callTick(s, now)
	}
}

// deadlineCame acts on the deadline that the connection's state set.
func (c *core) deadlineCame(s *Conn, now int64) {
	switch s.state {
	case stateHead:
		c.stats.headTimeouts.Add(1)
		if s.partial == nil {
			c.kill(s)
			return
		}
		c.refuse(s, 408, "the request head did not arrive in time")
	case stateOpen:
		c.outboxAge(s, now)
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
		c.ended = append(c.ended, ended{s.slot, why})
	}
}

// linger leaves the socket open for a while after the end: to finish writing,
// and to let the peer read what was written before it sees the socket closed.
func (c *core) linger(s *Conn, st state, then after) {
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

// lost ends a connection whose socket failed or ended.
func (c *core) lost(s *Conn, err error) {
	if s.state == stateOpen {
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
	switch {
	case s.flags&flagDetached != 0:
	case s.pipe != nil:
		s.pipe.Close()
	default:
		if err := netpoll.CloseFD(int(s.fd)); err != nil {
			c.log.Error("close socket", "err", err)
		}
	}
	s.state, s.after, s.dirty = stateDead, afterNothing, false
	s.first, s.out, s.partial, s.head, s.tail = nil, nil, nil, 0, 0
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
			c.callClosed(s, e.why)
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
		c.slots.release(s)
	}
	c.killed = c.killed[:0]
	c.slots.endTurn()
}

// stop closes everything: open connections get a close frame as far as the
// kernel takes it.
func (c *core) stop() error {
	c.arrivals.close()
	goodbye := ws.AppendClose(nil, ws.CloseGoingAway, "")
	for slot := range int32(len(c.slots.pages) * pageSlots) {
		s := c.slots.at(slot)
		if s.state == stateOpen {
			if s.out == nil {
				_, _ = s.send(goodbye) // a courtesy
			}
			c.end(s, Closure{Cause: CauseShutdown, Code: ws.CloseGoingAway})
		}
		c.kill(s)
	}
	c.reap()
	c.freeKilled()
	c.group.Wait()
	return errors.Join(c.poller.Close())
}
