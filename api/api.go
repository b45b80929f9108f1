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

	"github.com/carillon-rt/carillon/api/internal/authority"
	"github.com/carillon-rt/carillon/api/internal/centrifugoapi"
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

// hookTimeout is how long a call of an application's hook may take, whatever the hook's own settings say.
const hookTimeout = 10 * time.Second

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
	listener  net.Listener          // nil without a port of its own
	grpc      *centrifugoapi.Server // nil without one
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
	core, keys := a.dialects(apps)
	if cfg.Listen != "" {
		if a.listener, err = net.Listen("tcp", cfg.Listen); err != nil {
			return nil, fmt.Errorf("bind API port (api.listen): %w", err)
		}
	}
	if cfg.CentrifugoGRPC.Listen != "" {
		a.grpc, err = centrifugoapi.Listen(cfg.CentrifugoGRPC, core, keys, int(cfg.BodyMax), a.shutdownTime(), deps.Tracer, deps.Metrics)
		if err != nil {
			return nil, errors.Join(fmt.Errorf("api.centrifugo_grpc: %w", err), a.close())
		}
	}
	deps.Ops.Handle("/debug/hooks", hooks.Page())
	deps.Ops.Handle("/debug/hooks/replay", hooks.ReplayPage())
	return a, nil
}

// dialects makes the handler of all dialects that come over HTTP, and gives what those of other ways are made of.
func (a *API) dialects(apps *app.Registry) (*centrifugoapi.Core, *centrifugoapi.Keys) {
	cfg, deps := &a.cfg, &a.deps
	rates := rate.New(time.Now())
	reader := occupancy.New(deps.NATS.Req, occupancy.Config{Partitions: cfg.Partitions, Timeout: cfg.QueryTimeout, ListMax: cfg.ListMax})
	gateways := fleet.New(deps.NATS.Req, deps.Cluster, fleet.Config{
		TellTimeout: cfg.PublishTimeout, AskTimeout: cfg.QueryTimeout, ListMax: connectionsMax,
	})
	pusher := pusherapi.New(
		pusherapi.Config{PathPrefix: cfg.PathPrefix, BodyMax: cfg.BodyMax},
		pusherapi.Deps{
			Apps: apps, Publish: publish.New(a.publisher, time.Now), Reader: reader, Rates: rates, Fleet: gateways,
			Ready: deps.NATS.Connected, Log: deps.Log, Metrics: deps.Metrics, Tracer: deps.Tracer, Now: time.Now,
		})
	core := centrifugoapi.New(centrifugoapi.Deps{
		Sender: a.publisher, Reader: reader, Fleet: gateways, Hooks: authority.New(deps.NATS.Req, hookTimeout), Rates: rates,
		Log: deps.Log, Now: time.Now,
	})
	keys := centrifugoapi.NewKeys(apps)
	centrifugo := centrifugoapi.NewHandler(centrifugoapi.HTTPConfig{BodyMax: cfg.BodyMax}, core, keys, deps.Tracer, deps.Metrics)
	a.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if centrifugoapi.Serves(r.URL.Path) {
			centrifugo.ServeHTTP(w, r)
			return
		}
		pusher.ServeHTTP(w, r)
	})
	return core, keys
}

// close gives back the ports of an API that does not run.
func (a *API) close() error {
	if a.listener == nil {
		return nil
	}
	return a.listener.Close()
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

// CentrifugoGRPCAddr is the bound host:port of the Centrifugo server API over gRPC, "" without one.
func (a *API) CentrifugoGRPCAddr() string {
	if a.grpc == nil {
		return ""
	}
	return a.grpc.Addr()
}

// Run serves until ctx ends: then the port closes and finishes its requests, webhooks under way end, and the publisher waits for its
// last receipts.
func (a *API) Run(ctx context.Context) error {
	var group run.Group
	group.AddGrace("publisher", a.cfg.PublishTimeout+stopSlack, a.publisher.Run)
	group.AddGrace("webhooks", a.cfg.Webhook.Timeout+stopSlack, a.webhooks.Run)
	if a.listener != nil {
		group.AddGrace("http", a.shutdownTime()+stopSlack, a.serve)
	}
	if a.grpc != nil {
		group.AddGrace("grpc", a.shutdownTime()+stopSlack, a.grpc.Run)
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

// shutdownTime is how long the requests under way may take when the API stops.
func (a *API) shutdownTime() time.Duration {
	return max(a.cfg.PublishTimeout, a.cfg.QueryTimeout) + stopSlack
}

// shutdown lets the requests under way finish: each ends within the publish or the query timeout.
func (a *API) shutdown(server *plainhttp.Server) {
	ctx, cancel := context.WithTimeout(context.Background(), a.shutdownTime())
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		_ = server.Close()
	}
}
