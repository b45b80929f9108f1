// Package webhook tells applications what happens: it takes events from the work queue and posts them to the endpoints that want them, signed,
// until they are taken or their time is over; then they wait in a stream of dead events to be replayed. It owns queue, retries and
// signatures; it knows nothing of who saw the events.
//
// Delivery is at least once and in no fixed order: a receiver may see an event again after a crash, a lost answer or a restart. The events
// can also be read in NATS, by a core subscription to subject.Hook(app): "car.hook.<app>".
package webhook

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/proto/app"
)

// consumerName is the durable that all api nodes share, so that an event is delivered once per cluster.
const consumerName = "api"

// Deps are what a Service works with.
type Deps struct {
	NATS    *nats.Conn
	Apps    *app.Registry // with secrets
	Log     *slog.Logger
	Metrics prometheus.Registerer
}

// Service delivers webhooks.
type Service struct {
	// immutable after New
	cfg     Config
	nc      *nats.Conn
	js      jetstream.JetStream
	apps    *app.Registry
	log     *slog.Logger
	metrics *metrics
	client  *http.Client

	// atomic
	ready atomic.Bool  // the queue is open
	ill   atomic.Int32 // endpoints that are taken for ill

	running sync.WaitGroup // endpoints; Run waits for it

	mu sync.Mutex
	// guarded by mu
	held      map[place]*held
	endpoints map[string]*endpoint // by "app/id"
}

// New returns the service. Streams are created by Run, as NATS may not be ready yet.
func New(cfg Config, deps Deps) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	js, err := jetstream.New(deps.NATS)
	if err != nil {
		return nil, fmt.Errorf("webhook: %w", err)
	}
	return &Service{
		cfg: cfg, nc: deps.NATS, js: js, apps: deps.Apps, log: deps.Log, metrics: newMetrics(deps.Metrics), client: newClient(cfg),
		held: map[place]*held{}, endpoints: map[string]*endpoint{},
	}, nil
}

// Ready is nil while the work queue is open.
func (s *Service) Ready() error {
	if !s.ready.Load() {
		return errors.New("the webhook queue is not open")
	}
	return nil
}

// Run delivers until ctx ends. Then it takes no more events, waits for the requests under way (Config.Timeout at most) and gives
// the rest back to the queue.
func (s *Service) Run(ctx context.Context) error {
	keepCtx, stopKeeping := context.WithCancel(context.WithoutCancel(ctx))
	var keeping sync.WaitGroup
	keeping.Go(func() { s.keep(keepCtx) })
	s.receive(ctx)
	s.running.Wait()
	stopKeeping()
	keeping.Wait()
	s.giveBack()
	s.client.CloseIdleConnections()
	return nil
}
