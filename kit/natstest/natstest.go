// Package natstest gives tests a real NATS server with JetStream, and the Deps of a service on it. It owns nothing beyond the test: everything
// is stopped by the test's cleanups.
package natstest

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace/noop"

	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/loopback"
	"github.com/carillon-rt/carillon/kit/natsconn"
	"github.com/carillon-rt/carillon/kit/natsembed"
	"github.com/carillon-rt/carillon/kit/ops"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/kit/telemetry"
)

const connectTimeout = 10 * time.Second

// TestServer is an embedded server of one test on a loopback address of its own. It is used by the test's goroutine only.
type TestServer struct {
	t   testing.TB
	cfg natsembed.Config
	srv *natsembed.Server // nil while stopped
	url string
}

// Server starts a server with its files in a directory of the test. change may adjust its settings.
func Server(t testing.TB, change ...func(*natsembed.Config)) *TestServer {
	t.Helper()
	cfg := natsembed.DefaultConfig()
	cfg.Name, cfg.Dir, cfg.Listen = "natstest", t.TempDir(), loopback.IP()+":0"
	cfg.MaxStore, cfg.MaxMemory = 4<<30, 512<<20 // as much as a test may use, whatever the disk says
	for _, c := range change {
		c(&cfg)
	}
	s := &TestServer{t: t, cfg: cfg}
	s.Start()
	t.Cleanup(s.Stop)
	return s
}

// URL returns the nats:// URL; it stays the same over Stop and Start.
func (s *TestServer) URL() string { return s.url }

// Start starts the server again after Stop, on the same port with the same files.
func (s *TestServer) Start() {
	s.t.Helper()
	if s.srv != nil {
		return
	}
	srv, err := natsembed.Start(s.cfg)
	if err != nil {
		s.t.Fatalf("start NATS: %v", err)
	}
	s.srv, s.url = srv, srv.ClientURL()
	s.cfg.Listen = s.url[len("nats://"):]
}

// Stop shuts the server down: clients lose their connections, files stay.
func (s *TestServer) Stop() {
	s.t.Helper()
	if s.srv == nil {
		return
	}
	if err := s.srv.Shutdown(); err != nil {
		s.t.Errorf("stop NATS: %v", err)
	}
	s.srv = nil
}

// InProcess returns the running server for connections without a socket.
func (s *TestServer) InProcess() *natsembed.Server { return s.srv }

// Config returns a configuration that connects to the server.
func (s *TestServer) Config() natsconn.Config {
	cfg := natsconn.DefaultConfig()
	cfg.URLs = []string{s.url}
	cfg.DrainTimeout = time.Second
	return cfg
}

// Conns opens connections that are closed with the test.
func (s *TestServer) Conns(t testing.TB) *natsconn.Conns {
	t.Helper()
	return s.connect(t, t.Name(), Logger(t), telemetry.NewMetrics())
}

func (s *TestServer) connect(t testing.TB, name string, log *slog.Logger, metrics *telemetry.Metrics) *natsconn.Conns {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), connectTimeout)
	defer cancel()
	conns, err := natsconn.Connect(ctx, s.Config(), name, log, metrics)
	if err != nil {
		t.Fatalf("connect to NATS: %v", err)
	}
	t.Cleanup(func() {
		if err := conns.Close(); err != nil {
			t.Logf("close NATS connections: %v", err)
		}
	})
	return conns
}

// Deps returns what a service on node is built on: connections of its own, a membership that is node alone with these roles, a registry, and
// an ops port on 127.0.0.1 that serves until the test ends.
func (s *TestServer) Deps(t testing.TB, node string, roles ...string) service.Deps {
	t.Helper()
	local := cluster.Member{
		Node: node, Incarnation: cluster.NewIncarnation(), Roles: roles, Addr: "127.0.0.1:0", Version: "test",
	}
	return s.DepsWith(t, cluster.NewStatic(local))
}

// DepsWith is Deps with a membership of the test's own.
func (s *TestServer) DepsWith(t testing.TB, members cluster.Membership) service.Deps {
	t.Helper()
	node := members.Local().Node
	log := Logger(t).With("node", node)
	metrics := telemetry.NewMetrics()
	return service.Deps{
		NATS: s.connect(t, node, log, metrics), Cluster: members, Log: log, Metrics: metrics,
		Tracer: noop.NewTracerProvider(), Ops: opsServer(t, metrics),
	}
}

func opsServer(t testing.TB, metrics *telemetry.Metrics) *ops.Server {
	t.Helper()
	srv, err := ops.New(ops.Config{Listen: "127.0.0.1:0", Pprof: true}, metrics)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- srv.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("ops port: %v", err)
		}
	})
	return srv
}
