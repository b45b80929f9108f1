package presence

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/subject"
)

const (
	hookBatch    = 256
	hookAckWait  = 5 * time.Second
	hookAttempts = 20
	hookBackoff  = 500 * time.Millisecond
	hookStopWait = 2 * time.Second
)

// hooks takes webhook events off the workers' hands and stores them in the
// work queue. It never blocks who puts: what does not fit is dropped and
// counted.
type hooks struct {
	// immutable after New
	js       jetstream.JetStream
	replicas int
	log      *slog.Logger
	metrics  *metrics
	queue    chan hookItem

	// atomic
	warned atomic.Bool // that the queue is full, until it has drained

	// owned by run
	created bool // the stream exists
}

type hookItem struct {
	app, id string
	event   hook.Event
	tries   int
}

func (h *hooks) put(item hookItem) {
	select {
	case h.queue <- item:
	default:
		h.metrics.hooksDropped.Inc()
		if h.warned.CompareAndSwap(false, true) {
			h.log.Warn("webhook events dropped, their queue is full", "queue", cap(h.queue))
		}
	}
}

// run stores events until the queue is closed, and gives up what is left soon
// after ctx has ended.
func (h *hooks) run(ctx context.Context) {
	var batch []hookItem
	for {
		batch = h.collect(batch)
		if len(batch) == 0 {
			return
		}
		failed := h.store(batch)
		batch = batch[:0]
		for _, item := range failed {
			if item.tries++; item.tries >= hookAttempts || ctx.Err() != nil {
				h.metrics.hooksDropped.Inc()
				continue
			}
			h.metrics.hooksRetried.Inc()
			batch = append(batch, item)
		}
		if len(batch) == 0 {
			continue
		}
		select {
		case <-ctx.Done():
		case <-time.After(hookBackoff):
		}
	}
}

// collect fills the batch with what waits; it blocks only for the first.
func (h *hooks) collect(batch []hookItem) []hookItem {
	if len(batch) == 0 {
		h.warned.Store(false)
		item, ok := <-h.queue
		if !ok {
			return nil
		}
		batch = append(batch, item)
	}
	for len(batch) < hookBatch {
		select {
		case item, ok := <-h.queue:
			if !ok {
				return batch
			}
			batch = append(batch, item)
		default:
			return batch
		}
	}
	return batch
}

// store publishes a batch and returns what the stream did not take. An event
// that it took without our knowing is sent again with the same id.
func (h *hooks) store(batch []hookItem) (failed []hookItem) {
	if err := h.createStream(); err != nil {
		h.log.Warn("webhook events wait", "events", len(batch), "err", err)
		return append(failed, batch...)
	}
	acks := make([]jetstream.PubAckFuture, len(batch))
	for i := range batch {
		ack, err := h.publish(&batch[i])
		if err != nil {
			h.log.Warn("webhook event not sent", "err", err)
		}
		acks[i] = ack
	}
	timer := time.NewTimer(hookAckWait)
	defer timer.Stop()
	over := false
	for i, ack := range acks {
		if err := wait(ack, timer.C, &over); err != nil {
			h.created = h.created && !errors.Is(err, jetstream.ErrNoStreamResponse)
			failed = append(failed, batch[i])
			continue
		}
		h.metrics.hooks.Inc()
	}
	return failed
}

var errNotAcknowledged = errors.New("not acknowledged in time")

func wait(ack jetstream.PubAckFuture, timeout <-chan time.Time, over *bool) error {
	if ack == nil || *over {
		return errNotAcknowledged
	}
	select {
	case <-ack.Ok():
		return nil
	case err := <-ack.Err():
		return err
	case <-timeout:
		*over = true
		return errNotAcknowledged
	}
}

func (h *hooks) publish(item *hookItem) (jetstream.PubAckFuture, error) {
	data, err := json.Marshal(item.event)
	if err != nil {
		return nil, fmt.Errorf("encode webhook event: %w", err)
	}
	msg := nats.NewMsg(subject.Hook(item.app))
	msg.Data = data
	return h.js.PublishMsgAsync(msg, jetstream.WithMsgID(item.id))
}

func (h *hooks) createStream() error {
	if h.created {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), hookStopWait)
	defer cancel()
	_, err := h.js.CreateStream(ctx, hook.StreamConfig(h.replicas))
	if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
		return fmt.Errorf("create stream %s: %w", subject.HookStream, err)
	}
	h.created = true
	return nil
}
