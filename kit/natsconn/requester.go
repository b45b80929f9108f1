package natsconn

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// What a callback gets when there is no reply. The first two are the errors of nats.go, so that both ways of asking compare alike.
var (
	ErrNoResponders = nats.ErrNoResponders
	ErrTimeout      = nats.ErrTimeout
	ErrBusy         = errors.New("too many requests wait for their replies")
	ErrClosed       = errors.New("requester is closed")
)

const (
	tick     = 10 * time.Millisecond // granularity of deadlines
	buckets  = 1024                  // of the timer wheel: a turn is 10 s, longer deadlines go round
	noSlot   = int32(-1)
	tokenFmt = 36
	// maxReplyRun bounds the replies handled between two looks at deadlines and shutdown.
	maxReplyRun = 256
)

// Requester asks over NATS for callers that may not block and can't afford a goroutine for each request, such as event loops. One wildcard
// inbox takes all replies, one wheel all deadlines; Run's goroutine makes all callbacks, a second one does the writing, because
// a write to a stalled server blocks.
type Requester struct {
	// immutable after NewRequester
	nc      *nats.Conn
	prefix  string // inbox with its final dot
	sub     *nats.Subscription
	replies chan *nats.Msg
	start   time.Time
	wake    chan struct{} // to Run: refusals wait, or the first request is pending
	send    chan struct{} // to the writer: outgoing has grown

	mu sync.Mutex
	// guarded by mu
	slots    []slot
	free     int32 // head of the list of free slots
	pending  int
	wheel    [buckets]int32 // heads of the lists of slots by deadline
	swept    int64          // last tick looked at
	outgoing []question
	refused  []refusal
	closed   bool
}

// slot is a pending request. gen changes at each release, so that a late reply finds nobody.
type slot struct {
	done       func(reply []byte, err error)
	due        int64 // tick
	gen        uint32
	prev, next int32 // in the wheel's bucket; next also in the free list
}

type question struct {
	subject string
	header  nats.Header
	data    []byte
	index   int32
	gen     uint32
}

type refusal struct {
	done func(reply []byte, err error)
	err  error
}

// NewRequester subscribes to an inbox on nc. At most maxPending requests wait at a time, so the reply channel can't overflow.
func NewRequester(nc *nats.Conn, maxPending int) (*Requester, error) {
	if maxPending < 1 || maxPending > 1<<24 {
		return nil, fmt.Errorf("new requester: %d pending requests, want 1 to %d", maxPending, 1<<24)
	}
	r := &Requester{
		nc: nc, prefix: nc.NewInbox() + ".", replies: make(chan *nats.Msg, maxPending+maxReplyRun), start: time.Now(),
		wake: make(chan struct{}, 1), send: make(chan struct{}, 1), slots: make([]slot, maxPending),
	}
	for i := range r.slots {
		r.slots[i].next = int32(i) + 1
	}
	r.slots[maxPending-1].next = noSlot
	for i := range r.wheel {
		r.wheel[i] = noSlot
	}
	var err error
	if r.sub, err = nc.ChanSubscribe(r.prefix+"*", r.replies); err != nil {
		return nil, fmt.Errorf("new requester: %w", err)
	}
	return r, nil
}

// Ask sends data to subject and returns at once. done is called exactly once, on Run's goroutine: with the reply, or with
// ErrNoResponders, ErrTimeout (after timeout, 10 ms granularity), ErrBusy, ErrClosed, a *ServiceError or what the connection says. Only
// after Run has ended is done called by Ask itself. data must not change until then; reply belongs to done. done must not block.
// No reply does not mean that nothing was done: the request may be on its way still.
func (r *Requester) Ask(subject string, data []byte, timeout time.Duration, done func(reply []byte, err error)) {
	r.AskHeader(subject, nil, data, timeout, done)
}

// AskHeader is Ask with a header, which must not change either.
func (r *Requester) AskHeader(subject string, header nats.Header, data []byte, timeout time.Duration, done func(reply []byte, err error)) {
	due := int64((time.Since(r.start)+timeout)/tick) + 1
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		done(nil, ErrClosed)
		return
	}
	// The queue to the writer is bounded too: a request that timed out in it has freed its slot. Refusals are not: each must be told,
	// a caller can't wait, and Run tells them before anything else.
	if r.free == noSlot || len(r.outgoing) >= len(r.slots) {
		r.refused = append(r.refused, refusal{done, ErrBusy})
		r.mu.Unlock()
		signal(r.wake)
		return
	}
	index, gen := r.take(done, due)
	r.outgoing = append(r.outgoing, question{subject, header, data, index, gen})
	first := r.pending == 1
	r.mu.Unlock()
	signal(r.send)
	if first {
		signal(r.wake)
	}
}

// Pending returns how many requests wait for their reply.
func (r *Requester) Pending() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pending
}

// Run sends, receives and makes the callbacks until ctx ends; requests that still wait then get ErrClosed.
func (r *Requester) Run(ctx context.Context) error {
	var writer sync.WaitGroup
	writer.Go(func() { r.write(ctx) })
	defer writer.Wait()
	defer r.close()
	timer := time.NewTimer(tick)
	defer timer.Stop()
	armed := true
	for {
		select {
		case <-ctx.Done():
			return nil
		case msg := <-r.replies:
			r.receive(msg)
		case <-r.wake:
			r.refuse()
			if !armed {
				timer.Reset(tick)
				armed = true
			}
		case <-timer.C:
			if armed = r.sweep(); armed {
				timer.Reset(tick)
			}
		}
	}
}

// receive handles msg and those that came after it.
func (r *Requester) receive(msg *nats.Msg) {
	r.reply(msg)
	for range maxReplyRun {
		select {
		case msg := <-r.replies:
			r.reply(msg)
		default:
			return
		}
	}
}

func (r *Requester) reply(msg *nats.Msg) {
	token, err := strconv.ParseUint(strings.TrimPrefix(msg.Subject, r.prefix), tokenFmt, 64)
	if err != nil {
		return // nobody we asked
	}
	done := r.release(int32(token&(1<<32-1)), uint32(token>>32))
	if done == nil {
		return // answered already, or too late
	}
	done(msg.Data, replyError(msg))
}

// close makes the callbacks of all that still waits.
func (r *Requester) close() {
	r.sub.Unsubscribe() // fails only when the connection is closed, which ends the subscription as well
	r.mu.Lock()
	r.closed = true
	refused := r.refused
	for i := range r.slots {
		if done := r.slots[i].done; done != nil {
			refused = append(refused, refusal{done, ErrClosed})
			r.drop(int32(i))
		}
	}
	r.refused, r.outgoing = nil, nil
	r.mu.Unlock()
	for _, f := range refused {
		f.done(nil, f.err)
	}
}

func signal(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
