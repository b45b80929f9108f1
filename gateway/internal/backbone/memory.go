package backbone

import (
	"math"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
)

// older is what a flight brought: everything above since and the floor, up to
// applied.
type older struct {
	past    resume.Past
	life    uint64 // of the partition's memory
	since   message.Position
	limit   int
	applied message.Position
	bytes   int
	at      time.Time
}

func olderOf(reply *history.Reply, f *flight, now time.Time) *older {
	o := &older{
		past: resume.Past{Epoch: reply.Epoch, Floor: reply.Floor, Newest: reply.Newest, Entries: make([]resume.Entry, 0, len(reply.Entries))},
		life: f.life, since: f.since, limit: f.limit, applied: reply.Applied, at: now,
	}
	for _, e := range reply.Entries {
		pub, err := message.Parse(e.Publication)
		if err != nil { // what is below it can't be called complete
			o.past.Floor = max(o.past.Floor, e.Position)
			o.past.Entries = o.past.Entries[:0]
			continue
		}
		o.bytes += len(e.Publication)
		o.past.Entries = append(o.past.Entries, resume.Entry{Position: e.Position, Publication: pub})
	}
	return o
}

// keep keeps what was read for a while. It is forgotten all at once when it is
// too much: it can be read again.
func (h *History) keep(key channel.Key, o *older) {
	const overhead = 512
	o.bytes += overhead
	if h.olderBytes += o.bytes; h.olderBytes > olderBytesMax {
		clear(h.older)
		h.olderBytes = o.bytes
	}
	if old := h.older[key]; old != nil {
		h.olderBytes -= old.bytes
	}
	h.older[key] = o
}

// sweep forgets what is too old to be used.
func (h *History) sweep(now time.Time) {
	for key, o := range h.older {
		if now.Sub(o.at) >= olderAge {
			h.olderBytes -= o.bytes
			delete(h.older, key)
		}
	}
}

// remember answers from memory, nil if memory does not reach back far enough.
func (h *History) remember(q *resume.Question, now time.Time) *resume.Past {
	partition := q.Key.Partition(h.at.Partitions())
	newest := h.at.Last(partition).Seq()
	if q.Resumes && q.Since.Seq() > newest {
		return nil
	}
	past := h.extend(q, partition, now)
	if past == nil && q.Mark.Epoch != "" { // which memory does not know
		past = h.recall(q, partition, now)
	}
	if past != nil {
		past.Newest = newest
	}
	return past
}

// extend answers with what was read for another one, and what was delivered
// since.
func (h *History) extend(q *resume.Question, partition int, now time.Time) *resume.Past {
	o := h.older[q.Key]
	if o == nil || now.Sub(o.at) >= olderAge || o.since > q.Since || o.limit < q.Limit() {
		return nil
	}
	// A gateway that has heard of no epoch takes the one that was read.
	if known := q.Mark.Epoch != ""; known && o.past.Epoch != q.Mark.Epoch || !known && o.life != h.at.Recent(partition).Life() {
		return nil
	}
	// What was delivered since is parsed once for all that come back now. Those
	// that were answered hold the beginning of the same array.
	entries, reach := h.at.Recent(partition).Read(o.past.Entries, q.Key, o.applied)
	if reach.Low > o.applied {
		return nil
	}
	h.grow(o, entries, reach.Top)
	o.past.Floor = max(o.past.Floor, reach.Gone)
	past := &resume.Past{Epoch: o.past.Epoch, Floor: o.past.Floor, Entries: entries}
	q.Keep.Trim(past, now)
	return past
}

// grow has what was read reach up to top.
func (h *History) grow(o *older, entries []resume.Entry, top message.Position) {
	more := entryBytes * (len(entries) - len(o.past.Entries))
	o.past.Entries, o.applied = entries, max(o.applied, top)
	o.bytes += more
	h.olderBytes += more
}

// recall answers with what was delivered not long ago.
func (h *History) recall(q *resume.Question, partition int, now time.Time) *resume.Past {
	entries, reach := h.at.Recent(partition).Read(nil, q.Key, q.Since)
	low := max(reach.Low, reach.Gone)
	past := &resume.Past{Epoch: q.Mark.Epoch, Floor: low, Entries: entries}
	q.Keep.Trim(past, now)
	cut := past.Floor > low // nobody has more than this
	switch {
	case q.Resumes && q.Since < low && !cut, !q.Resumes && len(past.Entries) < q.Newest && !cut:
		return nil
	case q.Resumes && q.Since >= low:
		// For the others that come back now.
		entries = upTo(entries, q.Mark.Position)
		h.keep(q.Key, &older{
			past: resume.Past{Epoch: q.Mark.Epoch, Floor: low, Entries: entries},
			life: h.at.Recent(partition).Life(), since: q.Since, limit: math.MaxInt, applied: q.Mark.Position, bytes: entryBytes * len(entries), at: now,
		})
	}
	return past
}

// entryBytes is about what an entry takes besides its batch.
const entryBytes = 256

func upTo(entries []resume.Entry, till message.Position) []resume.Entry {
	n := len(entries)
	for n > 0 && entries[n-1].Position > till {
		n--
	}
	return entries[:n:n]
}
