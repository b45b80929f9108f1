package netpoll

import (
	"sync"
	"time"
)

// Portable is the Poller of systems without epoll: it reports what pipes
// notify, and watches no descriptors.
type Portable struct {
	// immutable after New
	wake chan struct{} // holds one token while there is something to see

	// guarded by mu
	mu       sync.Mutex
	notified []Event
}

// NewPortable returns a Portable.
func NewPortable() *Portable {
	return &Portable{wake: make(chan struct{}, 1)}
}

// Watch implements Poller by refusing.
func (p *Portable) Watch(int, int32, uint32, Interest, Interest) error { return ErrUnsupported }

// Wait implements Poller.
func (p *Portable) Wait(events []Event, timeout time.Duration) (int, error) {
	if n := p.take(events); n > 0 || timeout == 0 {
		return n, nil
	}
	if timeout < 0 {
		<-p.wake
		return p.take(events), nil
	}
	t := time.NewTimer(timeout)
	defer t.Stop()
	select {
	case <-p.wake:
	case <-t.C:
	}
	return p.take(events), nil
}

// Notify implements Poller.
func (p *Portable) Notify(ev Event) {
	p.mu.Lock()
	p.notified = append(p.notified, ev)
	p.mu.Unlock()
	p.Wake()
}

// Wake implements Poller.
func (p *Portable) Wake() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Close implements Poller.
func (p *Portable) Close() error { return nil }

func (p *Portable) take(events []Event) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	var n int
	n, p.notified = takeEvents(events, p.notified)
	if len(p.notified) > 0 {
		p.Wake()
	}
	return n
}

// takeEvents moves what fits from queue to events. It returns how many, and
// the queue that remains.
func takeEvents(events, queue []Event) (int, []Event) {
	n := copy(events, queue)
	if n == len(queue) && cap(queue) > 4*len(events) {
		return n, nil // one burst must not be kept for ever
	}
	return n, queue[:copy(queue, queue[n:])]
}

var _ Poller = (*Portable)(nil)
