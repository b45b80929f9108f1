// Package hooks puts webhook events into their work queue. It knows nothing
// of what they say or who delivers them.
package hooks

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/hook"

	"github.com/carillon-rt/carillon/router/internal/stream"
)

const queueMax = 8 << 10

// Sender publishes events from a bounded queue: a webhook never holds a
// publish up.
type Sender struct {
	// immutable after New
	*hook.Queue
	id string

	// atomic
	numbers atomic.Uint64
}

// New creates the work queue when it is missing. Nothing leaves before Run.
func New(ctx context.Context, nc *nats.Conn, replicas int, log *slog.Logger, reg prometheus.Registerer) (*Sender, error) {
	js, err := jetstream.New(nc)
	if err != nil {
		return nil, fmt.Errorf("open JetStream for webhook events: %w", err)
	}
	if _, err := stream.SetUp(ctx, js, hook.StreamConfig(replicas), log); err != nil {
		return nil, err
	}
	total := telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "carillon_router_hooks_total", Help: "Webhook events queued, tried again because their stream was away, or lost because it was away for long or too many waited.",
	}, []string{"reason"}))
	var counters [hook.Lost + 1]prometheus.Counter
	for fate := range counters {
		counters[fate] = total.WithLabelValues(hook.Fate(fate).String())
	}
	queue, err := hook.NewQueue(nc, hook.QueueConfig{
		Size: queueMax, Log: log, Count: func(fate hook.Fate, n int) { counters[fate].Add(float64(n)) },
	})
	if err != nil {
		return nil, err
	}
	return &Sender{Queue: queue, id: nuid.Next()}, nil
}

// Send queues ev and never blocks.
func (s *Sender) Send(app string, ev hook.Event) {
	s.Put(app, s.id+":"+strconv.FormatUint(s.numbers.Add(1), 36), ev)
}

// SendOnce is Send for an event that several nodes may see: the work queue
// takes one of those with the same id.
func (s *Sender) SendOnce(app, id string, ev hook.Event) { s.Put(app, id, ev) }
