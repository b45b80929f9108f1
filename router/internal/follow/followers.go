package follow

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/message"
)

const (
	// owners is how many routers follow a partition.
	owners = 2
	// linger is how long a partition is still served after it has moved on: the
	// new follower has to catch up first.
	linger = 5 * time.Second
)

// Config of the followers.
type Config struct {
	Partitions int
	Role       string // of the nodes that share the partitions
	RingBytes  int64  // memory for the rings of all partitions
	Patience   time.Duration
}

// Hooks take cache misses.
type Hooks interface {
	SendOnce(app, id string, ev hook.Event)
}

// Metrics of the followers.
type Metrics struct {
	reg                                            prometheus.Registerer
	batches, malformed, requests, unreadable, late prometheus.Counter
}

// NewMetrics registers the followers' metrics; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return telemetry.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "carillon_router_" + name, Help: help,
		}))
	}
	return &Metrics{
		reg:        reg,
		batches:    counter("followed_batches_total", "Batches read from the journal."),
		unreadable: counter("history_requests_malformed_total", "Requests for history and cached values that could not be read."),
		malformed:  counter("followed_malformed_total", "Batches of the journal that could not be read."),
		requests:   counter("history_requests_total", "Requests for history and cached values."),
		late:       counter("history_late_total", "Requests for positions that were not reached in time."),
	}
}

// Followers follow the partitions that this node owns.
type Followers struct {
	// immutable after New
	cfg     Config
	nc      *nats.Conn
	js      jetstream.JetStream
	journal Journal
	apps    *app.Registry
	members cluster.Membership
	hooks   Hooks
	log     *slog.Logger
	metrics *Metrics

	mu sync.Mutex
	// guarded by mu
	following map[int]*followed

	// owned by Run
	running sync.WaitGroup
}

// followed is a partition that is followed, or still served.
type followed struct {
	*follower
	stop   context.CancelFunc
	lostAt time.Time // zero while this node is an owner
}

// New prepares the followers; they start with Run.
func New(
	cfg Config, nc *nats.Conn, js jetstream.JetStream, j Journal, apps *app.Registry, members cluster.Membership,
	hooks Hooks, log *slog.Logger, m *Metrics,
) *Followers {
	f := &Followers{
		cfg: cfg, nc: nc, js: js, journal: j, apps: apps, members: members, hooks: hooks, log: log, metrics: m,
		following: map[int]*followed{},
	}
	gauge := func(name, help string, of func(State) float64) {
		telemetry.Register(m.reg, prometheus.GaugeFunc(prometheus.NewGaugeFunc(
			prometheus.GaugeOpts{Name: "carillon_router_" + name, Help: help}, func() float64 { return f.sum(of) })))
	}
	gauge("ring_bytes", "Memory of the rings.", func(s State) float64 { return float64(s.Bytes) })
	gauge("ring_channels", "Channels that have a ring.", func(s State) float64 { return float64(s.Channels) })
	gauge("ring_evictions", "Channels forgotten for lack of memory.", func(s State) float64 { return float64(s.Evicted) })
	gauge("followed_partitions", "Partitions that this router follows.", func(State) float64 { return 1 })
	return f
}

// Run follows what the membership says until ctx ends.
func (f *Followers) Run(ctx context.Context) error {
	changed, stop := f.members.Watch()
	defer stop()
	ctx, cancel := context.WithCancel(ctx)
	defer f.running.Wait()
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		case <-tick.C:
		}
		f.reconcile(ctx, time.Now())
	}
}

// reconcile starts what is new and stops what was lost long enough ago.
func (f *Followers) reconcile(ctx context.Context, now time.Time) {
	routers := cluster.Reachable(f.members.Members(), f.cfg.Role)
	f.mu.Lock()
	defer f.mu.Unlock()
	for p := range f.cfg.Partitions {
		mine := f.owns(routers, p)
		have := f.following[p]
		switch {
		case mine && have == nil:
			f.start(ctx, p)
		case mine:
			have.lostAt = time.Time{}
		case have == nil:
		case have.lostAt.IsZero():
			have.lostAt = now
		case now.Sub(have.lostAt) > linger:
			have.stop()
			delete(f.following, p)
		}
	}
}

func (f *Followers) owns(routers []cluster.Member, p int) bool {
	self := f.members.Local().Node
	for _, m := range cluster.Owners(routers, "partition/"+strconv.Itoa(p), owners) {
		if m.Node == self {
			return true
		}
	}
	return false
}

// start follows partition p. mu is held.
func (f *Followers) start(ctx context.Context, p int) {
	ctx, stop := context.WithCancel(ctx)
	fo := &follower{
		partition: p, nc: f.nc, js: f.js, journal: f.journal, apps: f.apps, misses: f.miss,
		ringBytes: f.cfg.RingBytes / int64(f.cfg.Partitions), patience: f.cfg.Patience,
		payloadMax: f.nc.MaxPayload, log: f.log.With("partition", p), metrics: f.metrics,
	}
	fo.reset()
	f.following[p] = &followed{follower: fo, stop: stop}
	f.running.Go(func() { fo.run(ctx) })
}

// miss reports a cache miss of a channel whose newest position is top.
func (f *Followers) miss(tenant *app.App, name string, top message.Position) {
	if !tenant.WantsHook(hook.CacheMiss, name) {
		return
	}
	now := time.Now()
	f.hooks.SendOnce(tenant.ID, missID(tenant.ID, name, top, now),
		hook.Event{Name: hook.CacheMiss, Channel: name, TimeMs: now.UnixMilli()})
}

// State describes a followed partition, for people.
type State struct {
	Partition int
	CaughtUp  bool
	Last      uint64
	Channels  int
	Bytes     int64
	Evicted   uint64
	Waiting   int
	Epoch     string
}

// States lists the followed partitions.
func (f *Followers) States() []State {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []State
	for p := range f.cfg.Partitions {
		if fo := f.following[p]; fo != nil {
			out = append(out, fo.state())
		}
	}
	return out
}

func (f *follower) state() State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return State{
		Partition: f.partition, CaughtUp: f.caughtUp.Load(), Last: f.last, Channels: f.rings.Channels(),
		Bytes: f.rings.Bytes(), Evicted: f.rings.Evicted(), Waiting: len(f.waiting), Epoch: f.epoch,
	}
}

func (f *Followers) sum(of func(State) float64) float64 {
	total := 0.0
	for _, s := range f.States() {
		total += of(s)
	}
	return total
}

// CaughtUp says whether every partition that this node owns is served.
func (f *Followers) CaughtUp() bool {
	routers := cluster.Reachable(f.members.Members(), f.cfg.Role)
	f.mu.Lock()
	defer f.mu.Unlock()
	for p := range f.cfg.Partitions {
		if fo := f.following[p]; f.owns(routers, p) && (fo == nil || !fo.caughtUp.Load()) {
			return false
		}
	}
	return true
}

func itoa(n uint64) string { return strconv.FormatUint(n, 36) }
