package natsconn

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
)

// ServiceError is the answer of a NATS micro service that failed, from the headers of its reply.
type ServiceError struct {
	Code        string
	Description string
}

// Error implements error.
func (e *ServiceError) Error() string {
	return fmt.Sprintf("service answers %s: %s", e.Code, e.Description)
}

// replyError reads the two kinds of failure that come as a reply: a 503 status of the server, and the headers of a micro service.
func replyError(msg *nats.Msg) error {
	if len(msg.Header) == 0 {
		return nil
	}
	if len(msg.Data) == 0 && msg.Header.Get("Status") == "503" {
		return ErrNoResponders
	}
	if text := msg.Header.Get("Nats-Service-Error"); text != "" {
		return &ServiceError{Code: msg.Header.Get("Nats-Service-Error-Code"), Description: text}
	}
	return nil
}

// take makes a free slot a pending one. mu is held and there is a free slot.
func (r *Requester) take(done func([]byte, error), due int64) (index int32, gen uint32) {
	due = max(due, r.swept+1)
	index = r.free
	s := &r.slots[index]
	r.free = s.next
	s.done, s.due = done, due
	head := &r.wheel[due%buckets]
	s.prev, s.next = noSlot, *head
	if *head != noSlot {
		r.slots[*head].prev = index
	}
	*head = index
	r.pending++
	return index, s.gen
}

// drop makes a pending slot a free one. mu is held.
func (r *Requester) drop(index int32) {
	s := &r.slots[index]
	if s.prev != noSlot {
		r.slots[s.prev].next = s.next
	} else {
		r.wheel[s.due%buckets] = s.next
	}
	if s.next != noSlot {
		r.slots[s.next].prev = s.prev
	}
	s.done = nil
	s.gen++
	s.next = r.free
	r.free = index
	r.pending--
}

// release returns the callback of a pending request and forgets it; nil when it is over already.
func (r *Requester) release(index int32, gen uint32) func([]byte, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if index < 0 || int(index) >= len(r.slots) {
		return nil
	}
	s := &r.slots[index]
	if s.gen != gen || s.done == nil {
		return nil
	}
	done := s.done
	r.drop(index)
	return done
}

// refuse makes the callbacks of requests that failed before they were sent.
func (r *Requester) refuse() {
	r.mu.Lock()
	refused := r.refused
	r.refused = nil
	r.mu.Unlock()
	for _, f := range refused {
		f.done(nil, f.err)
	}
}

// sweep makes the callbacks of what is overdue and reports whether anything still waits.
func (r *Requester) sweep() (more bool) {
	now := int64(time.Since(r.start) / tick)
	var overdue []func([]byte, error)
	r.mu.Lock()
	for at := max(r.swept+1, now-buckets+1); at <= now; at++ {
		for index := r.wheel[at%buckets]; index != noSlot; {
			s := &r.slots[index]
			next := s.next
			if s.due <= now {
				overdue = append(overdue, s.done)
				r.drop(index)
			}
			index = next
		}
	}
	r.swept = max(r.swept, now)
	more = r.pending > 0
	r.mu.Unlock()
	for _, done := range overdue {
		done(nil, ErrTimeout)
	}
	return more
}

// write publishes the queue in batches; nats.go joins what is written in a row into few system calls.
func (r *Requester) write(ctx context.Context) {
	var batch []question
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.send:
		}
		for {
			batch = r.swapOutgoing(batch)
			if len(batch) == 0 {
				break
			}
			for i := range batch {
				r.publish(&batch[i])
			}
			clear(batch)
		}
	}
}

// swapOutgoing takes the queue, without what timed out in it, and leaves the emptied buffer of the last batch in its place.
func (r *Requester) swapOutgoing(empty []question) []question {
	r.mu.Lock()
	defer r.mu.Unlock()
	queue := r.outgoing
	r.outgoing = empty[:0]
	kept := queue[:0]
	for _, q := range queue {
		if r.slots[q.index].gen == q.gen {
			kept = append(kept, q)
		}
	}
	clear(queue[len(kept):])
	return kept
}

func (r *Requester) publish(q *question) {
	var buf [80]byte
	inbox := strconv.AppendUint(append(buf[:0], r.prefix...), uint64(q.gen)<<32|uint64(uint32(q.index)), tokenFmt)
	var err error
	if q.header == nil {
		err = r.nc.PublishRequest(q.subject, string(inbox), q.data)
	} else {
		err = r.nc.PublishMsg(&nats.Msg{Subject: q.subject, Reply: string(inbox), Header: q.header, Data: q.data})
	}
	if err == nil {
		return
	}
	done := r.release(q.index, q.gen)
	if done == nil {
		return
	}
	r.mu.Lock()
	closed := r.closed
	if !closed {
		r.refused = append(r.refused, refusal{done, fmt.Errorf("ask %s: %w", q.subject, err)})
	}
	r.mu.Unlock()
	if closed {
		done(nil, ErrClosed)
		return
	}
	signal(r.wake)
}
