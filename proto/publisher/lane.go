package publisher

import (
	"sync"
	"time"

	"github.com/carillon-rt/carillon/proto/message"
)

// freeMax is how many empty batches a lane keeps for reuse.
const freeMax = 2

// lane is one order of publications: those of a partition, or the live-only
// ones of a partition.
type lane struct {
	// immutable after New
	index     int
	partition int

	mu sync.Mutex
	// guarded by mu
	queue  []*batch // the last one still grows
	free   []*batch
	count  int // publications in queue
	bytes  int // and their bytes
	closed bool

	// owned by Run
	flight     *batch
	attempt    uint64 // number of the last request, so that late replies are known as such
	node       string // where it went, "" for any router
	retryAt    time.Time
	avoid      string // a router that did not answer
	avoidUntil time.Time
}

// batch is the publications of one request.
type batch struct {
	message.Batch
	dones    []func(Receipt)
	deadline time.Time // of the first publication
}

// add queues pub in a batch of up to batchBytes. wake is true when the lane
// was empty.
func (l *lane) add(pub *message.Publication, done func(Receipt), now func() time.Time, cfg *Config, batchBytes int) (wake bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false, ErrUnavailable
	}
	size := pub.Size()
	if l.count >= cfg.QueueMax || (l.count > 0 && l.bytes+size > cfg.QueueBytesMax) {
		return false, ErrBusy
	}
	wake = len(l.queue) == 0
	if wake || !l.queue[len(l.queue)-1].Fits(pub, batchBytes) {
		l.queue = append(l.queue, l.newBatch(now().Add(cfg.Timeout)))
	}
	b := l.queue[len(l.queue)-1]
	b.Add(pub)
	b.dones = append(b.dones, done)
	l.count++
	l.bytes += size
	return wake, nil
}

func (l *lane) newBatch(deadline time.Time) *batch {
	if n := len(l.free); n > 0 {
		b := l.free[n-1]
		l.free = l.free[:n-1]
		b.deadline = deadline
		return b
	}
	return &batch{deadline: deadline}
}

// next takes the oldest batch, nil when nothing waits.
func (l *lane) next() *batch {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		return nil
	}
	b := l.queue[0]
	l.queue[0] = nil
	l.queue = l.queue[1:]
	l.count -= b.Len()
	l.bytes -= len(b.Bytes())
	if len(l.queue) == 0 {
		l.queue, l.bytes = nil, 0
	}
	return b
}

// recycle takes back a batch whose callbacks have been called.
func (l *lane) recycle(b *batch) {
	if len(b.Bytes()) > message.BatchBytesMax {
		return
	}
	b.Reset()
	clear(b.dones)
	b.dones = b.dones[:0]
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.free) < freeMax {
		l.free = append(l.free, b)
	}
}

func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}
