package loop

import (
	"bytes"

	"github.com/carillon-rt/carillon/gateway/internal/netpoll"
)

const (
	// joinBytesMax is up to where several pieces are copied into one buffer:
	// cheaper than a vector of small ones.
	joinBytesMax = 16 << 10
	// nodesKeep is how many nodes are kept between turns.
	nodesKeep = 64 << 10
	// drainPieces and drainRounds bound the writes of one writable event.
	drainPieces = 64
	drainRounds = 4
)

// node is a piece of output of this turn, in a connection's list.
type node struct {
	bytes   []byte
	next    int32
	private bool // bytes are in the arena: valid in this turn only
}

// gather is what writing one connection needs, reused for all.
type gather struct {
	pieces  [][]byte
	private []bool
	joined  []byte
	vector  netpoll.SendVector
}

// queuePrivate queues bytes of the arena.
func (c *core) queuePrivate(s *Conn, b []byte) { c.queue(s, b, true) }

// queue adds a piece to the connection's list and marks it dirty.
func (c *core) queue(s *Conn, b []byte, private bool) {
	if !s.dirty {
		s.dirty = true
		c.dirty = append(c.dirty, s.slot)
	}
	c.nodes = append(c.nodes, node{bytes: b, private: private})
	i := int32(len(c.nodes) - 1)
	if s.head == 0 {
		s.head = i
	} else {
		c.nodes[s.tail].next = i
	}
	s.tail = i
}

// flush writes every dirty connection once. A long one is cut into slices,
// with input in between whose answers are written at once.
func (c *core) flush() error {
	sends := 0
	for i := 0; i < len(c.dirty); i++ {
		s := c.slots.at(c.dirty[i])
		if !s.dirty {
			continue
		}
		c.write(s)
		sends++
		if sends == c.cfg.MaxSends && i+1 < len(c.dirty) {
			sends = 0
			if err := c.slice(); err != nil {
				return err
			}
		}
	}
	c.dirty = c.dirty[:0]
	if cap(c.nodes) > nodesKeep {
		c.nodes = make([]node, 1)
	}
	clear(c.nodes)
	c.nodes = c.nodes[:1]
	c.arena.reset()
	return nil
}

// slice reads what came in during a flush and writes the answers.
func (c *core) slice() error {
	c.turn.slices++
	rest := c.dirty
	c.dirty = c.urgent[:0]
	n, err := c.poller.Wait(c.events, 0)
	c.tick()
	c.handleEvents(c.events[:n])
	c.reap()
	for i := 0; i < len(c.dirty); i++ {
		if s := c.slots.at(c.dirty[i]); s.dirty {
			c.write(s)
		}
	}
	c.urgent, c.dirty = c.dirty, rest
	return err
}

// write writes what the turn queued for a connection.
func (c *core) write(s *Conn) {
	s.dirty = false
	f := s.first
	if f == nil || s.head != 0 || s.out != nil {
		c.writeMany(s)
		return
	}
	s.first = nil
	n, err := s.send(f.Bytes)
	c.turn.writes++
	if n == len(f.Bytes) {
		c.turn.bytesOut += int64(n)
		if s.state != stateOpen {
			c.written(s)
		}
		return
	}
	c.gather.add(f.Bytes, false)
	c.wrote(s, n, err)
}

// writeMany writes several pieces, or private ones, or adds to an outbox.
func (c *core) writeMany(s *Conn) {
	total := c.collect(s)
	if s.out != nil {
		c.gather.moveTo(s.out, 0, c.now.Load())
		c.outboxBytes(s)
		return
	}
	var n int
	var err error
	c.turn.writes++
	switch g := &c.gather; {
	case len(g.pieces) == 1:
		n, err = s.send(g.pieces[0])
	case total <= joinBytesMax || s.pipe != nil:
		n, err = s.send(g.join())
	default:
		n, err = g.vector.SendAllFD(int(s.fd), g.pieces)
	}
	if n < total {
		c.wrote(s, n, err)
		return
	}
	c.gather.reset()
	c.turn.bytesOut += int64(n)
	if s.state != stateOpen {
		c.written(s)
	}
}

// collect moves the connection's pieces of this turn to gather and returns
// their bytes.
func (c *core) collect(s *Conn) int {
	total := 0
	if s.first != nil {
		c.gather.add(s.first.Bytes, false)
		total += len(s.first.Bytes)
	}
	for i := s.head; i != 0; i = c.nodes[i].next {
		c.gather.add(c.nodes[i].bytes, c.nodes[i].private)
		total += len(c.nodes[i].bytes)
	}
	s.first, s.head, s.tail = nil, 0, 0
	return total
}

// wrote deals with a write of which only n bytes, or none, were taken: the
// rest of gather becomes the connection's outbox.
func (c *core) wrote(s *Conn, n int, err error) {
	defer c.gather.reset()
	c.turn.bytesOut += int64(n)
	if err != nil && err != netpoll.ErrAgain {
		c.lost(s, err)
		return
	}
	c.stats.wouldBlock.Add(1)
	now := c.now.Load()
	s.out = &outbox{}
	c.gather.moveTo(s.out, n, now)
	if err := c.watch(s, netpoll.Read, netpoll.ReadWrite); err != nil {
		c.lost(s, err)
		return
	}
	if s.state == stateOpen {
		s.deadline = now + int64(c.cfg.OutboxAgeMax)
		c.wheel.arm(s)
	}
	c.outboxBytes(s)
}

// watch changes what a descriptor is watched for; pipes report by themselves.
func (c *core) watch(s *Conn, from, to netpoll.Interest) error {
	if s.pipe != nil {
		return nil
	}
	return c.poller.Watch(int(s.fd), s.slot, s.gen, from, to)
}

// drain writes from the outbox what the kernel takes now.
func (c *core) drain(s *Conn) {
	for range drainRounds {
		offered := s.out.pieces(&c.gather, drainPieces)
		n, err := c.writeGathered(s)
		c.gather.reset()
		c.turn.writes++
		c.turn.bytesOut += int64(n)
		s.out.advance(n)
		if err != nil && err != netpoll.ErrAgain {
			c.lost(s, err)
			return
		}
		if s.out.empty() {
			c.unblocked(s)
			return
		}
		if n < offered {
			return
		}
	}
	if s.pipe != nil { // a descriptor is reported again, a pipe is not
		c.poller.Notify(netpoll.Event{Slot: s.slot, Gen: s.gen, Writable: true})
	}
}

// writeGathered writes the pieces in gather, in one system call if it can.
func (c *core) writeGathered(s *Conn) (int, error) {
	if s.pipe == nil {
		return c.gather.vector.SendAllFD(int(s.fd), c.gather.pieces)
	}
	total := 0
	for _, p := range c.gather.pieces {
		n, err := s.pipe.Send(p)
		total += n
		if err != nil || n < len(p) {
			return total, err
		}
	}
	return total, nil
}

// unblocked ends the time of an outbox.
func (c *core) unblocked(s *Conn) {
	s.out = nil
	if err := c.watch(s, netpoll.ReadWrite, netpoll.Read); err != nil {
		c.lost(s, err)
		return
	}
	if s.state == stateOpen {
		s.deadline = 0
	} else {
		c.written(s)
	}
}

// add appends a piece.
func (g *gather) add(b []byte, private bool) {
	g.pieces = append(g.pieces, b)
	g.private = append(g.private, private)
}

// join returns the pieces as one, valid until the next join.
func (g *gather) join() []byte {
	g.joined = g.joined[:0]
	for _, p := range g.pieces {
		g.joined = append(g.joined, p...)
	}
	return g.joined
}

// moveTo moves the pieces, without their first n bytes, to an outbox.
func (g *gather) moveTo(o *outbox, n int, now int64) {
	for i, p := range g.pieces {
		skip := min(n, len(p))
		n -= skip
		if skip == len(p) {
			continue
		}
		if g.private[i] {
			p = bytes.Clone(p) // whole, so that the outbox knows it was begun
		}
		o.add(p, skip, now)
	}
	g.reset()
}

// reset drops the pieces.
func (g *gather) reset() {
	clear(g.pieces)
	g.pieces, g.private = g.pieces[:0], g.private[:0]
	if cap(g.joined) > 4*joinBytesMax {
		g.joined = nil
	}
}
