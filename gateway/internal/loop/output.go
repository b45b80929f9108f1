package loop

import (
	"bytes"

	"github.com/carillon-rt/carillon/gateway/internal/netpoll"
	"github.com/carillon-rt/carillon/gateway/internal/ws"
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

// writer keeps what a turn queued for the loop's connections, and writes it.
type writer struct {
	core *core // immutable after New

	// owned by the loop
	dirty   []int32 // slots with something to write
	urgent  []int32 // the same, of the slices of a flush
	sliced  bool    // the last flush was cut
	arena   arena
	nodes   []node
	gather  gather
	backlog backlog
}

func (w *writer) init(c *core) {
	w.core = c
	w.nodes = make([]node, 1)
}

// pending reports whether a connection has something to write.
func (w *writer) pending() bool { return len(w.dirty) > 0 }

// queuePrivate queues bytes of the arena.
func (w *writer) queuePrivate(s *Conn, b []byte) { w.queue(s, b, true) }

// queue adds a piece to the connection's list and marks it dirty.
func (w *writer) queue(s *Conn, b []byte, private bool) {
	if !s.dirty {
		s.dirty = true
		w.dirty = append(w.dirty, s.slot)
	}
	w.nodes = append(w.nodes, node{bytes: b, private: private})
	i := int32(len(w.nodes) - 1)
	if s.head == 0 {
		s.head = i
	} else {
		w.nodes[s.tail].next = i
	}
	s.tail = i
}

// frame queues a frame with a copy of payload.
func (w *writer) frame(s *Conn, op ws.Op, payload []byte) {
	w.queuePrivate(s, w.arena.frame(op, payload))
}

// upgrade queues the answer to a handshake.
func (w *writer) upgrade(s *Conn, head *Head, protocol string) {
	start := w.arena.reserve(256 + len(protocol))
	w.arena.chunk = ws.AppendUpgrade(w.arena.chunk, head, protocol)
	w.queuePrivate(s, w.arena.chunk[start:len(w.arena.chunk):len(w.arena.chunk)])
}

// framed queues a copy of payload in the framing of a stream. The first copy
// is for all other connections: what is given to an interface is on the heap.
func (w *writer) framed(s *Conn, payload []byte) {
	copied := w.arena.copy(payload)
	start := w.arena.reserve(ws.HeaderBytesMax + 2*len(payload))
	w.arena.chunk = s.http.framing.Append(w.arena.chunk, copied)
	w.queuePrivate(s, w.arena.chunk[start:len(w.arena.chunk):len(w.arena.chunk)])
}

// closeFrame queues a close frame, or what a stream has for it.
func (w *writer) closeFrame(s *Conn, code int, reason string) {
	start := w.arena.reserve(ws.HeaderBytesMax + 2 + ws.ReasonBytesMax)
	w.arena.chunk = s.appendClose(w.arena.chunk, code, reason)
	if len(w.arena.chunk) > start {
		w.queuePrivate(s, w.arena.chunk[start:len(w.arena.chunk):len(w.arena.chunk)])
	}
}

func (c *Conn) appendClose(dst []byte, code int, reason string) []byte {
	if c.http != nil {
		return c.http.framing.AppendClose(dst, code, reason)
	}
	return ws.AppendClose(dst, code, reason)
}

// flush writes every dirty connection once. A long one is cut into slices,
// with input in between whose answers are written at once.
func (w *writer) flush() error {
	sends := 0
	for i := 0; i < len(w.dirty); i++ {
		s := w.core.slots.at(w.dirty[i])
		if !s.dirty {
			continue
		}
		w.write(s)
		sends++
		if sends == w.core.cfg.MaxSends && i+1 < len(w.dirty) {
			sends = 0
			if err := w.slice(); err != nil {
				return err
			}
		}
	}
	w.dirty = w.dirty[:0]
	if cap(w.nodes) > nodesKeep {
		w.nodes = make([]node, 1)
	}
	clear(w.nodes)
	w.nodes = w.nodes[:1]
	w.arena.reset()
	return nil
}

// slice reads what came in during a flush and writes the answers.
func (w *writer) slice() error {
	w.core.turn.slices++
	w.sliced = true
	rest := w.dirty
	w.dirty = w.urgent[:0]
	err := w.core.serve()
	for i := 0; i < len(w.dirty); i++ {
		if s := w.core.slots.at(w.dirty[i]); s.dirty {
			w.write(s)
		}
	}
	w.urgent, w.dirty = w.dirty, rest
	return err
}

// write writes what the turn queued for a connection.
func (w *writer) write(s *Conn) {
	s.dirty = false
	f := s.first
	if f == nil || s.head != 0 || s.out != nil {
		w.writeMany(s)
		return
	}
	s.first = nil
	n, err := s.send(f.Bytes)
	w.core.turn.writes++
	if n == len(f.Bytes) {
		w.core.turn.bytesOut += int64(n)
		if s.state != stateOpen {
			w.core.written(s)
		}
		return
	}
	w.gather.add(f.Bytes, false)
	w.wrote(s, n, err)
}

// writeMany writes several pieces, or private ones, or adds to an outbox.
func (w *writer) writeMany(s *Conn) {
	total := w.collect(s)
	if s.out != nil {
		w.gather.moveTo(s.out, 0, w.core.now.Load())
		w.backlog.changed(s.out)
		if s.Parked() {
			w.waits(s)
		}
		w.outboxBytes(s)
		return
	}
	var n int
	var err error
	w.core.turn.writes++
	switch g := &w.gather; {
	case len(g.pieces) == 1:
		n, err = s.send(g.pieces[0])
	case total <= joinBytesMax || s.pipe != nil:
		n, err = s.send(g.join())
	default:
		n, err = g.vector.SendAllFD(int(s.fd), g.pieces)
	}
	if n < total {
		w.wrote(s, n, err)
		return
	}
	w.gather.reset()
	w.core.turn.bytesOut += int64(n)
	if s.state != stateOpen {
		w.core.written(s)
	}
}

// collect moves the connection's pieces of this turn to gather and returns
// their bytes.
func (w *writer) collect(s *Conn) int {
	total := 0
	if s.first != nil {
		w.gather.add(s.first.Bytes, false)
		total += len(s.first.Bytes)
	}
	for i := s.head; i != 0; i = w.nodes[i].next {
		w.gather.add(w.nodes[i].bytes, w.nodes[i].private)
		total += len(w.nodes[i].bytes)
	}
	s.first, s.head, s.tail = nil, 0, 0
	return total
}

// wrote deals with a write of which only n bytes, or none, were taken: the
// rest of gather becomes the connection's outbox.
func (w *writer) wrote(s *Conn, n int, err error) {
	defer w.gather.reset()
	w.core.turn.bytesOut += int64(n)
	if err != nil && err != netpoll.ErrAgain {
		if s.flags&flagParks != 0 {
			w.keepUnsent(s)
		}
		w.core.lost(s, err)
		return
	}
	w.core.stats.wouldBlock.Add(1)
	now := w.core.now.Load()
	s.out = &outbox{}
	w.gather.moveTo(s.out, n, now)
	w.backlog.has(s)
	if err := s.watch(netpoll.Read, netpoll.ReadWrite); err != nil {
		w.core.lost(s, err)
		return
	}
	if s.state == stateOpen {
		s.deadline = now + int64(w.core.cfg.OutboxAgeMax)
		w.core.wheel.arm(s)
	}
	w.outboxBytes(s)
}

// drain writes from the outbox what the kernel takes now.
func (w *writer) drain(s *Conn) {
	for range drainRounds {
		if s.out.empty() { // a stream that was too slow, and has no words for it
			w.unblocked(s)
			return
		}
		offered := s.out.pieces(&w.gather, drainPieces)
		n, err := w.writeGathered(s)
		w.gather.reset()
		w.core.turn.writes++
		w.core.turn.bytesOut += int64(n)
		s.out.advance(n)
		w.backlog.changed(s.out)
		if err != nil && err != netpoll.ErrAgain {
			w.core.lost(s, err)
			return
		}
		if s.out.empty() {
			w.unblocked(s)
			return
		}
		if n < offered {
			return
		}
	}
	if s.pipe != nil { // a descriptor is reported again, a pipe is not
		w.core.poller.Notify(netpoll.Event{Slot: s.slot, Gen: s.gen, Writable: true})
	}
}

// writeGathered writes the pieces in gather, in one system call if it can.
func (w *writer) writeGathered(s *Conn) (int, error) {
	if s.pipe == nil {
		return w.gather.vector.SendAllFD(int(s.fd), w.gather.pieces)
	}
	total := 0
	for _, p := range w.gather.pieces {
		n, err := s.pipe.Send(p)
		total += n
		if err != nil || n < len(p) {
			return total, err
		}
	}
	return total, nil
}

// unblocked ends the time of an outbox.
func (w *writer) unblocked(s *Conn) {
	w.backlog.gone(s, w.core.slots.at)
	s.out = nil
	if err := s.watch(netpoll.ReadWrite, netpoll.Read); err != nil {
		w.core.lost(s, err)
		return
	}
	if s.state == stateOpen {
		s.deadline = 0
	} else {
		w.core.written(s)
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
			o.answer = max(o.answer, len(p))
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
