package ingest

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/publisher"
)

// request is the publications of one NATS request until it is answered: when
// all are settled, or at its deadline.
type request struct {
	// immutable
	msg      *nats.Msg
	encode   func(receipts []publisher.Receipt) []byte
	deadline time.Time
	hooks    Hooks

	mu sync.Mutex
	// guarded by mu
	receipts []publisher.Receipt
	left     int
	answered bool
	told     map[int]toldHook // hook events to send when publication i is stored
}

type toldHook struct {
	app string
	ev  hook.Event
}

// newRequest is answered after n Settles.
func newRequest(msg *nats.Msg, n int, deadline time.Time, encode func([]publisher.Receipt) []byte) *request {
	r := &request{msg: msg, encode: encode, deadline: deadline, left: n, receipts: make([]publisher.Receipt, n)}
	for i := range r.receipts {
		r.receipts[i].Err = publisher.ErrUnavailable
	}
	return r
}

// Settle implements journal.Ticket.
func (r *request) Settle(i int, receipt publisher.Receipt) {
	r.mu.Lock()
	told, tell := r.told[i]
	if r.answered {
		r.mu.Unlock()
		r.tell(told, tell, receipt)
		return
	}
	r.receipts[i] = receipt
	r.left--
	done := r.left == 0
	r.answered = done
	r.mu.Unlock()
	r.tell(told, tell, receipt)
	if done {
		r.answer()
	}
}

func (r *request) tell(h toldHook, wanted bool, receipt publisher.Receipt) {
	if wanted && receipt.Err == nil && !receipt.Duplicate {
		r.hooks.Send(h.app, h.ev)
	}
}

// expire answers with what is known by now; the rest is unavailable. It
// returns false when the request was answered before.
func (r *request) expire() bool {
	r.mu.Lock()
	if r.answered {
		r.mu.Unlock()
		return false
	}
	r.answered = true
	r.mu.Unlock()
	r.answer()
	return true
}

func (r *request) isAnswered() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.answered
}

// answer sends the reply; receipts do not change any more.
func (r *request) answer() {
	if r.msg.Reply == "" {
		return
	}
	// Failing means that the connection is closed: the requester times out.
	_ = r.msg.Respond(r.encode(r.receipts))
}

// deadlines answers requests that the writers did not settle in time. All
// requests have the same patience, so they are in order of deadline.
type deadlines struct {
	mu sync.Mutex
	// guarded by mu
	waiting []*request
}

func (d *deadlines) add(r *request) {
	d.mu.Lock()
	defer d.mu.Unlock()
	// Most are answered before the next one comes: keep the list short without
	// waiting for the sweep.
	for len(d.waiting) > 0 && d.waiting[0].isAnswered() {
		d.waiting[0] = nil
		d.waiting = d.waiting[1:]
	}
	d.waiting = append(d.waiting, r)
}

// sweep expires what is due and returns how many requests that were.
func (d *deadlines) sweep(now time.Time) int {
	expired := 0
	for _, r := range d.due(now) {
		if r.expire() {
			expired++
		}
	}
	return expired
}

func (d *deadlines) due(now time.Time) []*request {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for n < len(d.waiting) && !now.Before(d.waiting[n].deadline) {
		n++
	}
	due := d.waiting[:n:n]
	if d.waiting = d.waiting[n:]; len(d.waiting) == 0 {
		d.waiting = nil
	}
	return due
}
