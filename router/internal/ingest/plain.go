package ingest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/proto/subject"

	"github.com/carillon-rt/carillon/router/internal/journal"
)

const (
	// Durable is the name of the work queue's consumer.
	Durable     = "router"
	traceHeader = "traceparent"

	plainAckWait    = 30 * time.Second // above the writers' give-up
	plainAckPending = 4<<10 + heldMax
	plainFetch      = 512
	plainRetry      = 50 * time.Millisecond
	plainBackoff    = time.Second
	plainHeartbeat  = time.Second
	plainKeep       = plainAckWait / 3
)

// Plain takes messages from the work queue into the journal. One router of a
// cluster does at a time, which keeps each backend's order; two at once, while
// the routers disagree about who is alive, do no more harm than that.
type Plain struct {
	// immutable after NewPlain
	admission
	js      jetstream.JetStream
	writers Writers
	mine    func() bool
	log     *slog.Logger
	metrics *Metrics
}

// NewPlain prepares the consumer. mine says whether this router is the one.
func NewPlain(
	js jetstream.JetStream, nc *nats.Conn, apps *app.Registry, w Writers, mine func() bool, log *slog.Logger, m *Metrics,
) *Plain {
	return &Plain{admission: newAdmission(apps, nc), js: js, writers: w, mine: mine, log: log, metrics: m}
}

// Run consumes while it is this router's turn, until ctx ends. Messages may
// be acknowledged after it has returned.
func (p *Plain) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		var err error
		if p.mine() {
			err = p.consume(ctx)
		}
		if err != nil && ctx.Err() == nil {
			p.log.Warn("the ingest queue can't be read, trying again", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(plainBackoff):
		}
	}
	return nil
}

// consume makes the consumer anew: what another router took and did not
// acknowledge comes again at once and in order, not after AckWait and behind
// what is newer. The stream of the journal removes what was stored already.
func (p *Plain) consume(ctx context.Context) error {
	err := p.js.DeleteConsumer(ctx, subject.IngestStream, Durable)
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("take over consumer %s of %s: %w", Durable, subject.IngestStream, err)
	}
	consumer, err := p.js.CreateOrUpdateConsumer(ctx, subject.IngestStream, jetstream.ConsumerConfig{
		Durable: Durable, Description: "plain publishes on their way into the journal",
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: plainAckWait, MaxAckPending: plainAckPending,
		FilterSubject: subject.AllIngest, MaxDeliver: -1,
	})
	if err != nil {
		return fmt.Errorf("open consumer %s of %s: %w", Durable, subject.IngestStream, err)
	}
	stream, err := p.js.Stream(ctx, subject.IngestStream)
	if err != nil {
		return fmt.Errorf("look at %s: %w", subject.IngestStream, err)
	}
	// Sequences begin again when the stream is made anew.
	life := "i:" + strconv.FormatInt(stream.CachedInfo().Created.UnixMicro(), 36) + ":"
	msgs, err := consumer.Messages(jetstream.PullMaxMessages(plainFetch), jetstream.PullHeartbeat(plainHeartbeat))
	if err != nil {
		return fmt.Errorf("read %s: %w", subject.IngestStream, err)
	}
	defer msgs.Stop()
	defer context.AfterFunc(ctx, msgs.Stop)()
	// What it holds is not acknowledged: it comes again when this ends.
	held := newHoldback(p.now())
	defer p.metrics.held.Set(0)
	kept := p.now()
	for p.mine() && ctx.Err() == nil {
		if now := p.now(); now.Sub(kept) >= plainKeep {
			held.keep()
			kept = now
		}
		p.release(ctx, life, held)
		wait := held.wait(plainBackoff, p.now())
		if held.full() {
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
			continue
		}
		msg, err := msgs.Next(jetstream.NextMaxWait(wait))
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, nats.ErrTimeout):
			continue
		case err != nil:
			return fmt.Errorf("read %s: %w", subject.IngestStream, err)
		}
		p.take(ctx, life, msg, held)
	}
	return nil
}

// release publishes what was held back, as far as it is its turn.
func (p *Plain) release(ctx context.Context, life string, held *holdback) {
	for ctx.Err() == nil {
		msg, ok := held.next(p.now())
		if !ok {
			break
		}
		p.take(ctx, life, msg, nil)
	}
	p.metrics.held.Set(float64(held.len()))
}

// plainTicket acknowledges a message when it is in the journal.
type plainTicket struct {
	once sync.Once
	msg  jetstream.Msg
	p    *Plain
}

// Settle implements journal.Ticket. Without an acknowledgement the message
// comes again after AckWait, and the stream removes the repeat.
func (t *plainTicket) Settle(_ int, r publisher.Receipt) {
	t.once.Do(func() {
		var e *publisher.Error
		switch {
		case r.Err == nil:
			_ = t.msg.Ack() // lost: it comes again
		case errors.As(r.Err, &e) && !e.Code.Retryable():
			t.p.terminate(t.msg, r.Err)
		default:
			_ = t.msg.NakWithDelay(plainBackoff)
		}
	})
}

// take publishes a message, unless held takes it: then it comes here again,
// with held nil, when it is its turn.
func (p *Plain) take(ctx context.Context, life string, msg jetstream.Msg, held *holdback) {
	meta, err := msg.Metadata()
	if err != nil {
		p.terminate(msg, fmt.Errorf("not a message of the work queue: %w", err))
		return
	}
	if held != nil {
		p.metrics.plain.Inc()
		if meta.NumDelivered > 1 {
			p.metrics.redelivered.Inc()
		}
	}
	tenant, name, ok := subject.Ingest(msg.Subject())
	if !ok {
		p.terminate(msg, errors.New("the subject has no app and channel, want car.in.<app>.<channel>"))
		return
	}
	h := msg.Headers()
	pub := message.Publication{
		Kind: message.Event, App: tenant, Channel: name, Event: h.Get(subject.HeaderEvent), Data: msg.Data(),
		Exclude: h.Get(subject.HeaderExclude), ID: h.Get(subject.HeaderID), Trace: h.Get(traceHeader),
		IdempotencyKey: h.Get(subject.HeaderIdempotencyKey),
	}
	it, of, err := p.admit(&pub, meta.Timestamp)
	if err != nil {
		p.metrics.refuse(err)
		p.terminate(msg, err)
		return
	}
	// One that comes again was in time once.
	if held != nil && meta.NumDelivered == 1 && held.holds(of, msg, p.now()) {
		p.metrics.delayed.Inc()
		return
	}
	if it.MsgID == "" {
		it.MsgID = life + strconv.FormatUint(meta.Sequence.Stream, 36)
	}
	it.Ticket = &plainTicket{msg: msg, p: p}
	p.submit(ctx, &it)
}

// submit waits while the lane is full: the queue behind it is patient, and
// the order must hold.
func (p *Plain) submit(ctx context.Context, it *journal.Item) {
	for {
		err := p.writers.TrySubmit(it)
		p.writers.Kick()
		if !errors.Is(err, publisher.ErrBusy) {
			return // queued; or closing down, and the message comes again
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(plainRetry):
		}
	}
}

func (p *Plain) terminate(msg jetstream.Msg, reason error) {
	p.metrics.terminated.Inc()
	p.log.Warn("a plain publish was removed", "subject", clip(msg.Subject()), "reason", reason)
	if err := msg.TermWithReason(clip(reason.Error())); err != nil {
		p.log.Warn("removing a plain publish failed, it will come again", "err", err)
	}
}
