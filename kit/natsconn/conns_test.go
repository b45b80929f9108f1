package natsconn_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/carillon-rt/carillon/kit/natsconn"
	"github.com/carillon-rt/carillon/kit/natsembed"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/kit/telemetry"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestConnectWaitsForServer(t *testing.T) {
	srv := natstest.Server(t)
	cfg := srv.Config()
	srv.Stop()
	type result struct {
		conns *natsconn.Conns
		err   error
	}
	connected := make(chan result, 1)
	go func() {
		conns, err := natsconn.Connect(t.Context(), cfg, "waiting", discard(), nil)
		connected <- result{conns, err}
	}()
	srv.Start()
	got := wait(t, connected)
	if got.err != nil {
		t.Fatal(got.err)
	}
	if err := got.conns.Connected(); err != nil {
		t.Error(err)
	}
	if err := got.conns.Close(); err != nil {
		t.Error(err)
	}
}

func TestConnectGivesUpWithContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := natsconn.DefaultConfig()
	cfg.URLs = []string{"nats://" + ln.Addr().String()}
	ln.Close() // nobody listens there now
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := natsconn.Connect(ctx, cfg, "lost", discard(), nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want the end of the context", err)
	}
}

func TestConnectMistakes(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "missing")
	tests := []struct {
		name string
		edit func(*natsconn.Config)
		want string
	}{
		{"inbox prefix with its dot", func(c *natsconn.Config) { c.InboxPrefix = "_INBOX_api." }, `inbox_prefix is "_INBOX_api."`},
		{"inbox prefix of many", func(c *natsconn.Config) { c.InboxPrefix = "_INBOX.*" }, "without its last dot"},
		{"no pings", func(c *natsconn.Config) { c.PingInterval = 0 }, "ping_interval is 0s"},
		{"drain that ends before it begins", func(c *natsconn.Config) { c.DrainTimeout = -time.Second }, "drain_timeout is -1s"},
		{"no url", func(c *natsconn.Config) { c.URLs = nil }, "urls is empty"},
		{"bad url", func(c *natsconn.Config) { c.URLs = []string{"nats://"} }, `urls has "nats://"`},
		{"password in a bad url", func(c *natsconn.Config) { c.URLs = []string{"nats://me:pw@ho st"} }, "nats://(redacted)@ho st"},
		{"two ways in", func(c *natsconn.Config) { c.User, c.Token = "u", "t" }, "user and token are set"},
		{"half a certificate", func(c *natsconn.Config) { c.TLS.Cert = "x" }, "go together"},
		{"no creds file", func(c *natsconn.Config) { c.CredsFile = missing }, "nats.creds_file"},
		{"no nkey file", func(c *natsconn.Config) { c.NKeyFile = missing }, "nats.nkey_file"},
		{"no ca file", func(c *natsconn.Config) { c.TLS.CA = missing }, "nats.tls.ca"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := natsconn.DefaultConfig()
			tt.edit(&cfg)
			_, err := natsconn.Connect(t.Context(), cfg, "x", discard(), nil)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestReconnect(t *testing.T) {
	srv := natstest.Server(t)
	metrics := telemetry.NewMetrics()
	conns, err := natsconn.Connect(t.Context(), srv.Config(), "blink", discard(), metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer conns.Close()
	back := make(chan struct{}, 8)
	conns.OnReconnect(func() { back <- struct{}{} })
	live := make(chan *nats.Msg, 8)
	if _, err := conns.Live.ChanSubscribe("car.live.0", live); err != nil {
		t.Fatal(err)
	}
	lost := conns.Live.StatusChanged(nats.RECONNECTING)
	srv.Stop()
	wait(t, lost)
	if err := conns.Connected(); err == nil {
		t.Error("Connected says yes without a server")
	}
	if err := conns.Live.Publish("car.live.0", nil); !errors.Is(err, nats.ErrReconnectBufExceeded) {
		t.Errorf("live publish without a server: %v, want a refusal", err)
	}
	srv.Start()
	wait(t, back)
	wait(t, back)
	if err := conns.Live.Flush(); err != nil { // the server has the subscription again
		t.Fatal(err)
	}
	if err := conns.Req.Publish("car.live.0", []byte("again")); err != nil {
		t.Fatal(err)
	}
	if msg := wait(t, live); string(msg.Data) != "again" {
		t.Errorf("got %q after the reconnect", msg.Data)
	}
	want := `
		# HELP carillon_nats_reconnects_total Connections to NATS that came back.
		# TYPE carillon_nats_reconnects_total counter
		carillon_nats_reconnects_total{conn="live"} 1
		carillon_nats_reconnects_total{conn="req"} 1
	`
	if err := testutil.GatherAndCompare(metrics, strings.NewReader(want), "carillon_nats_reconnects_total"); err != nil {
		t.Error(err)
	}
}

func TestSlowConsumer(t *testing.T) {
	srv := natstest.Server(t)
	conns := srv.Conns(t)
	slow := make(chan string, 8)
	conns.OnSlowConsumer(func(subject string) { slow <- subject })
	full := make(chan *nats.Msg, 1)
	if _, err := conns.Live.ChanSubscribe("car.live.7", full); err != nil {
		t.Fatal(err)
	}
	conns.Live.Flush()
	for range 10 {
		conns.Req.Publish("car.live.7", nil)
	}
	if subject := wait(t, slow); subject != "car.live.7" {
		t.Errorf("slow consumer on %q", subject)
	}
}

// The subjects that slow consumers are counted by are bounded, whatever is
// subscribed to.
func TestSlowConsumersAreCountedByFewSubjects(t *testing.T) {
	srv := natstest.Server(t)
	cfg, metrics := srv.Config(), telemetry.NewMetrics()
	cfg.InboxPrefix = "_INBOX_mine"
	conns, err := natsconn.Connect(t.Context(), cfg, "slow", discard(), metrics)
	if err != nil {
		t.Fatal(err)
	}
	defer conns.Close()
	slow := make(chan string, 1)
	conns.OnSlowConsumer(func(subject string) { slow <- subject })
	full := make(chan *nats.Msg)
	drops := func(subject string) {
		if _, err := conns.Req.ChanSubscribe(subject, full); err != nil {
			t.Fatal(err)
		}
		if err := conns.Req.Publish(subject, nil); err != nil {
			t.Fatal(err)
		}
		wait(t, slow)
	}
	drops(conns.Req.NewInbox())
	for i := range 1100 {
		drops("a.session." + strconv.Itoa(i))
	}
	got, err := testutil.GatherAndCount(metrics, "carillon_nats_slow_consumer_total")
	if err != nil || got > 1026 {
		t.Errorf("%d series (%v)", got, err)
	}
	if err := testutil.GatherAndCompare(metrics, strings.NewReader(""), "carillon_nats_slow_consumer_total"); err != nil && !strings.Contains(err.Error(), `subject="inbox"} 1`) {
		t.Error("the inbox is counted by its random name")
	}
}

func TestCloseDelivers(t *testing.T) {
	srv := natstest.Server(t)
	conns, other := srv.Conns(t), srv.Conns(t)
	got := make(chan *nats.Msg, 100)
	if _, err := other.Live.ChanSubscribe("out", got); err != nil {
		t.Fatal(err)
	}
	other.Live.Flush()
	if _, err := conns.Live.ChanSubscribe("in", make(chan *nats.Msg, 1)); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		conns.Req.Publish("out", nil)
	}
	if err := conns.Close(); err != nil {
		t.Error(err)
	}
	for range 100 {
		wait(t, got)
	}
	if err := conns.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestCloseWithoutServer(t *testing.T) {
	srv := natstest.Server(t)
	conns := srv.Conns(t)
	lost := conns.Live.StatusChanged(nats.RECONNECTING)
	srv.Stop()
	wait(t, lost)
	if err := conns.Close(); err != nil {
		t.Error(err)
	}
}

func TestInProcess(t *testing.T) {
	cfg := natsembed.DefaultConfig()
	cfg.Dir = t.TempDir()
	srv, err := natsembed.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Shutdown()
	if url := srv.ClientURL(); url != "" {
		t.Errorf("the server listens at %s", url)
	}
	nc := natsconn.DefaultConfig()
	nc.InProcess = srv
	conns, err := natsconn.Connect(t.Context(), nc, "inside", discard(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conns.Close()
	js, err := jetstream.New(conns.Req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}}); err != nil {
		t.Fatal(err)
	}
	ack, err := js.Publish(t.Context(), "s", []byte("x"))
	if err != nil || ack.Sequence != 1 {
		t.Errorf("publish: %+v, %v", ack, err)
	}
}
