// Package chain checks that the durable batches of one partition arrive
// without gap, repeat or disorder, and says what is missing when they do not.
// It is pure: it knows no NATS, clock or goroutines; whoever drives it reads
// what is missing from the stream and tells it.
package chain

import "slices"

// Batch is one message of a partition's log. Sequences number the messages of
// the whole stream: those of one partition rise, but not by one.
type Batch struct {
	// Seq is the batch's sequence in the stream.
	Seq uint64
	// Prev is the sequence of the batch before it in the partition; 0 when
	// there is none, or none that is still stored.
	Prev uint64
	Data []byte
}

// Limits of what is held back while a gap is being repaired. What does not
// fit is forgotten and read from the stream like the gap itself.
const (
	HeldBatchesMax = 1024
	HeldBytesMax   = 8 << 20
)

// Chain is the state of one partition: what was delivered last, what is held
// back, what is known to exist. It is used by one goroutine. The zero value
// has not started: it holds everything until Start.
type Chain struct {
	started bool
	suspect bool
	last    uint64
	known   uint64
	held    []Batch // by Seq, all above last once started
	bytes   int
	repeats uint64
}

// Last is the sequence up to which everything has been delivered.
func (c *Chain) Last() uint64 { return c.last }

// Started says whether Start has been called.
func (c *Chain) Started() bool { return c.started }

// Suspect says whether batches may have been missed without a trace.
func (c *Chain) Suspect() bool { return c.suspect }

// Held is the number of batches held back.
func (c *Chain) Held() int { return len(c.held) }

// Repeats counts the batches that were dropped because they had been
// delivered before.
func (c *Chain) Repeats() uint64 { return c.repeats }

// Start says that the partition is followed from just after last on. It
// appends to out what can now be delivered, as all that return batches do.
func (c *Chain) Start(last uint64, out []Batch) []Batch {
	c.started, c.suspect, c.last = true, false, last
	c.known = max(c.known, last)
	return c.release(out)
}

// Reset goes back to before Start. What is held is dropped: it is in the log,
// where Start looks next.
func (c *Chain) Reset() {
	c.started, c.suspect, c.known = false, false, 0
	clear(c.held)
	c.held, c.bytes = c.held[:0], 0
}

// Live takes a batch as it came from the live subject.
func (c *Chain) Live(b Batch, out []Batch) []Batch {
	switch {
	case c.started && b.Seq <= c.last:
		c.repeats++
		return out
	case c.started && c.follows(b):
		c.suspect = false
		return c.release(c.deliver(b, out))
	}
	c.hold(b)
	return out
}

// Stored takes what a read of the log from Last on has returned, in order and
// without holes: the caller has made sure of that (see Intact).
func (c *Chain) Stored(b Batch, out []Batch) []Batch {
	if b.Seq <= c.last {
		return out
	}
	return c.release(c.deliver(b, out))
}

// Tail says that the log has a batch with this sequence. When it is the one
// delivered last, nothing has been missed.
func (c *Chain) Tail(seq uint64) {
	c.known = max(c.known, seq)
	if c.started && seq == c.last {
		c.suspect = false
	}
}

// Doubt says that batches may have been missed, until the opposite is shown.
func (c *Chain) Doubt() { c.suspect = true }

// Gap says whether something after Last is missing for certain, as far as can
// be told here. A gap that is only known from Tail may still be on its way.
func (c *Chain) Gap() (certain, possible bool) {
	if !c.started {
		return false, false
	}
	return len(c.held) > 0, c.known > c.last
}

// follows says whether b comes next for certain. A predecessor before last is
// none at all: everything before b has been trimmed, what was delivered last
// and perhaps what was missed. That takes a look at the stream, as does the
// first batch of a log that was empty.
func (c *Chain) follows(b Batch) bool { return b.Prev == c.last && b.Prev != 0 }

func (c *Chain) deliver(b Batch, out []Batch) []Batch {
	c.last = b.Seq
	c.known = max(c.known, b.Seq)
	return append(out, b)
}

// release delivers what is held as far as the chain reaches.
func (c *Chain) release(out []Batch) []Batch {
	n := 0
	for ; n < len(c.held); n++ {
		b := c.held[n]
		if b.Seq > c.last {
			if !c.follows(b) {
				break
			}
			c.suspect = false
			out = c.deliver(b, out)
		}
		c.bytes -= len(b.Data)
	}
	if n > 0 {
		c.held = slices.Delete(c.held, 0, n)
	}
	return out
}

// hold keeps b until the gap before it is filled, if it fits.
func (c *Chain) hold(b Batch) {
	c.known = max(c.known, b.Seq)
	at, found := slices.BinarySearchFunc(c.held, b.Seq, func(h Batch, seq uint64) int {
		switch {
		case h.Seq < seq:
			return -1
		case h.Seq > seq:
			return 1
		}
		return 0
	})
	if found {
		c.repeats++
		return
	}
	if len(c.held) >= HeldBatchesMax || c.bytes+len(b.Data) > HeldBytesMax {
		return
	}
	c.held = slices.Insert(c.held, at, b)
	c.bytes += len(b.Data)
}
