// Package router is the channel router: it takes publications from api,
// gateways and backends, orders and stores those of durable channels in the
// journal, sends the others straight to the gateways, and serves history and
// cached values. Any number of routers work side by side: none owns anything
// that another can't take over at once. It knows no client and no protocol of
// theirs.
package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/run"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/proto/app"

	"github.com/carillon-rt/carillon/router/internal/follow"
	"github.com/carillon-rt/carillon/router/internal/hooks"
	"github.com/carillon-rt/carillon/router/internal/ingest"
	"github.com/carillon-rt/carillon/router/internal/journal"
)

const (
	setUpRetry   = 500 * time.Millisecond
	setUpTimeout = 10 * time.Second
	// retentionMin keeps the default life of a cached value (30m), and slack,
	// whatever the policies say.
	retentionMin   = 35 * time.Minute
	retentionSlack = 5 * time.Minute
	stopSlack      = 3 * time.Second
	tracerName     = "github.com/carillon-rt/carillon/router"
)

// Router is one router node.
type Router struct {
	// immutable after New
	cfg  Config
	deps service.Deps
	apps *app.Registry
	log  *slog.Logger

	// atomic
	parts atomic.Pointer[parts] // nil until the streams are set up
}

// parts are what runs when the streams are there.
type parts struct {
	partitions int
	journal    *journal.Journal
	hooks      *hooks.Sender
	followers  *follow.Followers
	writers    *journal.Writers
	plain      *ingest.Plain
	doors      *ingest.Doors
}

// New checks cfg and prepares a router for the apps, of which it needs no
// secrets. Nothing starts before Run.
func New(cfg Config, deps service.Deps, apps *app.Registry) (*Router, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	r := &Router{cfg: cfg, deps: deps, apps: apps, log: deps.Log}
	if deps.Ops != nil {
		deps.Ops.Ready("router", r.Ready)
		deps.Ops.Handle("/debug/partitions", partitionsPage{r})
	}
	return r, nil
}

// Ready returns nil when this router takes publications and has caught up
// with the partitions that it serves, else what is missing.
func (r *Router) Ready() error {
	p := r.parts.Load()
	if p == nil {
		return errors.New("the streams are not set up yet")
	}
	if !p.followers.CaughtUp() {
		return errors.New("catching up with the journal")
	}
	return nil
}

// Run sets the streams up, waiting for NATS as long as it takes, and works
// until ctx ends. It stops in order: the doors first, then the writers when
// what was taken is written, then the readers.
func (r *Router) Run(ctx context.Context) error {
	p, err := r.setUp(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	if err := p.journal.Clock.Ask(ctx, r.deps.NATS.Live); err != nil {
		return err
	}
	r.parts.Store(p)
	r.deps.NATS.OnReconnect(p.journal.Check)
	r.log.Info("router runs", "partitions", p.partitions, "epoch", p.journal.Epoch())
	group := run.Group{Grace: r.cfg.Drain + stopSlack}
	group.Add("journal", p.journal.Run)
	group.Add("clock", func(ctx context.Context) error { return p.journal.Clock.Listen(ctx, r.deps.NATS.Live) })
	group.Add("followers", p.followers.Run)
	group.Add("hooks", p.hooks.Run)
	group.Add("writers", p.writers.Run)
	group.Add("plain ingest", p.plain.Run)
	group.Add("doors", p.doors.Run)
	return group.Run(ctx)
}

// setUp tries until it works or ctx ends: JetStream may still elect leaders.
func (r *Router) setUp(ctx context.Context) (*parts, error) {
	for attempt := 1; ; attempt++ {
		p, err := r.trySetUp(ctx)
		if err == nil {
			return p, nil
		}
		if attempt == 1 || attempt%20 == 0 {
			r.log.Warn("the streams can't be set up, trying on", "attempt", attempt, "err", err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("set up the streams: %w", errors.Join(err, ctx.Err()))
		case <-time.After(setUpRetry):
		}
	}
}

func (r *Router) trySetUp(ctx context.Context) (*parts, error) {
	setUpCtx, cancel := context.WithTimeout(ctx, setUpTimeout)
	defer cancel()
	conns := r.deps.NATS
	js, err := jetstream.New(conns.Req)
	if err != nil {
		return nil, fmt.Errorf("open JetStream: %w", err)
	}
	p := &parts{}
	if p.journal, err = journal.Open(setUpCtx, r.journalConfig(), js, r.log); err != nil {
		return nil, err
	}
	if p.partitions, err = p.journal.Partitions(setUpCtx, r.cfg.Partitions); err != nil {
		return nil, err
	}
	if p.partitions != r.cfg.Partitions {
		r.log.Warn("router.partitions differs from what this cluster was begun with, which stays",
			"configured", r.cfg.Partitions, "used", p.partitions)
	}
	if p.hooks, err = hooks.New(setUpCtx, conns.Req, r.cfg.Replicas, r.log, r.deps.Metrics); err != nil {
		return nil, err
	}
	r.assemble(p, js)
	return p, nil
}

func (r *Router) journalConfig() journal.Config {
	return journal.Config{
		Replicas: r.cfg.Replicas, LogBytes: int64(r.cfg.LogBytes), IngestBytes: int64(r.cfg.IngestBytes),
		IngestAge: r.cfg.IngestAge, IdempotencyWindow: r.cfg.IdempotencyWindow,
		// The stream remembers keys for no longer than it keeps anything.
		Retention: func() time.Duration { return max(Retention(r.apps), r.cfg.IdempotencyWindow) },
	}
}

func (r *Router) assemble(p *parts, js jetstream.JetStream) {
	conns, log, reg := r.deps.NATS, r.log, r.deps.Metrics
	p.writers = journal.NewWriters(journal.WriterConfig{
		Partitions: p.partitions, QueueMax: r.cfg.QueuePublications, QueueBytesMax: int(r.cfg.QueueBytes),
		AckTimeout: r.cfg.AckTimeout, GiveUp: r.cfg.GiveUp, Drain: r.cfg.Drain,
	}, p.journal, conns.Req, conns.Live, log, journal.NewMetrics(reg), r.deps.Tracer.Tracer(tracerName))
	p.followers = follow.New(follow.Config{
		Partitions: p.partitions, Role: Role, RingBytes: int64(r.cfg.RingBytes), Patience: r.cfg.HistoryWait,
	}, conns.Req, js, p.journal, r.apps, r.deps.Cluster, p.hooks, log, follow.NewMetrics(reg))
	doorMetrics := ingest.NewMetrics(reg)
	p.plain = ingest.NewPlain(js, conns.Req, r.apps, p.writers, r.ownsIngest, log, doorMetrics)
	p.doors = ingest.NewDoors(ingest.Config{
		Node: r.deps.Cluster.Local().Node, Patience: r.cfg.AcceptTimeout,
	}, conns.Req, r.apps, p.writers, p.hooks, log, doorMetrics)
}

// ownsIngest says whether this router takes plain publishes.
func (r *Router) ownsIngest() bool {
	owner, ok := cluster.Owner(cluster.Reachable(r.deps.Cluster.Members(), Role), "ingest")
	return ok && owner.Node == r.deps.Cluster.Local().Node
}

// Retention is how long the journal keeps publications for the apps'
// policies.
func Retention(apps *app.Registry) time.Duration {
	longest := retentionMin - retentionSlack
	for _, a := range apps.All() {
		for _, p := range a.Policies {
			longest = max(longest, p.History.TTL, p.CacheTTL)
		}
	}
	return longest + retentionSlack
}
