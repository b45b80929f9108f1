// Package presence is a presence node: it owns some of the presence shards of
// the cluster and follows others as a standby. It joins the pure state of
// internal/replica with NATS, the membership and the clock; it knows no
// clients and no gateway's insides.
package presence

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/presence/internal/replica"
	"github.com/carillon-rt/carillon/presence/internal/state"
	"github.com/carillon-rt/carillon/proto/app"
	facts "github.com/carillon-rt/carillon/proto/cluster"
	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

// Service is a presence node.
//
//	membership ──> view ──┐
//	prober ──── evict ────┤
//	                      v
//	car.pres.<s>.*  ──> workers (each owns shards) ──> car.live.<p>, replies, notes
//	                      │
//	                      └──> hooks ──> car.hook.<app>
type Service struct {
	// immutable after New
	cfg     Config
	node    string
	inc     string
	nc      *nats.Conn
	js      jetstream.JetStream
	cluster cluster.Membership
	apps    *app.Registry
	log     *slog.Logger
	metrics *metrics
	workers []*worker
	hooks   *hook.Queue
	prober  *prober
	recheck chan struct{} // has room for one
}

// New builds a presence node on deps; apps need no secrets and may be
// replaced at any time. It starts nothing.
func New(cfg Config, deps service.Deps, apps *app.Registry) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("presence: %w", err)
	}
	if apps == nil {
		return nil, errors.New("presence: there is no registry of apps")
	}
	js, err := jetstream.New(deps.NATS.Req)
	if err != nil {
		return nil, fmt.Errorf("presence: %w", err)
	}
	local := deps.Cluster.Local()
	s := &Service{
		cfg: cfg, node: local.Node, inc: local.Incarnation, nc: deps.NATS.Req, js: js, cluster: deps.Cluster,
		apps: apps, log: deps.Log, metrics: newMetrics(deps.Metrics), recheck: make(chan struct{}, 1),
	}
	s.hooks, err = hook.NewQueue(s.nc, hook.QueueConfig{
		Size: cfg.HookQueue, Create: true, Replicas: cfg.Replicas, Log: deps.Log, Count: s.metrics.hooked,
	})
	if err != nil {
		return nil, fmt.Errorf("presence: %w", err)
	}
	s.prober = newProber(s.nc, deps.Log, func(ctx context.Context, m presence.Mark) { s.tell(ctx, command{evict: &m}) })
	deps.NATS.OnReconnect(s.prober.reconnected)
	for range cfg.workers() {
		w := &worker{
			svc: s, messages: make(chan *nats.Msg, cfg.Queue), commands: make(chan command, 16),
			stopped: make(chan struct{}), routes: map[string]route{}, clock: newClock(),
		}
		w.claiming.Store(noView)
		s.workers = append(s.workers, w)
	}
	for shard := range subject.PresenceShards {
		s.workers[shard%len(s.workers)].addShard(shard)
	}
	deps.NATS.OnReconnect(s.checkAgain)
	deps.NATS.OnSlowConsumer(s.dropped)
	if deps.Ops != nil {
		deps.Ops.Ready("presence", s.Ready)
		deps.Ops.Handle("/debug/presence", s.debugPage())
	}
	return s, nil
}

func (s *Service) newReplica(shard int) *replica.Replica {
	third := int(s.nc.MaxPayload() / 3)
	return replica.New(s.node, s.inc, state.Config{
		Shard: shard, App: s.apps.ByID, RosterBytes: third, ReplyBytes: 2 * third,
	})
}

// checkAgain has standbys compare with the gateways: messages may have been
// missed.
func (s *Service) checkAgain() {
	select {
	case s.recheck <- struct{}{}:
	default:
	}
}

// dropped: messages on a subject were lost. Other services of this process use
// the connections, too.
func (s *Service) dropped(name string) {
	for _, w := range s.workers {
		if _, ours := w.routes[name]; ours {
			s.checkAgain()
			return
		}
	}
}

// Run owns shards until ctx ends; then it hands them over and stops.
func (s *Service) Run(ctx context.Context) error {
	partitions, err := s.partitions(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	// Workers need the prober and the hooks, hooks need nobody.
	telling, told := context.WithCancel(context.WithoutCancel(ctx))
	defer told()
	hooks := make(chan error, 1)
	go func() { hooks <- s.hooks.Run(telling) }()
	var watchers, workers sync.WaitGroup
	stop := make(chan struct{})
	for _, w := range s.workers {
		w.announce = newAnnouncer(partitions, s.nc.Publish)
		workers.Go(func() { w.run(stop) })
	}
	watchers.Go(func() { s.prober.run(ctx) })
	watchers.Go(func() { s.watch(ctx) })
	<-ctx.Done()
	watchers.Wait()
	close(stop)
	workers.Wait()
	told()
	return <-hooks
}

// partitions is the cluster's number of partitions.
func (s *Service) partitions(ctx context.Context) (int, error) {
	if s.cfg.Partitions > 0 {
		return s.cfg.Partitions, nil
	}
	n, err := facts.Partitions(ctx, s.js, 0, 0)
	if err != nil {
		return 0, fmt.Errorf("presence: %w", err)
	}
	return n, nil
}

// settleAfter is how long after a reconnect a changed membership waits: when
// all of NATS was away nodes come back, and say so, one by one.
const settleAfter = time.Second

// watch tells the workers what every change of the membership means.
func (s *Service) watch(ctx context.Context) {
	changed, stop := s.cluster.Watch()
	defer stop()
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	var unconnected time.Time // when the connection was last seen missing
	due := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			due = true
		case <-s.recheck:
			s.tell(ctx, command{recheck: true})
		case <-tick.C:
		}
		if !s.nc.IsConnected() {
			unconnected = time.Now()
		}
		if due && time.Since(unconnected) > settleAfter {
			due = false
			s.tell(ctx, command{view: newView(s.cluster)})
		}
	}
}

// tell gives a command to every worker, unless ctx ends first.
func (s *Service) tell(ctx context.Context, cmd command) {
	for _, w := range s.workers {
		select {
		case w.commands <- cmd:
		case <-w.stopped:
		case <-ctx.Done():
			return
		}
	}
}

// debugTimeout bounds how long the debug page waits for a busy worker.
const debugTimeout = 2 * time.Second
