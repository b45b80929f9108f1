// Package hooks puts webhook events into their work queue. It knows nothing
// of what they say or who delivers them.
package hooks

import (
	"context"
	"encoding/json"
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
	queueMax     = 8 << 10
	inFlightMax  = 256
	publishWait  = 5 * time.Second
	publishTries = 3
	tryWait      = 200 * time.Millisecond
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
	lost  prometheus.Counter

	// atomic
	numbers atomic.Uint64
}

type queued struct {
	app, id string
	ev      hook.Event
}

// New creates the work queue when it is missing. Nothing leaves before Run.
func New(ctx context.Context, js jetstream.JetStream, replicas int, log *slog.Logger, reg prometheus.Registerer) (*Sender, error) {
	if _, err := stream.SetUp(ctx, js, hook.StreamConfig(replicas), log); err != nil {
		return nil, err
	}
	total := telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "carillon_router_hooks_total", Help: "Webhook events queued, or lost because the queue was full or away.",
	}, []string{"reason"}))
	return &Sender{
		js: js, log: log, id: nuid.Next(), queue: make(chan queued, queueMax),
		sent: total.WithLabelValues("sent"), lost: total.WithLabelValues("lost"),
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
	case s.queue <- queued{app, id, ev}:
	default:
		s.lost.Inc()
	}
}

// Run publishes until ctx ends and the queue is empty.
func (s *Sender) Run(ctx context.Context) error {
	flight := make([]jetstream.PubAckFuture, 0, inFlightMax)
	for {
		select {
		case q := <-s.queue:
			flight = s.fly(flight[:0], q)
		case <-ctx.Done():
			if len(s.queue) == 0 {
				return nil
			}
			flight = s.fly(flight[:0], <-s.queue)
		}
	}
}

// fly publishes q and what else waits, and waits for the acknowledgements.
func (s *Sender) fly(flight []jetstream.PubAckFuture, q queued) []jetstream.PubAckFuture {
	flight = s.publish(flight, q)
	for len(flight) < inFlightMax {
		select {
		case q := <-s.queue:
			flight = s.publish(flight, q)
			continue
		default:
		}
		break
	}
	deadline := time.NewTimer(publishWait)
	defer deadline.Stop()
	for _, f := range flight {
		select {
		case <-f.Ok():
			s.sent.Inc()
		case err := <-f.Err():
			s.fail(err)
		case <-deadline.C:
			s.fail(nats.ErrTimeout)
			deadline.Reset(0)
		}
	}
	return flight
}

func (s *Sender) publish(flight []jetstream.PubAckFuture, q queued) []jetstream.PubAckFuture {
	body, err := json.Marshal(q.ev)
	if err != nil {
		s.fail(err)
		return flight
	}
	f, err := s.js.PublishAsync(subject.Hook(q.app), body, jetstream.WithMsgID(q.id),
		jetstream.WithRetryAttempts(publishTries), jetstream.WithRetryWait(tryWait))
	if err != nil {
		s.fail(err)
		return flight
	}
	return append(flight, f)
}

func (s *Sender) fail(err error) {
	s.lost.Inc()
	s.log.Warn("a webhook event was not queued", "err", err)
}
