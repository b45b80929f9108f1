package loop

import (
	"cmp"
	"slices"
)

const (
	// connectionBytes is what an open connection is taken to cost, its session
	// and its subscriptions included.
	connectionBytes = 1 << 10
	// pipeBytes is what a connection through a pipe, which is one with TLS, is
	// taken to cost besides: a goroutine, its read buffer, and what crypto/tls
	// keeps.
	pipeBytes = 32 << 10
	// shedFrom and shedTo are the shares of Config.MemoryMax, in eighths, at
	// which shedding begins and down to which it goes.
	shedFrom, shedTo = 7, 6
	// shedSayEvery is how often shedding is logged, in nanoseconds.
	shedSayEvery = int64(1e9)
)

// backlog knows the connections of a loop that have an outbox, and the bytes
// of all of them. Frames that several outboxes share count for each.
type backlog struct {
	slots []int32 // in no order; an outbox knows its place
	bytes int64
}

// has takes note of a connection's new outbox.
func (b *backlog) has(s *Conn) {
	s.out.place = len(b.slots)
	b.slots = append(b.slots, s.slot)
	b.changed(s.out)
}

// changed takes note of an outbox's bytes.
func (b *backlog) changed(o *outbox) {
	b.bytes += int64(o.bytes - o.counted)
	o.counted = o.bytes
}

// gone forgets a connection's outbox, if it has one. at finds connections.
func (b *backlog) gone(s *Conn, at func(slot int32) *Conn) {
	if s.out == nil {
		return
	}
	b.bytes -= int64(s.out.counted)
	last := len(b.slots) - 1
	moved := b.slots[last]
	b.slots[s.out.place] = moved
	at(moved).out.place = s.out.place
	b.slots = b.slots[:last]
}

// debt is what a connection has not read.
type debt struct {
	slot  int32
	bytes int
	since int64 // of its oldest part
}

// worst sorts debts and returns those to give up so that excess bytes are
// freed: the largest, of equal ones the oldest, and no more than needed.
func worst(debts []debt, excess int64) []debt {
	slices.SortFunc(debts, func(a, b debt) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), cmp.Compare(a.since, b.since), cmp.Compare(a.slot, b.slot))
	})
	for i := range debts {
		if excess <= 0 {
			return debts[:i]
		}
		excess -= int64(debts[i].bytes)
	}
	return debts
}

// shedder keeps a loop within Config.MemoryMax.
type shedder struct {
	pipes  int64  // connections through pipes
	debts  []debt // reused
	saidAt int64  // loop time of the last log line, 0 for never
	closed int    // since then
}

// memory is what the loop's connections take.
func (c *core) memory() int64 {
	return c.writer.backlog.bytes + c.stats.connections.Load()*connectionBytes + c.shedder.pipes*pipeBytes
}

// Full says whether the loop's connections take all the memory they may: no
// further ones should be admitted.
func (c *core) Full() bool { return c.cfg.MemoryMax > 0 && c.memory() >= c.cfg.MemoryMax }

// shed closes the slowest readers when the loop's connections take too much.
func (c *core) shed() {
	b := &c.writer.backlog
	c.stats.outboxBytes.Store(b.bytes)
	if c.cfg.MemoryMax == 0 || len(b.slots) == 0 {
		return
	}
	used := c.memory()
	if used < c.cfg.MemoryMax/8*shedFrom {
		return
	}
	sh := &c.shedder
	sh.debts = sh.debts[:0]
	for _, slot := range b.slots {
		if s := c.slots.at(slot); s.state == stateOpen && !s.out.empty() {
			sh.debts = append(sh.debts, debt{slot, s.out.bytes, s.out.oldest()})
		}
	}
	for _, d := range worst(sh.debts, used-c.cfg.MemoryMax/8*shedTo) {
		c.stats.slowMemory.Add(1)
		sh.closed++
		c.writer.tooSlow(c.slots.at(d.slot))
	}
	if now := c.now.Load(); sh.closed > 0 && (sh.saidAt == 0 || now-sh.saidAt >= shedSayEvery) {
		c.log.Warn("connections take too much memory, those that read slowest were closed",
			"closed", sh.closed, "bytes_before", used, "bytes_now", c.memory(), "limit", c.cfg.MemoryMax)
		sh.saidAt, sh.closed = now, 0
	}
}
