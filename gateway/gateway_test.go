package gateway

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/certtest"
	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const (
	partitions = 2
	patience   = 20 * time.Second
)

// world is a gateway with a journal, and a presence owner that notes counts.
type world struct {
	t    *testing.T
	srv  *natstest.TestServer
	deps service.Deps
	nc   *nats.Conn
	js   jetstream.JetStream
	gw   *Gateway
	stop func() error

	mu sync.Mutex
	// guarded by mu
	counts map[string]uint64

	told chan struct{} // capacity 1: counts has changed
}

func testConfig() Config {
	cfg := DefaultConfig()
	cfg.Listen, cfg.Partitions, cfg.Loops = "127.0.0.1:0", partitions, 2
	cfg.Drain = DrainConfig{Slack: 10 * time.Second}
	return cfg
}

func newWorld(t *testing.T, cfg Config, opts Options) *world {
	t.Helper()
	return newWorldWith(t, cfg, opts, nil)
}

// newWorldWith is newWorld with others in the membership, and with other apps
// than the one whose key is "key".
func newWorldWith(t *testing.T, cfg Config, opts Options, members cluster.Membership, of ...app.App) *world {
	t.Helper()
	w := &world{t: t, srv: natstest.Server(t), counts: map[string]uint64{}, told: make(chan struct{}, 1)}
	if members == nil {
		members = cluster.NewStatic(cluster.Member{Node: "gw", Incarnation: cluster.NewIncarnation(), Roles: []string{Role, "presence"}})
	}
	w.deps = w.srv.DepsWith(t, members)
	w.nc = w.srv.Conns(t).Req
	var err error
	if w.js, err = jetstream.New(w.nc); err != nil {
		t.Fatal(err)
	}
	if _, err = w.nc.Subscribe("car.pres.*.delta", w.presence); err != nil {
		t.Fatal(err)
	}
	if len(of) == 0 {
		of = []app.App{{ID: "1", Keys: []app.Key{{Key: "key"}}}}
	}
	apps, err := app.NewRegistry(of)
	if err != nil {
		t.Fatal(err)
	}
	if w.gw, err = New(cfg, w.deps, apps, opts); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.gw.Run(ctx) }()
	w.stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() {
		if err := w.stop(); err != nil {
			t.Errorf("gateway: %v", err)
		}
	})
	return w
}

func (w *world) presence(m *nats.Msg) {
	d, err := presence.ParseDelta(m.Data)
	if err != nil {
		w.t.Errorf("delta: %v", err)
		return
	}
	w.mu.Lock()
	for _, op := range d.Ops {
		if op.Kind == presence.Count {
			w.counts[strings.Clone(op.Channel)] = op.Count
		}
	}
	w.mu.Unlock()
	select {
	case w.told <- struct{}{}:
	default:
	}
	if err := m.Respond(presence.AppendReply(nil, &presence.Reply{})); err != nil {
		w.t.Errorf("respond: %v", err)
	}
}

func (w *world) makeJournal() {
	w.t.Helper()
	_, err := w.js.CreateStream(w.t.Context(), jetstream.StreamConfig{
		Name: subject.JournalStream, Subjects: []string{subject.AllLog}, AllowDirect: true, MaxAge: time.Hour,
		RePublish: &jetstream.RePublish{Source: subject.AllLog, Destination: subject.RePublish},
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// untilCount waits until the presence owner was told of n subscriptions.
func (w *world) untilCount(name string, n uint64) {
	w.t.Helper()
	timeout := time.After(patience)
	for {
		w.mu.Lock()
		got := w.counts[name]
		w.mu.Unlock()
		if got == n {
			return
		}
		select {
		case <-w.told:
		case <-timeout:
			w.t.Fatalf("the owner was told of %d subscriptions of %s, want %d", got, name, n)
		}
	}
}

// publish appends one publication to the journal.
func (w *world) publish(name, data string) {
	w.t.Helper()
	var b message.Batch
	b.Add(&message.Publication{Kind: message.Event, App: "1", Channel: name, Event: "e", Data: []byte(data)})
	p := channel.Key{App: "1", Name: name}.Partition(partitions)
	for deadline := time.Now().Add(patience); ; {
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		// The id makes a retry after a lost answer harmless.
		_, err := w.js.Publish(ctx, subject.Log(p), b.Bytes(), jetstream.WithMsgID(name+data))
		cancel()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatal(err)
		}
	}
}

// client is a WebSocket client that reads one frame after another.
type client struct {
	t    *testing.T
	conn net.Conn
	rw   io.ReadWriter
}

func (w *world) dial(dialer ws.Dialer, scheme string) *client {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), patience)
	defer cancel()
	return w.dialTo(ctx, dialer, scheme+"://"+w.gw.Addr()+"/app/key?protocol=7&client=test&version=1")
}

func (w *world) dialTo(ctx context.Context, dialer ws.Dialer, url string) *client {
	w.t.Helper()
	conn, br, _, err := dialer.Dial(ctx, url)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	c := &client{t: w.t, conn: conn, rw: conn}
	if br != nil {
		c.rw = struct {
			io.Reader
			io.Writer
		}{br, conn}
	}
	return c
}

func (c *client) send(text string) {
	c.t.Helper()
	if err := wsutil.WriteClientText(c.conn, []byte(text)); err != nil {
		c.t.Fatal(err)
	}
}

// expect reads until a message that holds all parts.
func (c *client) expect(parts ...string) string {
	c.t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	for {
		msg, err := wsutil.ReadServerText(c.rw)
		if err != nil {
			c.t.Fatalf("waiting for %q: %v", parts, err)
		}
		all := true
		for _, p := range parts {
			all = all && bytes.Contains(msg, []byte(p))
		}
		if all {
			return string(msg)
		}
	}
}

// closeCode reads until the close frame.
func (c *client) closeCode() int {
	c.t.Helper()
	if err := c.conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		c.t.Fatal(err)
	}
	for {
		_, err := wsutil.ReadServerText(c.rw)
		var closed wsutil.ClosedError
		if errors.As(err, &closed) {
			return int(closed.Code)
		}
		if err != nil {
			c.t.Fatalf("waiting for a close frame: %v", err)
		}
	}
}

func subscribed(w *world, name string) *client {
	w.t.Helper()
	c := w.dial(ws.Dialer{}, "ws")
	c.expect("pusher:connection_established")
	c.send(fmt.Sprintf(`{"event":"pusher:subscribe","data":{"channel":%q}}`, name))
	c.expect("pusher_internal:subscription_succeeded", name)
	return c
}

func (w *world) get(url string) (int, string) {
	w.t.Helper()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	res, err := client.Get(url)
	if err != nil {
		w.t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

func TestFromJournalToClient(t *testing.T) {
	w := newWorld(t, testConfig(), Options{})
	if w.gw.feed.Ready() == nil {
		t.Error("ready although there is no journal")
	}
	w.makeJournal()
	clients := []*client{subscribed(w, "news"), subscribed(w, "news"), subscribed(w, "other")}
	for i := range 3 {
		w.publish("news", fmt.Sprintf(`{"n":%d}`, i))
	}
	for _, c := range clients[:2] {
		for i := range 3 {
			c.expect(`"channel":"news"`, fmt.Sprintf(`{\"n\":%d}`, i))
		}
	}
	w.srv.Stop()
	w.srv.Start()
	w.publish("news", `"after the restart"`)
	w.publish("other", `"other"`)
	for _, c := range clients[:2] {
		c.expect("after the restart")
	}
	clients[2].expect(`"other\"`)
}

func TestProtectedChannelWithoutAuthorizationService(t *testing.T) {
	w := newWorld(t, testConfig(), Options{})
	w.makeJournal()
	c := w.dial(ws.Dialer{}, "ws")
	c.expect("pusher:connection_established")
	c.send(`{"event":"pusher:subscribe","data":{"channel":"private-x","auth":"key:00"}}`)
	c.expect("pusher:subscription_error", "private-x", "no authorization service is running")
}

func TestControlReachesClients(t *testing.T) {
	w := newWorld(t, testConfig(), Options{})
	w.makeJournal()
	c := subscribed(w, "news")
	// Nobody is signed in as this user: nothing may happen to others.
	if err := w.nc.Publish(subject.GatewayControl, []byte(`{"app":"1","terminate_user":"7"}`)); err != nil {
		t.Fatal(err)
	}
	w.publish("news", `"still here"`)
	c.expect("still here")
}

func TestDrain(t *testing.T) {
	w := newWorld(t, testConfig(), Options{})
	w.makeJournal()
	clients := []*client{subscribed(w, "news"), subscribed(w, "news"), subscribed(w, "news")}
	w.untilCount("news", 3)
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients {
		if code := c.closeCode(); code != 4200 {
			t.Errorf("closed with %d, want 4200", code)
		}
	}
	w.untilCount("news", 0)
	if code, body := w.get("http://" + w.deps.Ops.Addr() + "/readyz"); code != 503 || !strings.Contains(body, "draining") {
		t.Errorf("readiness after the drain: %d %s", code, body)
	}
}

// A gateway that never saw a journal must stop as well.
func TestStopBeforeTheStart(t *testing.T) {
	w := newWorld(t, testConfig(), Options{})
	if err := w.stop(); err != nil {
		t.Fatal(err)
	}
}

func TestHTTP(t *testing.T) {
	for name, tc := range map[string]struct {
		handler http.Handler
		path    string
		code    int
		body    string
	}{
		"alive":            {nil, "/up", 200, "OK\n"},
		"nothing there":    {nil, "/apps/1/events", 404, "not found"},
		"somebody else's":  {http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "api "+r.URL.Path) }), "/apps/1", 200, "api /apps/1"},
		"not for a client": {http.NotFoundHandler(), "/app", 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, testConfig(), Options{HTTP: tc.handler})
			w.makeJournal()
			if code, body := w.get("http://" + w.gw.Addr() + tc.path); code != tc.code || !strings.Contains(body, tc.body) {
				t.Errorf("answers %d %q, want %d %q", code, body, tc.code, tc.body)
			}
		})
	}
}

func TestOps(t *testing.T) {
	w := newWorld(t, testConfig(), Options{})
	w.makeJournal()
	c := w.dial(ws.Dialer{}, "ws")
	hello := c.expect("pusher:connection_established")
	c.send(`{"event":"pusher:subscribe","data":{"channel":"news"}}`)
	c.expect("subscription_succeeded")
	w.publish("news", `"x"`)
	c.expect(`"news"`, "x")
	_, id, _ := strings.Cut(hello, `socket_id\":\"`)
	id, _, _ = strings.Cut(id, `\"`)
	ops := "http://" + w.deps.Ops.Addr()
	for path, want := range map[string][]string{
		"/readyz?verbose":                {"[+] gateway ok"},
		"/debug/loops":                   {`"Channels": 1`, `"Opened": 1`},
		"/debug/channel?app=1&name=news": {`"Subscribers"`, "1"},
		"/debug/conn?id=" + id:           {`"App": "1"`, `"news": "live"`, `"Dialect": "pusher"`},
	} {
		if code, body := w.get(ops + path); code != 200 || !containsAll(body, want) {
			t.Errorf("%s: %d %s, want %q", path, code, body, want)
		}
	}
	for _, path := range []string{"/debug/channel", "/debug/conn", "/debug/conn?id=1.2", "/debug/conn?id=" + id + "9"} {
		if code, body := w.get(ops + path); code != 404 {
			t.Errorf("%s: %d %s, want 404", path, code, body)
		}
	}
	checkMetrics(t, w.deps.Metrics.(prometheus.Gatherer))
}

func checkMetrics(t *testing.T, reg prometheus.Gatherer) {
	t.Helper()
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{
		"carillon_gateway_connections": 1, "carillon_gateway_channels": 1, "carillon_gateway_opened_total": 1,
		"carillon_gateway_deliveries_total": 1, "carillon_gateway_batches_total": 1, "carillon_gateway_partitions_behind": 0,
	}
	for _, f := range families {
		m := f.GetMetric()[0]
		got := m.GetGauge().GetValue() + m.GetCounter().GetValue()
		if v, ok := want[f.GetName()]; ok && got != v {
			t.Errorf("%s is %v, want %v", f.GetName(), got, v)
		}
		delete(want, f.GetName())
	}
	for name := range want {
		t.Errorf("no metric %s", name)
	}
}

func containsAll(s string, parts []string) bool {
	for _, p := range parts {
		if !strings.Contains(s, p) {
			return false
		}
	}
	return true
}

func TestTLS(t *testing.T) {
	cert, cfg := certtest.New(t), testConfig()
	cfg.TLS = TLSConfig{Cert: cert.CertFile, Key: cert.KeyFile}
	w := newWorld(t, cfg, Options{})
	w.makeJournal()
	c := w.dial(ws.Dialer{TLSConfig: &tls.Config{RootCAs: cert.Roots}}, "wss")
	c.expect("pusher:connection_established")
}

func TestConfig(t *testing.T) {
	if err := DefaultConfig().validate(); err != nil {
		t.Errorf("the defaults are refused: %v", err)
	}
	for want, change := range map[string]func(*Config){
		"listen is \"6001\"":                    func(c *Config) { c.Listen = "6001" },
		"begin with a slash":                    func(c *Config) { c.PathPrefix = "x" },
		"max_connection_age is 1ms":             func(c *Config) { c.MaxConnectionAge = time.Millisecond },
		"max_connection_age is -1s":             func(c *Config) { c.MaxConnectionAge = -time.Second },
		"connection_age_jitter is 1.5":          func(c *Config) { c.ConnectionAgeJitter = 1.5 },
		"connection_age_jitter is NaN":          func(c *Config) { c.ConnectionAgeJitter = math.NaN() },
		"limits: connect_rate is -1":            func(c *Config) { c.Limits.ConnectRate = -1 },
		"limits: memory is -1":                  func(c *Config) { c.Limits.Memory = -1 },
		"limits: memory is 1000":                func(c *Config) { c.Limits.Memory = 1000 },
		"loops is 257":                          func(c *Config) { c.Loops = 257 },
		"0 partitions":                          func(c *Config) { c.Partitions = 0 },
		"tls: cert and key go together":         func(c *Config) { c.TLS.Cert = "x" },
		"tls: cert and key can't":               func(c *Config) { c.TLS = TLSConfig{"x", "y"} },
		"limits: outbox_bytes is 1":             func(c *Config) { c.Limits.OutboxBytes = 1 },
		"limits: connections is 0":              func(c *Config) { c.Limits.Connections = 0 },
		"drain: propagation, window, slack and": func(c *Config) { c.Drain.Window = -1 },
	} {
		cfg := DefaultConfig()
		change(&cfg)
		if err := cfg.validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

func TestNodeNumber(t *testing.T) {
	a, b := nodeNumber("a", "1"), nodeNumber("a", "2")
	if a == b || a == 0 || b == 0 {
		t.Errorf("two runs of a node have the numbers %d and %d", a, b)
	}
}
