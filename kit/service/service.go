// Package service is the frame that every service runs in: it loads the configuration, opens telemetry, the ops port, NATS and membership,
// builds the service on them and stops everything in order. It knows no service.
package service

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/natsconn"
	"github.com/carillon-rt/carillon/kit/ops"
	"github.com/carillon-rt/carillon/kit/telemetry"
)

// Deps is what a service is built on. All of it outlives the service's Run.
type Deps struct {
	NATS    *natsconn.Conns
	Cluster cluster.Membership
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Tracer  trace.TracerProvider
	Ops     *ops.Server

	// leave ends what other nodes see of this one: membership and NATS. A
	// second call does nothing.
	leave func(context.Context) error
}

// Runner is a built service: Run blocks until ctx ends and everything it started has stopped.
type Runner interface {
	Run(ctx context.Context) error
}

// RunnerFunc makes a function a Runner.
type RunnerFunc func(ctx context.Context) error

// Run calls f.
func (f RunnerFunc) Run(ctx context.Context) error { return f(ctx) }

// NodeConfig names this node.
type NodeConfig struct {
	Name string `yaml:"name" doc:"name of this node, unique in the cluster and stable over restarts; empty: the host name"`
}

// Validate reports a name that can't stand in a NATS subject, or that would stand for other nodes there.
func (c NodeConfig) Validate() error {
	bad := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) || strings.ContainsRune("*>", r) }
	if c.Name != "" && (strings.ContainsFunc(c.Name, bad) || slices.Contains(strings.Split(c.Name, "."), "")) {
		return fmt.Errorf("name is %q, want it without spaces, * and >, and no dot at its ends or beside another, such as node-1", c.Name)
	}
	return nil
}

// Common are the sections of the configuration that every service has. A service inlines it in its own configuration.
type Common struct {
	Node      NodeConfig              `yaml:"node"`
	NATS      natsconn.Config         `yaml:"nats"`
	Cluster   cluster.Config          `yaml:"cluster"`
	Ops       ops.Config              `yaml:"ops"`
	Log       telemetry.LogConfig     `yaml:"log"`
	Telemetry telemetry.TracingConfig `yaml:"telemetry"`
	Shutdown  ShutdownConfig          `yaml:"shutdown"`
}

// ShutdownConfig bounds the end.
type ShutdownConfig struct {
	Grace time.Duration `yaml:"grace" doc:"how long the service may take to stop, its drain included; the rest gets a few seconds more"`
}

// Validate reports a grace that leaves no time.
func (c ShutdownConfig) Validate() error {
	if c.Grace <= 0 {
		return fmt.Errorf("grace is %s, want more than 0", c.Grace)
	}
	return nil
}

// DefaultCommon returns the defaults of all common sections.
func DefaultCommon() Common {
	return Common{
		NATS: natsconn.DefaultConfig(), Cluster: cluster.DefaultConfig(), Ops: ops.DefaultConfig(),
		Log: telemetry.DefaultLogConfig(), Telemetry: telemetry.DefaultTracingConfig(),
		Shutdown: ShutdownConfig{Grace: 60 * time.Second},
	}
}

// NodeName returns the configured name or the host's.
func (c Common) NodeName() string {
	if c.Node.Name != "" {
		return c.Node.Name
	}
	if host, err := os.Hostname(); err == nil && host != "" {
		return host
	}
	return "node"
}

// version is set by the linker for releases: -X github.com/carillon-rt/carillon/kit/service.version=v1.2.3.
var version string

// Version returns what the linker was told, else the version of the main module, or its revision, as the build recorded it.
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && len(s.Value) >= 12 {
			return s.Value[:12]
		}
	}
	return "devel"
}

// Options are what a process adds to its configuration when it opens Deps.
type Options struct {
	// Service names the process in logs, traces and NATS connections; required.
	Service string
	// Log replaces the logger that the configuration describes.
	Log *slog.Logger
	// Metrics replaces the new registry.
	Metrics *telemetry.Metrics
	// Addr is the address that other nodes see in Member.Addr; empty: the gossip address.
	Addr string
}

// Open starts what a service is built on, in the order telemetry, ops port, NATS, membership, and returns the function that stops it in reverse. It
// waits for NATS until ctx ends; the ops port answers meanwhile. Readiness stays off until the caller says Ops.SetStarting(false). On
// an error nothing is left behind.
func Open(ctx context.Context, cfg Common, roles []string, opts Options) (Deps, func(context.Context) error, error) {
	var own, shared closers
	deps, err := open(ctx, cfg, roles, opts, &own, &shared)
	deps.leave = shared.close
	closeAll := func(ctx context.Context) error { return errors.Join(shared.close(ctx), own.close(ctx)) }
	if err != nil {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if stopErr := closeAll(stopCtx); stopErr != nil && deps.Log != nil {
			deps.Log.Warn("clean up after a failed start", "err", stopErr)
		}
		return Deps{}, nil, err
	}
	return deps, closeAll, nil
}

// open puts what is this process's own (telemetry, ops port) into own and what other nodes see (NATS, membership) into shared.
func open(ctx context.Context, cfg Common, roles []string, opts Options, own, shared *closers) (Deps, error) {
	node := cfg.NodeName()
	deps := Deps{Log: opts.Log}
	if deps.Log == nil {
		deps.Log = telemetry.NewLogger(os.Stderr, cfg.Log.Level, cfg.Log.Format).With("service", opts.Service, "node", node)
	}
	metrics := opts.Metrics
	if metrics == nil {
		metrics = telemetry.NewMetrics()
	}
	deps.Metrics = metrics

	tracing := cfg.Telemetry
	tracing.Service, tracing.Node = opts.Service, node
	tracer, flush, err := telemetry.NewTracing(ctx, tracing)
	if err != nil {
		return deps, err
	}
	deps.Tracer = tracer
	own.add(flush)

	if deps.Ops, err = ops.New(cfg.Ops, metrics); err != nil {
		return deps, err
	}
	deps.Ops.SetStarting(true)
	own.addRun(deps.Ops.Run)

	if deps.NATS, err = natsconn.Connect(ctx, cfg.NATS, opts.Service+"/"+node, deps.Log, metrics); err != nil {
		return deps, err
	}
	deps.Ops.Ready("nats", deps.NATS.Connected)
	shared.add(func(context.Context) error { return deps.NATS.Close() })

	return deps, openCluster(cfg, roles, opts, &deps, shared)
}

func openCluster(cfg Common, roles []string, opts Options, deps *Deps, stops *closers) error {
	local := cluster.Member{
		Node: cfg.NodeName(), Incarnation: cluster.NewIncarnation(), Roles: roles, Addr: opts.Addr, Version: Version(),
	}
	if cfg.Cluster.Listen == "" {
		deps.Cluster = cluster.NewStatic(local)
	} else {
		gossip, err := cluster.New(cfg.Cluster, local, deps.Log)
		if err != nil {
			return err
		}
		deps.Cluster = gossip
		stops.addRun(gossip.Run)
		stops.addRun(watchNATS(gossip, deps.NATS, deps.Log))
	}
	deps.Ops.Handle("/debug/cluster", membersPage(deps.Cluster))
	return nil
}
