// Package api is the service that applications' backends talk to: it takes their publications and questions over HTTP and tells them by
// webhook what happens. It owns those formats; it stores nothing and holds no client's connection.
package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/api/internal/fleet"
	"github.com/carillon-rt/carillon/api/internal/occupancy"
	"github.com/carillon-rt/carillon/api/internal/publish"
	"github.com/carillon-rt/carillon/api/internal/pusherapi"
	"github.com/carillon-rt/carillon/api/internal/rate"
	"github.com/carillon-rt/carillon/api/internal/webhook"
	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/plainhttp"
	"github.com/carillon-rt/carillon/kit/run"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/kit/unread"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/publisher"
)

// headerBytes is the size limit of a request's head: lists of channels are in bodies, never in heads.
const headerBytes = 32 << 10

// connectionsMax is how many connections one answer lists.
const connectionsMax = 10_000

// stopSlack is what stopping may take beyond the timeout of what is under way.
const stopSlack = 5 * time.Second

// API is the service.
type API struct {
	// immutable after New
	cfg       Config
	deps      service.Deps
	publisher *publisher.Publisher
	webhooks  *webhook.Service
	handler   http.Handler
	listener  net.Listener // nil without a port of its own
	unread    prometheus.Counter
}

// New builds the service and binds its port, if it has one. apps must hold secrets.
func New(cfg Config, deps service.Deps, apps *app.Registry) (*API, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("api: %w", err)
	}
	hooks, err := webhook.New(cfg.Webhook, webhook.Deps{NATS: deps.NATS.Req, Apps: apps, Log: deps.Log, Metrics: deps.Metrics})
	if err != nil {
		return nil, err
	}
	a := &API{cfg: cfg, deps: deps, webhooks: hooks, unread: telemetry.Register(deps.Metrics, prometheus.NewCounter(prometheus.CounterOpts{
		Name: "carillon_api_http_unread_total", Help: "HTTP requests on the API's own port that could not be read, or did not arrive in time.",
	}))}
	a.publisher = publisher.New(publisher.Config{
		Partitions: cfg.Partitions, Timeout: cfg.PublishTimeout, Durable: durable(apps),
	}, deps.NATS.Req, a.routers, time.Now)
	a.handler = pusherapi.New(
		pusherapi.Config{PathPrefix: cfg.PathPrefix, BodyMax: cfg.BodyMax},
		pusherapi.Deps{
			Apps: apps, Publish: publish.New(a.publisher, time.Now),
			Reader: occupancy.New(deps.NATS.Req, occupancy.Config{
				Partitions: cfg.Partitions, Timeout: cfg.QueryTimeout, ListMax: cfg.ListMax,
			}),
			Rates: rate.New(time.Now()),
			Fleet: fleet.New(deps.NATS.Req, deps.Cluster, fleet.Config{
				TellTimeout: cfg.PublishTimeout, AskTimeout: cfg.QueryTimeout, ListMax: connectionsMax,
			}),
			Ready: deps.NATS.Connected,
			Log:   deps.Log, Metrics: deps.Metrics, Tracer: deps.Tracer, Now: time.Now,
		})
	if cfg.Listen != "" {
		if a.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
			return nil, fmt.Errorf("bind API port (api.listen): %w", err)
		}
	}
	deps.Ops.Handle("/debug/hooks", hooks.Page())
	deps.Ops.Handle("/debug/hooks/replay", hooks.ReplayPage())
	return a, nil
}

// durable tells the publisher which channels go through the journal.
func durable(apps *app.Registry) func(app, channel string) bool {
	return func(id, channel string) bool {
		a := apps.ByID(id)
		return a != nil && a.Effective(channel).Durable()
	}
}

// routers lists the live router nodes.
func (a *API) routers() []string {
	var nodes []string
	for _, m := range cluster.Reachable(a.deps.Cluster.Members(), "router") {
		nodes = append(nodes, m.Node)
	}
	return nodes
}

// Handler serves the API; requests are answered while Run runs.
func (a *API) Handler() http.Handler { return a.handler }

// Addr is the bound host:port, "" without a port of its own.
func (a *API) Addr() string {
	if a.listener == nil {
		return ""
	}
	return a.listener.Addr().String()
}

// Run serves until ctx ends: then the port closes and finishes its requests, webhooks under way end, and the publisher waits for its
// last receipts.
func (a *API) Run(ctx context.Context) error {
	var group run.Group
	group.AddGrace("publisher", a.cfg.PublishTimeout+stopSlack, a.publisher.Run)
	group.AddGrace("webhooks", a.cfg.Webhook.Timeout+stopSlack, a.webhooks.Run)
	if a.listener != nil {
		group.AddGrace("http", max(a.cfg.PublishTimeout, a.cfg.QueryTimeout)+2*stopSlack, a.serve)
	}
	if err := group.Run(ctx); err != nil {
		return fmt.Errorf("api: %w", err)
	}
	return nil
}

func (a *API) serve(ctx context.Context) error {
	server := &http.Server{
		Handler: a.handler, ReadHeaderTimeout: a.cfg.HeaderTimeout, ReadTimeout: a.cfg.ReadTimeout, IdleTimeout: a.cfg.IdleTimeout,
		MaxHeaderBytes: headerBytes, ErrorLog: slog.NewLogLogger(a.deps.Log.Handler(), slog.LevelDebug),
	}
	plain := plainhttp.New(server, a.listener) // before Watch: what it serves has been read
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		a.shutdown(plain)
	})
	err := plain.Serve(unread.Watch(server, plain.Others(), a.unread.Inc))
	if !stop() {
		<-closed
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve API port: %w", err)
}

// shutdown lets the requests under way finish: each ends within the publish or the query timeout.
func (a *API) shutdown(server *plainhttp.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), max(a.cfg.PublishTimeout, a.cfg.QueryTimeout)+stopSlack)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		_ = server.Close()
	}
}
