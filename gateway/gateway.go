// Package gateway is the edge: it holds the clients' connections, speaks
// their protocols and delivers publications to them. It owns no truth but
// that about its own connections; everything else is asked for over NATS.
package gateway

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/backbone"
	"github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/dialect/pusher"
	"github.com/carillon-rt/carillon/gateway/internal/edge"
	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/gateway/internal/rollcall"
	"github.com/carillon-rt/carillon/gateway/internal/roster"
	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/natsconn"
	"github.com/carillon-rt/carillon/kit/plainhttp"
	"github.com/carillon-rt/carillon/kit/run"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/kit/unread"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/publisher"
)

const (
	requestsMax  = 64 << 10 // requests to other services under way at once
	exchangesMax = 16 << 10 // of clients without WebSockets that wait for other gateways
	flushTimeout = 3 * time.Second
	stopSlack    = 5 * time.Second
	routerRole   = "router"
)

// Options are what the assembler adds.
type Options struct {
	// HTTP serves the requests on the public port that are no client's
	// connection. Nil: /up says 200, everything else is not found.
	HTTP http.Handler
	// ReadTimeout is how long a client may take to send such a request (0:
	// 15 s), IdleTimeout how long its connection is kept between requests (0:
	// 2 minutes).
	ReadTimeout, IdleTimeout time.Duration
}

// Gateway is one gateway node.
//
//	clients --> edge: loops, sessions, hub --> services --> requester --> authsvc, routers
//	              ^                       \--> history ---> requester --> routers
//	              |                        \-> publisher --------------> routers
//	              |                        \-> roster ----> requester --> presence
//	              |                         \> events -----------------> work queue of webhooks
//	              +---- feed <----------------------------------------- car.live.<p>
//	              +---- roll calls <--> requester ---------------------> presence
//	other HTTP --> handed over --> Options.HTTP
//
// It starts from right to left and accepts connections when all partitions
// are followed. It stops from left to right: first the clients are drained,
// with everything that serves them still there; then the roster tells the
// presence owners what is left to tell.
type Gateway struct {
	// immutable after New
	cfg      Config
	log      *slog.Logger
	deps     service.Deps
	addr     net.Addr
	ask      *natsconn.Requester
	publish  *publisher.Publisher
	roster   *roster.Roster
	feed     *backbone.Feed
	history  *backbone.History
	calls    *rollcall.RollCall
	sessions *backbone.Sessions
	meet     *natsconn.Requester // of sessions
	events   *events
	edge     *edge.Edge
	handOver *loop.HandOverListener
	http     *plainhttp.Server // of handOver
	requests net.Listener      // what is left to net/http, watched
}

var (
	_ edge.Backbone = (*backbone.Services)(nil)
	_ edge.Answers  = (*backbone.Services)(nil)
	_ edge.History  = (*backbone.History)(nil)
	_ edge.Roster   = (*roster.Roster)(nil)
	_ edge.Watcher  = (*roster.Roster)(nil)
	_ edge.Sessions = (*backbone.Sessions)(nil)
)

// New builds a gateway and binds its port. apps needs no secrets.
func New(cfg Config, deps service.Deps, apps *app.Registry, opts Options) (*Gateway, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	g := &Gateway{cfg: cfg, log: deps.Log, deps: deps}
	if err := g.connect(apps); err != nil {
		return nil, fmt.Errorf("gateway: %w", errors.Join(err, g.discard()))
	}
	if err := g.assemble(apps); err != nil {
		return nil, fmt.Errorf("gateway: %w", errors.Join(err, g.discard()))
	}
	server := httpServer(opts, cfg, deps.Log)
	server.Handler = giveBack(g.edge, server.Handler)
	g.http = plainhttp.New(server, g.handOver) // before Watch: what it serves has been read
	g.http.Except(g.edge.Owns, g.edge.TakeBack)
	g.requests = unread.Watch(server, g.http.Others(), unreadCounter(deps.Metrics).Inc)
	if deps.Ops != nil {
		deps.Ops.Ready("gateway", g.feed.Ready)
		g.debugPages()
	}
	registerMetrics(deps.Metrics, g.edge)
	return g, nil
}

// discard releases what a gateway that can't be built has taken so far.
func (g *Gateway) discard() (err error) {
	ended, end := context.WithCancel(context.Background())
	end()
	if g.edge != nil {
		err = g.edge.Close()
	}
	for _, r := range []*natsconn.Requester{g.ask, g.meet} {
		if r != nil {
			err = errors.Join(err, r.Run(ended))
		}
	}
	return err
}

// connect makes what talks to the other services.
func (g *Gateway) connect(apps *app.Registry) (err error) {
	conns := g.deps.NATS
	if g.ask, err = natsconn.NewRequester(conns.Req, requestsMax); err != nil {
		return err
	}
	if g.meet, err = natsconn.NewRequester(conns.Req, exchangesMax); err != nil {
		return err
	}
	g.sessions = backbone.NewSessions(conns.Req, g.deps.Cluster.Local().Node, g.meet, g.log, g.deps.Metrics)
	g.publish = publisher.New(publisher.Config{Partitions: g.cfg.Partitions, Durable: durable(apps)}, conns.Req, g.routers, time.Now)
	local := g.deps.Cluster.Local()
	g.roster, err = roster.New(roster.Config{Node: local.Node, Incarnation: local.Incarnation}, roster.Deps{
		Ask: g.ask, NATS: conns.Req, Members: g.deps.Cluster, Log: g.log, Metrics: g.deps.Metrics,
	})
	if err != nil {
		return err
	}
	g.calls = rollcall.New(g.cfg.Partitions, rollcall.Deps{
		Conns: conns, Ask: g.ask, Members: hasMembers(apps), Log: g.log, Metrics: g.deps.Metrics,
	})
	g.feed, err = backbone.NewFeed(backbone.FeedConfig{
		Partitions: g.cfg.Partitions, Control: g.control,
		RecentBytes: int(g.cfg.Recent.Bytes), RecentAge: g.cfg.Recent.Age, Recovers: recovers(apps),
	}, backbone.FeedDeps{Conns: conns, Log: g.log, Metrics: g.deps.Metrics, Tracer: g.deps.Tracer})
	if err != nil {
		return err
	}
	g.history = backbone.NewHistory(g.feed, g.ask, g.deps.Metrics)
	g.events, err = newEvents(conns.Req, g.cfg.HookQueue, g.deps)
	return err
}

// assemble makes the side of the clients and binds the port.
func (g *Gateway) assemble(apps *app.Registry) error {
	at, err := net.ResolveTCPAddr("tcp", g.cfg.Listen)
	if err != nil {
		return fmt.Errorf("listen is %q: %w", g.cfg.Listen, err)
	}
	g.handOver = loop.NewHandOverListener(at, g.cfg.Limits.HTTPPending)
	loops, local := g.cfg.loops(), g.deps.Cluster.Local()
	services := backbone.NewServices(g.feed, g.ask, g.publish, g.deps.Metrics)
	g.edge, err = edge.New(edge.Config{
		Apps: apps, Protocols: protocols(g.cfg), Loops: loops, Partitions: g.cfg.Partitions,
		Node: local.Node, NodeNumber: nodeNumber(local.Node, local.Incarnation), Loop: g.loopConfig(loops),
		Ages:     edge.Ages{Max: g.cfg.MaxConnectionAge, Jitter: g.cfg.ConnectionAgeJitter},
		Limits:   edge.Limits{ConnectRate: g.cfg.Limits.ConnectRate, PerAddress: g.cfg.Limits.PerAddress},
		Backbone: services, Answers: services, Sessions: g.sessions,
		History: g.history, Roster: g.roster, Watcher: g.roster, Events: g.events, Unsure: g.calls.Unsure, Log: g.log,
	})
	if err != nil {
		return err
	}
	if g.cfg.TLS.Cert == "" {
		return g.bind(g.edge.Listen(g.cfg.Listen))
	}
	tlsConfig, err := serverTLS(g.cfg.TLS)
	if err != nil {
		return err
	}
	return g.bind(g.edge.ListenTLS(g.cfg.Listen, tlsConfig))
}

func (g *Gateway) bind(addr net.Addr, err error) error {
	if err != nil {
		return fmt.Errorf("bind public port (gateway.listen): %w", err)
	}
	g.addr = addr
	return nil
}

// protocols is the list of those that clients can speak, those that most speak
// first: a delivery has room for the encodings up to the last that is present.
func protocols(cfg Config) []edge.Protocol {
	p := pusher.New(cfg.PathPrefix)
	fallback := pusher.Fallback{Pusher: p}
	text, binary := centrifugo.New(centrifugo.JSON), centrifugo.New(centrifugo.Protobuf)
	uniText, uniBinary := centrifugo.NewUnidirectional(centrifugo.JSON), centrifugo.NewUnidirectional(centrifugo.Protobuf)
	return []edge.Protocol{
		edge.Pusher(p), edge.Centrifugo(text), edge.Centrifugo(binary),
		edge.Pusher(fallback), edge.PusherIntroduced(pusher.SockJS{Fallback: fallback}),
		edge.CentrifugoHTTP(centrifugo.NewStream(text)), edge.CentrifugoHTTP(centrifugo.NewStream(binary)),
		edge.CentrifugoHTTP(centrifugo.NewEvents(text)),
		edge.Centrifugo(uniText), edge.CentrifugoHTTP(centrifugo.NewEvents(uniText)),
		edge.CentrifugoHTTP(centrifugo.NewStream(uniText)), edge.CentrifugoHTTP(centrifugo.NewStream(uniBinary)),
	}
}

func (g *Gateway) loopConfig(loops int) loop.Config {
	l := g.cfg.Limits
	memory := cmp.Or(int64(l.Memory), memoryLimit(debug.SetMemoryLimit(-1), cgroupFiles...)/2)
	if memory > 0 {
		g.log.Info("memory for connections and what they have not read", "bytes", memory)
	}
	return loop.Config{
		SendBufferBytes: int(l.SendBuffer), OutboxBytesMax: int(l.OutboxBytes), OutboxAgeMax: l.OutboxAge, MemoryMax: memory / int64(loops),
		HeadTimeout: l.HeadTimeout, MessageBytesMax: int(l.MessageBytes), MailboxMax: l.Mailbox,
		ConnectionsMax: (l.Connections + loops - 1) / loops, HandOver: g.handOver, Log: g.log,
	}
}

// Addr is the bound public address, host:port.
func (g *Gateway) Addr() string { return g.addr.String() }

// Run serves until ctx ends, then drains: see DrainConfig.
func (g *Gateway) Run(ctx context.Context) error {
	group := run.Group{}
	group.Add("requester", g.ask.Run)
	group.Add("requester of sessions", g.meet.Run)
	group.Add("sessions", func(ctx context.Context) error { return g.sessions.Run(ctx, g.edge) })
	group.Add("publisher", g.publish.Run)
	group.AddGrace("roster", flushTimeout+stopSlack, g.runRoster)
	group.AddGrace("webhook events", hook.QueueStop+stopSlack, g.events.Run)
	group.Add("roll calls", func(ctx context.Context) error { return g.calls.Run(ctx, g.edge) })
	group.Add("feed", func(ctx context.Context) error { return g.feed.Run(ctx, sink{g.edge, g.calls}) })
	group.Add("cut off", g.watchCutOff)
	group.Add("history", g.history.Run)
	group.Add("questions", g.answerQuestions)
	group.Add("clock", g.answerClock)
	group.AddGrace("clients", g.cfg.Drain.Total()+stopSlack, g.serve)
	if err := group.Run(ctx); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	return nil
}

// durable tells the publisher which channels go through the journal.
func durable(apps *app.Registry) func(app, channel string) bool {
	return func(id, channel string) bool {
		a := apps.ByID(id)
		return a != nil && a.Effective(channel).Durable()
	}
}

// hasMembers tells which channels have members.
func hasMembers(apps *app.Registry) func(channel.Key) bool {
	return func(key channel.Key) bool {
		a := apps.ByID(key.App)
		return a != nil && a.HasMembers(key.Name)
	}
}

// recovers tells the feed whether clients of any app may ask for what they
// missed.
func recovers(apps *app.Registry) func() bool {
	return func() bool { return slices.ContainsFunc(apps.All(), (*app.App).Recovers) }
}

// routers lists the live router nodes.
func (g *Gateway) routers() []string {
	var nodes []string
	for _, m := range cluster.Reachable(g.deps.Cluster.Members(), routerRole) {
		nodes = append(nodes, m.Node)
	}
	return nodes
}

// nodeNumber begins the socket ids of this run of this node. It is a hash:
// two runs with the same number would only misdirect excludes between them.
func nodeNumber(node, incarnation string) uint32 {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%s", node, incarnation) // a hash takes everything
	return max(h.Sum32(), 1)
}
