package hook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/proto/subject"
)

const (
	queueBatch = 1024 // events under way at a time
	queueWait  = 5 * time.Second
	queueGrace = 5 * time.Second // to send what is left at the end

	createWait = 2 * time.Second
	// An event that the stream does not take is tried again for about a minute,
	// and longer when the stream is slow.
	queueTries = 60
	queueAgain = time.Second
)

// QueueStop is how long Run takes to end at most.
const QueueStop = queueGrace + queueWait

// Fate is what became of events that were put into a Queue.
type Fate uint8

// Fates.
const (
	Sent    Fate = iota // the stream has them
	Retried             // the stream did not take them, and is asked again
	Lost                // the queue was full, the stream away for long, or the event too large
)

// String is the label of the fate in metrics.
func (f Fate) String() string {
	switch f {
	case Sent:
		return "sent"
	case Retried:
		return "retried"
	}
	return "lost"
}

// Queue puts events into the work queue for a process that must not wait for
// it: what waits is bounded, and what comes when it is full is dropped.
type Queue struct {
	// immutable after NewQueue
	cfg   QueueConfig
	js    jetstream.JetStream
	ready chan struct{} // holds one if something waits

	// owned by Run
	created bool // the stream is there

	mu sync.Mutex
	// guarded by mu
	waiting []queued
	full    bool // it was, and that was logged
}

type queued struct {
	app, id string
	event   Event
	tries   int
}

// QueueConfig is what a Queue is made of.
type QueueConfig struct {
	Size int // events that may wait
	// Create has the stream created when it is missing, with so many Replicas;
	// else that is for others.
	Create   bool
	Replicas int
	Log      *slog.Logger
	// Count is told of each event's fate, on any goroutine.
	Count func(Fate, int)
}

// NewQueue makes a queue. Nothing leaves before Run.
func NewQueue(nc *nats.Conn, cfg QueueConfig) (*Queue, error) {
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncTimeout(queueWait))
	if err != nil {
		return nil, fmt.Errorf("open JetStream for webhook events: %w", err)
	}
	return &Queue{cfg: cfg, js: js, ready: make(chan struct{}, 1), created: !cfg.Create}, nil
}

// Put adds an event of an app; id is its Nats-Msg-Id. It never blocks.
func (q *Queue) Put(app, id string, ev Event) {
	q.mu.Lock()
	if len(q.waiting) >= q.cfg.Size {
		first := !q.full
		q.full = true
		q.mu.Unlock()
		q.cfg.Count(Lost, 1)
		if first {
			q.cfg.Log.Warn("webhook events are dropped: too many wait for their stream", "queue", q.cfg.Size)
		}
		return
	}
	q.waiting = append(q.waiting, queued{app: app, id: id, event: ev})
	q.mu.Unlock()
	q.signal()
}

// Len is how many wait.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

func (q *Queue) signal() {
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// Run publishes what is put until ctx ends, and then what is left, as long as
// the stream takes it and there is time.
func (q *Queue) Run(ctx context.Context) error {
	var batch []queued
	var until time.Time // of the time that is left
	for {
		switch {
		case ctx.Err() == nil:
		case until.IsZero():
			until = time.Now().Add(queueGrace)
		case time.Now().After(until):
			q.giveUp(batch)
			return nil
		}
		batch = q.take(batch)
		if len(batch) == 0 {
			select {
			case <-q.ready:
				continue
			case <-ctx.Done():
				if q.Len() > 0 {
					continue
				}
				return nil
			}
		}
		batch = q.send(batch)
		if len(batch) == 0 {
			continue
		}
		select {
		case <-ctx.Done():
			q.giveUp(batch)
			return nil
		case <-time.After(queueAgain):
		}
	}
}

// take fills the batch with what waits, the oldest first.
func (q *Queue) take(batch []queued) []queued {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := min(queueBatch-len(batch), len(q.waiting))
	batch = append(batch, q.waiting[:n]...)
	switch left := len(q.waiting) - n; {
	case left == 0:
		q.waiting, q.full = nil, false // a crowd's memory is not kept
	default:
		clear(q.waiting[:n])
		q.waiting = q.waiting[n:]
	}
	return batch
}

// send publishes a batch and returns what is to be tried again. An event that
// the stream took without our knowing is sent again with the same id.
func (q *Queue) send(batch []queued) (again []queued) {
	sent := make([]sending, len(batch))
	why := q.create()
	for i := range batch {
		if why == nil {
			sent[i] = q.publish(&batch[i])
		}
	}
	lost := 0
	for i := range batch {
		err := sent[i].wait()
		if err == nil {
			continue
		}
		if why == nil {
			why = err
		}
		if batch[i].tries++; batch[i].tries >= queueTries || errors.Is(err, nats.ErrMaxPayload) {
			lost++
			continue
		}
		again = append(again, batch[i])
	}
	q.cfg.Count(Sent, len(batch)-len(again)-lost)
	q.cfg.Count(Retried, len(again))
	q.cfg.Count(Lost, lost)
	if why != nil {
		q.created = q.created && !(q.cfg.Create && errors.Is(why, jetstream.ErrNoStreamResponse))
		q.cfg.Log.Warn("webhook events could not be queued", "again", len(again), "lost", lost, "err", why)
	}
	return again
}

// create creates the stream, if that is ours to do and was not done yet.
func (q *Queue) create() error {
	if q.created {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), createWait)
	defer cancel()
	_, err := q.js.CreateStream(ctx, StreamConfig(q.cfg.Replicas))
	if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return fmt.Errorf("create stream %s: %w", subject.HookStream, err)
	}
	q.created = true
	return nil
}

var errNotSent = errors.New("they could not be sent")

// sending is an event on its way: ack, or why it could not be sent.
type sending struct {
	ack jetstream.PubAckFuture
	err error
}

// wait waits for the answer, which comes after queueWait at the latest.
func (s sending) wait() error {
	switch {
	case s.err != nil:
		return s.err
	case s.ack == nil:
		return errNotSent
	}
	select {
	case <-s.ack.Ok():
		return nil
	case err := <-s.ack.Err():
		return err
	}
}

func (q *Queue) publish(it *queued) sending {
	body, err := json.Marshal(it.event)
	if err != nil { // strings and numbers only: it can't be
		return sending{err: fmt.Errorf("encode a webhook event: %w", err)}
	}
	ack, err := q.js.PublishAsync(subject.Hook(it.app), body, jetstream.WithMsgID(it.id))
	if err != nil {
		return sending{err: fmt.Errorf("a webhook event of %d bytes of app %s: %w", len(body), it.app, err)}
	}
	return sending{ack: ack}
}

// giveUp counts what is left when there is no time to try again.
func (q *Queue) giveUp(batch []queued) {
	q.mu.Lock()
	n := len(batch) + len(q.waiting)
	q.waiting = nil
	q.mu.Unlock()
	if n == 0 {
		return
	}
	q.cfg.Count(Lost, n)
	q.cfg.Log.Warn("webhook events are lost: their stream did not take them before the end", "events", n)
}
