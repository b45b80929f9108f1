// Package recent keeps the newest batches of one partition, so that clients
// that come back after a moment are answered from memory. Keeping a batch
// costs one append; only reading looks inside, and remembers what it found.
// It knows no NATS, clock or goroutines.
package recent

import (
	"slices"
	"sync"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

const (
	// A segment is what is found and forgotten as a whole.
	segmentBytes = 128 << 10
	segmentAge   = time.Second
	// Up to so many batches, and bytes, are looked through at each read rather
	// than made a segment of their own.
	scanMax   = 8
	scanBytes = 8 << 10
	// batchOverhead is what a batch costs besides its bytes: its headers are
	// in the same memory.
	batchOverhead = 256
)

// Window is the newest batches of a partition, as far as its limits of bytes
// and age reach. Reset and Add are called by the partition's deliverer, Read
// by one reader.
type Window struct {
	// immutable after New
	bytesMax int
	ageMax   time.Duration

	mu sync.Mutex
	// guarded by mu
	segments []*segment // oldest first; the last one is open
	bytes    int
	low      message.Position // everything above it is here
	top      message.Position // up to which it was added
	life     uint64
}

// segment is a run of batches.
type segment struct {
	// guarded by the window's mu while the segment is open, then immutable
	batches []batch
	bytes   int
	began   time.Time

	// owned by the reader
	index map[channel.Key][]place // nil until it is asked for
}

type batch struct {
	seq  uint64
	data []byte
}

// place is where a publication is in its segment.
type place struct {
	batch, offset int32
	position      message.Position
	removal       bool // of all before it
}

// New returns an empty window: nothing up to now is in it.
func New(bytesMax int, ageMax time.Duration) *Window {
	return &Window{bytesMax: bytesMax, ageMax: ageMax}
}

// Reset forgets everything: what is added from now on follows low.
func (w *Window) Reset(low message.Position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.segments, w.bytes, w.low, w.top = nil, 0, low, low
	w.life++
}

// Life counts the calls of Reset: between them the partition is one line.
func (w *Window) Life() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.life
}

// Add keeps the batch with sequence seq, which follows all others. data must
// not change any more.
func (w *Window) Add(seq uint64, data []byte, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	s := w.open(now)
	s.batches = append(s.batches, batch{seq, data})
	size := len(data) + batchOverhead
	s.bytes += size
	w.bytes += size
	w.top = message.AfterBatch(seq)
	w.expire(now)
}

// Expire forgets what is too old.
func (w *Window) Expire(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.expire(now)
}

// open gives the segment that takes the next batch. mu is held.
func (w *Window) open(now time.Time) *segment {
	if n := len(w.segments); n > 0 {
		s := w.segments[n-1]
		if len(s.batches) == 0 {
			s.began = now
		}
		if s.bytes < segmentBytes && now.Sub(s.began) < segmentAge {
			return s
		}
	}
	s := &segment{began: now}
	w.segments = append(w.segments, s)
	return s
}

// expire forgets the segments that are over the limits. mu is held.
func (w *Window) expire(now time.Time) {
	n := 0
	for n < len(w.segments) && (w.bytes > w.bytesMax || now.Sub(w.segments[n].began) > w.ageMax) {
		s := w.segments[n]
		if len(s.batches) > 0 {
			w.low = message.AfterBatch(s.batches[len(s.batches)-1].seq)
		}
		w.bytes -= s.bytes
		n++
	}
	if n > 0 {
		w.segments = slices.Delete(w.segments, 0, n)
	}
}

// Bytes is the memory that the batches take.
func (w *Window) Bytes() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.bytes
}

// Reach is what a Read has covered.
type Reach struct {
	// Low is the position above which nothing is missing but what Gone says. It
	// may be above the position that the read began at.
	Low message.Position
	// Gone is the newest position of what somebody had removed since then, 0 if
	// nobody had.
	Gone message.Position
	// Top is up to where the read goes.
	Top message.Position
}

// Read appends to dst, which has some of the channel's publications up to
// from, those above from, without changing what dst holds. When somebody had
// the channel's history removed since then, what came before that is not in
// the result.
func (w *Window) Read(dst []resume.Entry, key channel.Key, from message.Position) ([]resume.Entry, Reach) {
	segments, tail, reach := w.snapshot()
	for _, s := range segments {
		if message.AfterBatch(s.batches[len(s.batches)-1].seq) <= from {
			continue
		}
		if s.index == nil {
			s.index = indexOf(s.batches)
		}
		dst = s.read(dst, key, from, &reach.Gone)
	}
	for i := range tail {
		if message.AfterBatch(tail[i].seq) <= from {
			continue
		}
		each(tail[i], func(pos message.Position, _ int, pub *message.Publication) {
			switch {
			case pos <= from || pub.App != key.App || pub.Channel != key.Name:
			case pub.Kind == message.HistoryRemoved:
				dst = remove(dst, &reach.Gone)
			default:
				mine := *pub
				dst = append(dst, resume.Entry{Position: pos, Publication: &mine})
			}
		})
	}
	return dst, reach
}

// remove takes all entries away, and notes up to where.
func remove(dst []resume.Entry, gone *message.Position) []resume.Entry {
	if n := len(dst); n > 0 {
		*gone = dst[n-1].Position
	}
	return nil // others may hold dst
}

// snapshot gives the segments that are closed, with the open one closed when
// it has grown, else its batches.
func (w *Window) snapshot() (closed []*segment, tail []batch, reach Reach) {
	w.mu.Lock()
	defer w.mu.Unlock()
	reach = Reach{Low: w.low, Top: w.top}
	n := len(w.segments)
	if n == 0 {
		return nil, nil, reach
	}
	last := w.segments[n-1]
	if len(last.batches) > scanMax || last.bytes > scanBytes {
		w.segments = append(w.segments, &segment{began: last.began})
		return slices.Clone(w.segments[:n]), nil, reach
	}
	return slices.Clone(w.segments[:n-1]), last.batches, reach
}

func indexOf(batches []batch) map[channel.Key][]place {
	index := map[channel.Key][]place{}
	for i := range batches {
		each(batches[i], func(pos message.Position, offset int, pub *message.Publication) {
			key := channel.Key{App: pub.App, Name: pub.Channel}
			index[key] = append(index[key], place{int32(i), int32(offset), pos, pub.Kind == message.HistoryRemoved})
		})
	}
	return index
}

// each visits the events of a batch that are history, and its end. What cannot
// be read was counted when it was delivered.
func each(b batch, visit func(pos message.Position, offset int, pub *message.Publication)) {
	r := message.NewReader(b.data)
	var pub message.Publication
	for {
		offset := len(b.data) - r.Rest()
		if !r.Next(&pub) {
			return
		}
		if pub.Kind == message.Event && !pub.Transient || pub.Kind == message.HistoryRemoved {
			visit(message.At(b.seq, r.Index()), offset, &pub)
		}
	}
}

func (s *segment) read(dst []resume.Entry, key channel.Key, from message.Position, gone *message.Position) []resume.Entry {
	for _, p := range s.index[key] {
		if p.position <= from {
			continue
		}
		if p.removal {
			dst = remove(dst, gone)
			continue
		}
		if pub, err := message.Parse(s.batches[p.batch].data[p.offset:]); err == nil { // it was read before
			dst = append(dst, resume.Entry{Position: p.position, Publication: pub})
		}
	}
	return dst
}
