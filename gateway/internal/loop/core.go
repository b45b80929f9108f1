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

// mailer delivers the loop's mail; it knows the type that core doesn't.
type mailer interface {
	// deliver hands over a turn's worth.
	deliver()
	// waiting reports whether there is more.
	waiting() bool
}

// core is a loop without the type of its mail: its turn, and the lives of its
// connections (life.go). What it reads, writes and tells the handler belongs
// to its reader, writer and guard.
type core struct {
	// immutable after New
	cfg     Config
	log     *slog.Logger
	mail    mailer
	poller  netpoll.Poller
	started time.Time
	guard   guard

	// owned by the loop
	slots   slots
	wheel   wheel
	reader  reader
	writer  writer
	events  []netpoll.Event
	ended   []ended  // connections whose Closed is due
	parked  []Handle // connections whose Parked is due
	ready   []Handle // the same, of Ready
	killed  []int32  // sockets closed in this turn
	turn    turnCounts
	shedder shedder

	// goroutine-safe
	arrivals arrivals
	doors    doors
	stats    counters
	group    sync.WaitGroup // goroutines of pipes

	// atomic
	now      atomic.Int64
	sleeping atomic.Bool
	stopping atomic.Bool
}

// init fills what the zero value lacks.
func (c *core) init(cfg Config, h callbacks, m mailer, poller netpoll.Poller) {
	c.cfg, c.log, c.mail, c.poller = cfg, cfg.Log, m, poller
	c.started = time.Now()
	c.guard.init(&c.cfg, h, &c.stats.panics)
	c.wheel.slots = &c.slots
	c.reader.init(c)
	c.writer.init(c)
	c.events = make([]netpoll.Event, eventsPerTurn)
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

// Each calls f with every open connection. f may end any of them.
func (c *core) Each(f func(*Conn)) {
	for page := 0; c.EachOfPage(page, f); page++ {
	}
}

// EachOfPage calls f for the open connections of one page of slots, so that a
// look at all of them can be made in many turns. It says whether there is that
// page: they are numbered from 0 and only ever become more.
func (c *core) EachOfPage(number int, f func(*Conn)) bool {
	if number >= len(c.slots.pages) {
		return false
	}
	page := c.slots.pages[number]
	for i := range page {
		if page[i].state == stateOpen {
			f(&page[i])
		}
	}
	return true
}

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
	c.guard.endTurn()
	err = c.writer.flush()
	c.shed()
	c.tellParked()
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
	if c.writer.pending() || c.writer.sliced { // what came between the slices of a flush has had no EndTurn
		timeout = 0
	}
	c.writer.sliced = false
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

// serve handles the input that is there, in the middle of a flush.
func (c *core) serve() error {
	n, err := c.poller.Wait(c.events, 0)
	c.tick()
	c.handleEvents(c.events[:n])
	c.reap()
	return err
}

func (c *core) handleEvents(events []netpoll.Event) {
	for i := range events {
		ev := &events[i]
		if ev.Slot < 0 {
			c.accept(ev.Slot)
			continue
		}
		s := c.slots.at(ev.Slot)
		if s.gen != ev.Gen || s.state == stateFree || s.state == stateDead || s.flags&flagDetached != 0 || s.Parked() {
			continue
		}
		if ev.Writable && s.out != nil {
			c.writer.drain(s)
		}
		if ev.Readable && s.state != stateDead {
			c.reader.readable(s)
		}
	}
}

// stop closes everything: open connections get a close frame as far as the
// kernel takes it.
func (c *core) stop() error {
	c.arrivals.close()
	c.doors.stop()
	for slot := range int32(len(c.slots.pages) * pageSlots) {
		s := c.slots.at(slot)
		if s.state == stateOpen {
			if s.out == nil {
				_, _ = s.send(s.appendClose(nil, ws.CloseGoingAway, "")) // a courtesy
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
