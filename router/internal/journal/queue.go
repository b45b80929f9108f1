package journal

import (
	"strings"
	"sync"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
)

const (
	// keyedMax is how many publications with a MsgID are in flight at once.
	keyedMax = 64
	// livePassMax is how many batches of a live lane leave in one pass.
	livePassMax = 16
	freeMax     = 4
)

// queue is what waits for one lane, in order.
type queue struct {
	// immutable
	countMax int
	bytesMax int

	mu sync.Mutex
	// guarded by mu
	batchBytes int // of a batch; see message.BatchBytes
	parcels    []*parcel
	free       []*parcel
	count      int // publications
	bytes      int
	closed     bool
}

// grow says how large batches may become, from the next one on.
func (q *queue) grow(batchBytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.batchBytes = batchBytes
}

// add queues it; the publication is encoded here, by the caller. It says
// whether the batch before is full by that: nothing is gained by waiting any
// longer.
func (q *queue) add(it *Item) (filled bool, err error) {
	size := it.Pub.Size()
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false, publisher.ErrUnavailable
	}
	if q.count >= q.countMax || (q.count > 0 && q.bytes+size > q.bytesMax) {
		return false, publisher.ErrBusy
	}
	before := len(q.parcels)
	p := q.open(it)
	p.add(it)
	q.count++
	q.bytes += size
	return before > 0 && len(q.parcels) > before, nil
}

// open gives the parcel that takes it: the last one while it has room, or a
// new one; a publication with a MsgID always travels alone.
func (q *queue) open(it *Item) *parcel {
	if n := len(q.parcels); n > 0 && it.MsgID == "" {
		if last := q.parcels[n-1]; last.msgID == "" && last.batch.Fits(it.Pub, q.batchBytes) {
			return last
		}
	}
	p := &parcel{}
	if n := len(q.free); n > 0 {
		p = q.free[n-1]
		q.free = q.free[:n-1]
	}
	if it.MsgID != "" {
		p.msgID = it.MsgID
		p.key = channel.Key{App: strings.Clone(it.Pub.App), Name: strings.Clone(it.Pub.Channel)}
	}
	q.parcels = append(q.parcels, p)
	return p
}

// take appends the next flight to dst: one batch, or several publications
// with a MsgID that are on different channels, so that a failure of one can't
// change the order of any channel. liveOnly lanes take many batches, as
// nothing has to be waited for.
func (q *queue) take(dst []*parcel, liveOnly bool) []*parcel {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.parcels) == 0 {
		return dst
	}
	keyed := q.parcels[0].msgID != ""
	limit := 1
	switch {
	case keyed:
		limit = keyedMax
	case liveOnly:
		limit = livePassMax
	}
	n := 0
	for _, p := range q.parcels[:min(limit, len(q.parcels))] {
		if (p.msgID != "") != keyed || (keyed && hasChannel(dst, p.key)) {
			break
		}
		dst = append(dst, p)
		q.count -= p.batch.Len()
		q.bytes -= len(p.batch.Bytes())
		n++
	}
	rest := copy(q.parcels, q.parcels[n:])
	clear(q.parcels[rest:])
	q.parcels = q.parcels[:rest]
	if rest == 0 {
		q.bytes = 0 // sizes in the queue leave out the batches' version bytes
	}
	return dst
}

func hasChannel(ps []*parcel, key channel.Key) bool {
	for _, p := range ps {
		if p.key == key {
			return true
		}
	}
	return false
}

// recycle takes back settled parcels.
func (q *queue) recycle(ps []*parcel) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range ps {
		if len(q.free) >= freeMax || len(p.batch.Bytes()) > message.BatchBytesMax {
			continue
		}
		p.batch.Reset()
		clear(p.tickets)
		*p = parcel{batch: p.batch, tickets: p.tickets[:0]}
		q.free = append(q.free, p)
	}
}

func (q *queue) waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}
