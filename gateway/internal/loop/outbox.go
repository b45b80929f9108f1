package loop

// itemOverheadBytes is added to each item's size: many small frames must not
// cost more than the limit says.
const itemOverheadBytes = 32

// outbox is what a connection's kernel buffer had no room for: references to
// shared frames, and copies of private ones. It exists only while there is
// something in it.
type outbox struct {
	items  []item
	next   int // first item that isn't written
	offset int // bytes of it that are
	bytes  int // unwritten, with overhead
	answer int // bytes of the largest private item since the outbox was empty
	// of the loop's backlog
	place   int
	counted int // bytes that are in its sum
}

// item is one piece, queued at a loop time.
type item struct {
	bytes []byte
	at    int64
}

// add appends b, of which skip bytes have been written already: only the
// first item of an outbox can have that.
func (o *outbox) add(b []byte, skip int, now int64) {
	o.items = append(o.items, item{b, now})
	o.bytes += len(b) - skip + itemOverheadBytes
	if skip > 0 {
		o.offset = skip
	}
}

// pieces adds the first unwritten pieces to g and returns their bytes.
func (o *outbox) pieces(g *gather, most int) int {
	total, offset := 0, o.offset
	for _, it := range o.items[o.next:min(len(o.items), o.next+most)] {
		g.add(it.bytes[offset:], false)
		total += len(it.bytes) - offset
		offset = 0
	}
	return total
}

// advance forgets n written bytes.
func (o *outbox) advance(n int) {
	o.bytes -= n
	o.offset += n
	for o.next < len(o.items) && o.offset >= len(o.items[o.next].bytes) {
		o.offset -= len(o.items[o.next].bytes)
		o.items[o.next] = item{}
		o.next++
		o.bytes -= itemOverheadBytes
	}
	if o.empty() {
		o.answer = 0
	}
	if o.next > 64 && o.next > len(o.items)/2 {
		n := copy(o.items, o.items[o.next:])
		clear(o.items[n:])
		o.items, o.next = o.items[:n], 0
	}
}

func (o *outbox) empty() bool { return o.next == len(o.items) }

// oldest is when the first unwritten item was queued.
func (o *outbox) oldest() int64 { return o.items[o.next].at }

// keepBegun drops everything that has not begun to be written, and returns
// whether a frame remains that has.
func (o *outbox) keepBegun() {
	items := make([]item, 0, 2)
	if o.offset > 0 && !o.empty() {
		items = append(items, o.items[o.next])
	}
	o.bytes = 0
	for _, it := range items {
		o.bytes += len(it.bytes) - o.offset + itemOverheadBytes
	}
	o.items, o.next = items, 0
}

// outboxBytes closes a connection as slow whose outbox is over its limit of
// bytes. One message of its own, which is what the client asked for, may wait
// besides: it may be larger than the limit, and the client read as fast as any.
func (w *writer) outboxBytes(s *Conn) {
	if s.out.bytes <= w.core.cfg.OutboxBytesMax {
		return
	}
	switch s.state {
	case stateOpen:
		if s.out.bytes <= w.core.cfg.OutboxBytesMax+s.out.answer {
			return
		}
		w.core.stats.slowBytes.Add(1)
		w.tooSlow(s)
	case stateHead, stateBody, stateAnswer: // asks and asks, and doesn't read
		w.core.stats.slowBytes.Add(1)
		w.core.kill(s)
	}
}

// outboxAge does the same for the age, or sets the next deadline.
func (w *writer) outboxAge(s *Conn, now int64) {
	if s.out == nil || s.out.empty() {
		return
	}
	due := s.out.oldest() + int64(w.core.cfg.OutboxAgeMax)
	if due > now {
		s.deadline = due
		return
	}
	w.core.stats.slowAge.Add(1)
	w.tooSlow(s)
}

// tooSlow closes a connection that doesn't read. What it didn't read is
// dropped at once, but for a frame that is half written; then it gets the
// close frame, if it reads again within the close timeout.
func (w *writer) tooSlow(s *Conn) {
	code, reason := w.core.guard.slowClose(s)
	if s.state != stateOpen {
		return // aborted by the handler
	}
	s.dirty, s.first, s.head, s.tail = false, nil, 0, 0
	s.out.keepBegun()
	if bytes := s.appendClose(nil, code, reason); len(bytes) > 0 {
		s.out.add(bytes, 0, w.core.now.Load())
	}
	w.backlog.changed(s.out)
	w.core.end(s, Closure{Cause: CauseSlow, Code: code, Reason: reason})
	w.core.linger(s, stateDraining, afterShutdown)
}
