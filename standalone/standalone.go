// Package standalone assembles nodes: all services in one process on an embedded NATS server, or any of them on a shared one. It owns
// the order in which they start and stop, and nothing of what they do.
package standalone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/api"
	"github.com/carillon-rt/carillon/authsvc"
	"github.com/carillon-rt/carillon/gateway"
	"github.com/carillon-rt/carillon/kit/natsembed"
	"github.com/carillon-rt/carillon/kit/run"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/presence"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/cluster"
	"github.com/carillon-rt/carillon/router"
	"github.com/carillon-rt/carillon/standalone/internal/demo"
)

// serviceName is what the process is called in logs, traces and NATS connections.
const serviceName = "carillon"

// closeTimeout bounds the stop of what the services stood on.
const closeTimeout = 15 * time.Second

// Addresses is where a node listens, as host:port; empty where it does not.
type Addresses struct {
	Public string `json:"public"` // clients; in a process with the api role the HTTP API too
	API    string `json:"api"`    // the API's own port
	// CentrifugoGRPC is the Centrifugo server API over gRPC.
	CentrifugoGRPC string `json:"centrifugo_grpc"`
	Ops            string `json:"ops"`
	NATS           string `json:"nats"` // nats:// URL of the embedded server
}

// Options are what the process adds to the configuration.
type Options struct {
	// Log replaces the logger that the configuration describes.
	Log *slog.Logger
	// Started is called once, when everything listens; an error ends the node.
	Started func(Addresses) error
}

// Node is one process of an installation.
type Node struct {
	cfg  Config
	opts Options
}

// New makes a node from a configuration that Load has read.
func New(cfg Config, opts Options) *Node { return &Node{cfg: cfg, opts: opts} }

// Run starts the node and blocks until ctx ends and everything has stopped, or something fails. Start order: embedded NATS; ops port,
// connections and membership; router, presence, authsvc, api, gateway. It stops in reverse: first the gateway drains its
// clients, with everything that serves them still there.
func (n *Node) Run(ctx context.Context) (err error) {
	log := n.opts.Log
	if log == nil {
		log = telemetry.NewLogger(os.Stderr, n.cfg.Log.Level, n.cfg.Log.Format).With("service", serviceName, "node", n.cfg.NodeName())
	}
	embedded, err := n.startNATS(log)
	if err != nil {
		return err
	}
	if embedded != nil {
		defer func() { err = errors.Join(err, embedded.stop()) }()
	}
	deps, closeDeps, err := service.Open(ctx, n.cfg.Common, n.cfg.Roles.Names(), service.Options{Service: serviceName, Log: log})
	if err != nil {
		if ctx.Err() != nil {
			return nil // told to stop while starting
		}
		return fmt.Errorf("start: %w", err)
	}
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		err = errors.Join(err, closeDeps(ctx))
	}()
	services, err := n.build(ctx, deps)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("start: %w", err)
	}
	at := services.addresses()
	at.Ops = deps.Ops.Addr()
	if embedded != nil {
		at.NATS = embedded.server.ClientURL()
	}
	if n.opts.Started != nil {
		if err := n.opts.Started(at); err != nil {
			return err
		}
	}
	return service.Run(ctx, serviceName, n.cfg.Common, deps, services)
}

// services are the built roles of a node; nil where it does not run one.
type services struct {
	grace    time.Duration
	router   *router.Router
	presence *presence.Service
	auth     *authsvc.Service
	api      *api.API
	gateway  *gateway.Gateway
}

// build makes the services in the order in which they start. Only those that sign get the apps' secrets.
func (n *Node) build(ctx context.Context, deps service.Deps) (s *services, err error) {
	secret, err := app.NewRegistry(n.cfg.Apps)
	if err != nil {
		return nil, err
	}
	partitions, err := n.partitions(ctx, deps)
	if err != nil {
		return nil, err
	}
	n.cfg.Router.Partitions, n.cfg.Presence.Partitions, n.cfg.API.Partitions, n.cfg.Gateway.Partitions = partitions, partitions, partitions, partitions
	public, roles := secret.Public(), n.cfg.Roles
	s = &services{grace: n.cfg.Shutdown.Grace}
	if roles.Has(Router) {
		if s.router, err = router.New(n.cfg.Router, deps, public); err != nil {
			return nil, err
		}
	}
	if roles.Has(Presence) {
		if s.presence, err = presence.New(n.cfg.Presence, deps, public); err != nil {
			return nil, err
		}
	}
	if roles.Has(Auth) {
		if s.auth, err = authsvc.New(n.cfg.Auth, deps, secret); err != nil {
			return nil, err
		}
	}
	if roles.Has(API) {
		if s.api, err = api.New(n.cfg.API, deps, secret); err != nil {
			return nil, err
		}
	}
	if roles.Has(Gateway) {
		http, err := n.behindGateway(s.api)
		if err != nil {
			return nil, err
		}
		if s.gateway, err = gateway.New(n.cfg.Gateway, deps, public, gateway.Options{
			HTTP: http, ReadTimeout: n.cfg.API.ReadTimeout, IdleTimeout: n.cfg.API.IdleTimeout,
		}); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// partitionsRetry is how long a node waits between attempts to learn the partition count.
const partitionsRetry = 500 * time.Millisecond

// partitions is the cluster's partition count: the first router decides it, for good; nodes without a router wait for that.
func (n *Node) partitions(ctx context.Context, deps service.Deps) (int, error) {
	js, err := jetstream.New(deps.NATS.Req)
	if err != nil {
		return 0, fmt.Errorf("open JetStream: %w", err)
	}
	want := 0
	if n.cfg.Roles.Has(Router) {
		want = n.cfg.Router.Partitions
	} else {
		deps.Log.Info("waiting for a router to say how many partitions there are")
	}
	for {
		got, err := cluster.Partitions(ctx, js, want, n.cfg.Router.Replicas)
		if err == nil {
			if want > 0 && got != want {
				deps.Log.Warn("the cluster was made with another partition count, which stays", "configured", want, "cluster", got)
			}
			return got, nil
		}
		deps.Log.Warn("can't read the partition count yet", "err", err)
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(partitionsRetry):
		}
	}
}

// behindGateway is what serves requests on the public port that are not for the gateway; nil if nothing does.
func (n *Node) behindGateway(a *api.API) (http.Handler, error) {
	if a == nil {
		return nil, nil
	}
	if !n.cfg.Dev.Page {
		return a.Handler(), nil
	}
	page, err := demo.New(n.cfg.Apps[0], a.Handler())
	if err != nil {
		return nil, err
	}
	return page.Wrap(a.Handler()), nil
}

func (s *services) addresses() (at Addresses) {
	if s.gateway != nil {
		at.Public = s.gateway.Addr()
	}
	if s.api != nil {
		at.API, at.CentrifugoGRPC = s.api.Addr(), s.api.CentrifugoGRPCAddr()
	}
	return at
}

// Run runs the services until ctx ends.
func (s *services) Run(ctx context.Context) error {
	group := run.Group{Grace: s.grace}
	if s.router != nil {
		group.Add(string(Router), s.router.Run)
	}
	if s.presence != nil {
		group.Add(string(Presence), s.presence.Run)
	}
	if s.auth != nil {
		group.Add(string(Auth), s.auth.Run)
	}
	if s.api != nil {
		group.Add(string(API), s.api.Run)
	}
	if s.gateway != nil {
		group.Add(string(Gateway), s.gateway.Run)
	}
	return group.Run(ctx)
}

// embedded is the NATS server of this process.
type embedded struct {
	server    *natsembed.Server
	temporary string // directory to remove at the end, or ""
}

// startNATS starts the embedded server if the configuration names no other, and points the configuration to it.
func (n *Node) startNATS(log *slog.Logger) (*embedded, error) {
	if !n.cfg.embedded() {
		return nil, nil
	}
	cfg, e := n.cfg.Embedded, &embedded{}
	cfg.Log = log
	if n.cfg.Dev.TemporaryData {
		dir, err := os.MkdirTemp("", "carillon-")
		if err != nil {
			return nil, fmt.Errorf("make a directory for the embedded NATS server: %w", err)
		}
		cfg.Dir, e.temporary = dir, dir
	}
	server, err := natsembed.Start(cfg)
	if err != nil {
		return nil, errors.Join(err, e.remove())
	}
	e.server = server
	n.cfg.NATS.InProcess = server
	return e, nil
}

func (e *embedded) stop() error { return errors.Join(e.server.Shutdown(), e.remove()) }

func (e *embedded) remove() error {
	if e.temporary == "" {
		return nil
	}
	if err := os.RemoveAll(e.temporary); err != nil {
		return fmt.Errorf("remove temporary data: %w", err)
	}
	return nil
}
