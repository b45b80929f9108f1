package loop

import (
	"context"
	"errors"
	"net"
	"sync"

	"github.com/carillon-rt/carillon/gateway/internal/netpoll"
)

const (
	// acceptBatch is how many connections a loop accepts before it looks
	// after those that it has.
	acceptBatch = 64
	// doorSlot is the slot of a loop's first door; the others are below it.
	doorSlot = -2
	// balanceShare is the share of its connections (1/64) by which a loop may
	// be ahead of the emptiest before it gives away what it accepts.
	balanceShare = 64
)

// doors are the listeners whose sockets a loop watches.
type doors struct {
	mu sync.Mutex
	// guarded by mu
	listeners []*Listener // by number; nil where one was closed
	closed    bool        // the loop has stopped, its poller is going
}

// trouble is an error that kept a loop from accepting; it does not watch the
// listener until Run has dealt with it.
type trouble struct {
	loop *core
	slot int32
	err  error
}

// open has the loop accept from l and returns the door's slot. A loop that
// has stopped ignores it.
func (c *core) open(l *Listener) (slot int32, err error) {
	d := &c.doors
	d.mu.Lock()
	defer d.mu.Unlock()
	number := 0
	for number < len(d.listeners) && d.listeners[number] != nil {
		number++
	}
	if number == len(d.listeners) {
		d.listeners = append(d.listeners, nil)
	}
	d.listeners[number] = l
	slot = doorSlot - int32(number)
	if d.closed {
		return slot, nil
	}
	return slot, l.fds.Watch(c.poller, slot, netpoll.None, netpoll.Incoming)
}

// close ends a door, with an event that may be on its way. The poller has
// forgotten the socket with its listener's Close.
func (d *doors) close(slot int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.listeners[doorSlot-slot] = nil
}

// stop is called before the loop's poller is closed.
func (d *doors) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
}

// at is the listener behind a slot, nil if it was closed.
func (d *doors) at(slot int32) *Listener {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.listeners[doorSlot-slot]
}

// accept takes connections that wait at a door.
func (c *core) accept(slot int32) {
	l := c.doors.at(slot)
	if l == nil {
		return
	}
	for range acceptBatch {
		a, err := l.fds.Accept()
		if err == nil {
			l.seat(c, arrival{fd: a.FD, addr: a.Addr})
			continue
		}
		if err != netpoll.ErrAgain && err != net.ErrClosed {
			l.report(trouble{c, slot, err})
		}
		return
	}
}

// seat gives what the loop c has accepted to the loop with the fewest
// connections, which is c itself as long as it is not much ahead: then it
// costs no lock and no wake-up.
func (l *Listener) seat(c *core, a arrival) {
	if len(l.loops) > 1 {
		ahead := c.load()
		if ahead < int64(c.cfg.ConnectionsMax) {
			ahead -= ahead / balanceShare
		}
		if best := l.leastLoaded(); best != nil && best != c && best.load() < ahead && best.arrivals.add(a) {
			return
		}
	}
	c.admit(a)
}

// report has Run deal with what keeps a loop from accepting. Until then the
// loop does not watch the socket, which would be reported at once.
func (l *Listener) report(t trouble) {
	if err := l.fds.Watch(t.loop.poller, t.slot, netpoll.Incoming, netpoll.None); err != nil {
		return // closed
	}
	l.troubles <- t // has room: one for each loop
}

// runDoors opens a door in every loop until Close.
func (l *Listener) runDoors(ctx context.Context) error {
	slots := make([]int32, 0, len(l.loops))
	defer func() {
		for i, slot := range slots {
			l.loops[i].doors.close(slot)
		}
	}()
	for _, c := range l.loops {
		slot, err := c.open(l)
		slots = append(slots, slot)
		if err != nil {
			return unlessClosed(err)
		}
	}
	for {
		select {
		case <-l.closed:
			return nil
		case t := <-l.troubles:
			l.retry(ctx, t.err)
			if err := t.reopen(l); err != nil {
				return unlessClosed(err)
			}
		}
	}
}

// reopen has the loop accept again.
func (t *trouble) reopen(l *Listener) error {
	c := t.loop
	c.doors.mu.Lock()
	defer c.doors.mu.Unlock()
	if c.doors.closed {
		return nil
	}
	return l.fds.Watch(c.poller, t.slot, netpoll.None, netpoll.Incoming)
}

func unlessClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
