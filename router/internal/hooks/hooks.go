// Package hooks puts webhook events into their work queue. It knows nothing
// of what they say or who delivers them.
package hooks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/subject"

	"github.com/carillon-rt/carillon/router/internal/stream"
)

const (
	queueMax    = 8 << 10
	inFlightMax = 256
	publishWait = 5 * time.Second
	// An event that the queue does not take is tried again, for about a minute
	// when the queue is missing and longer when it is slow.
	triesMax = 60
	tryAgain = time.Second
)

// Sender publishes events from a bounded queue; what does not fit is dropped
// and counted: a webhook never holds a publish up.
type Sender struct {
	// immutable after New
	js    jetstream.JetStream
	log   *slog.Logger
	id    string
	queue chan queued
	sent  prometheus.Counter
	again prometheus.Counter
	lost  prometheus.Counter

	// atomic
	numbers atomic.Uint64
}

type queued struct {
	app, id string
	ev      hook.Event
	tries   int
}

// attempt is an event on its way; ack is nil when it could not leave.
type attempt struct {
	queued
	ack jetstream.PubAckFuture
}

// New creates the work queue when it is missing. Nothing leaves before Run.
func New(ctx context.Context, nc *nats.Conn, replicas int, log *slog.Logger, reg prometheus.Registerer) (*Sender, error) {
	js, err := jetstream.New(nc, jetstream.WithPublishAsyncTimeout(publishWait))
	if err != nil {
		return nil, fmt.Errorf("open JetStream for webhook events: %w", err)
	}
	if _, err := stream.SetUp(ctx, js, hook.StreamConfig(replicas), log); err != nil {
		return nil, err
	}
	total := telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "carillon_router_hooks_total", Help: "Webhook events queued, tried again because their stream was away, or lost because it was away for long or too many waited.",
	}, []string{"reason"}))
	return &Sender{
		js: js, log: log, id: nuid.Next(), queue: make(chan queued, queueMax),
		sent: total.WithLabelValues("sent"), again: total.WithLabelValues("retried"), lost: total.WithLabelValues("lost"),
	}, nil
}

// Send queues ev and never blocks.
func (s *Sender) Send(app string, ev hook.Event) {
	s.SendOnce(app, s.id+":"+strconv.FormatUint(s.numbers.Add(1), 36), ev)
}

// SendOnce is Send for an event that several nodes may see: the work queue
// takes one of those with the same id.
func (s *Sender) SendOnce(app, id string, ev hook.Event) {
	select {
	case s.queue <- queued{app: app, id: id, ev: ev}:
	default:
		s.lost.Inc()
	}
}

// Run publishes until ctx ends and the queue is empty.
func (s *Sender) Run(ctx context.Context) error {
	var failed []queued
	for {
		flight := make([]attempt, 0, inFlightMax)
		for _, q := range failed {
			flight = append(flight, s.publish(q))
		}
		flight, more := s.collect(ctx, flight)
		if !more {
			return nil
		}
		if failed = s.settle(ctx, flight); len(failed) > 0 {
			select {
			case <-ctx.Done():
			case <-time.After(tryAgain):
			}
		}
	}
}

// collect publishes what waits; it blocks only for the first event. It returns
// false at the end.
func (s *Sender) collect(ctx context.Context, flight []attempt) ([]attempt, bool) {
	if len(flight) == 0 && len(s.queue) == 0 {
		select {
		case q := <-s.queue:
			flight = append(flight, s.publish(q))
		case <-ctx.Done():
			return flight, len(s.queue) > 0
		}
	}
	for len(flight) < inFlightMax {
		select {
		case q := <-s.queue:
			flight = append(flight, s.publish(q))
		default:
			return flight, true
		}
	}
	return flight, true
}

// settle waits for the acknowledgements and returns what is to be tried again.
// One that was taken without our knowing is sent again with the same id.
func (s *Sender) settle(ctx context.Context, flight []attempt) (failed []queued) {
	for i := range flight {
		a := &flight[i]
		err := errNotSent
		if a.ack != nil {
			select { // the client ends both, after publishWait at the latest
			case <-a.ack.Ok():
				s.sent.Inc()
				continue
			case err = <-a.ack.Err():
			}
		}
		if a.tries++; a.tries >= triesMax || ctx.Err() != nil {
			s.lost.Inc()
			s.log.Warn("a webhook event was not queued", "app", a.app, "event", a.ev.Name, "err", err)
			continue
		}
		s.again.Inc()
		failed = append(failed, a.queued)
	}
	return failed
}

var errNotSent = errors.New("it could not be sent")

func (s *Sender) publish(q queued) attempt {
	body, err := json.Marshal(q.ev)
	if err != nil { // only strings and numbers in there
		s.log.Error("a webhook event can't be encoded", "err", err)
		return attempt{queued: q}
	}
	ack, err := s.js.PublishAsync(subject.Hook(q.app), body, jetstream.WithMsgID(q.id))
	if err != nil {
		s.log.Debug("a webhook event can't be sent", "err", err)
	}
	return attempt{q, ack}
}
