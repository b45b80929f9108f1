package edge

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/carillon-rt/carillon/gateway/internal/dialect/pusher"
	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const (
	partitions = 4
	patience   = 10 * time.Second
)

// cluster stands in for everything behind the edge. Questions wait in
// channels until the test answers them.
type cluster struct {
	joins  chan join
	caches chan cached
	empty  chan emptyCache
	online chan func([]string, error)

	mu sync.Mutex
	// guarded by mu
	counts     map[channel.Key]int
	members    map[string]int
	published  []*message.Publication
	transports []string // of those whose subscriptions were asked about
}

type join struct {
	m      presence.Member
	answer func(presence.Result, error)
}

type cached struct {
	at     message.Position
	miss   bool // it is told
	answer func(*history.Reply)
}

type emptyCache struct {
	key    channel.Key
	within time.Duration
	answer func()
}

func (c *cluster) Authorize(req *authz.Subscribe, answer func(authz.Decision)) {
	c.mu.Lock()
	c.transports = append(c.transports, req.Transport)
	c.mu.Unlock()
	d := authz.Decision{Allow: req.Auth == "ok"}
	if d.Allow && strings.HasPrefix(req.Channel, "presence-") {
		d.User = &authz.User{ID: req.ChannelData, RawID: `"` + req.ChannelData + `"`}
	}
	answer(d)
}

func (c *cluster) SignIn(req *authz.SignIn, answer func(authz.Decision)) {
	answer(authz.Decision{Allow: true, User: &authz.User{ID: req.UserData, RawID: `"` + req.UserData + `"`, Watchlist: []string{"w"}}})
}

func (c *cluster) Publish(pub *message.Publication) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.published = append(c.published, pub)
}

func (c *cluster) Cached(req history.Request, answer func(*history.Reply)) {
	c.caches <- cached{req.AtLeast, req.Miss, answer}
}

func (c *cluster) CacheEmpty(key channel.Key, within time.Duration, answer func()) {
	c.empty <- emptyCache{key, within, answer}
}

func (c *cluster) add(key channel.Key, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[key] += n
}

func (c *cluster) Subscribed(key channel.Key)   { c.add(key, 1) }
func (c *cluster) Unsubscribed(key channel.Key) { c.add(key, -1) }

func (c *cluster) Join(_ channel.Key, m presence.Member, answer func(presence.Result, error)) {
	c.joins <- join{m, answer}
}

func (c *cluster) count(what string, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members[what] += n
}

func (c *cluster) Leave(_ channel.Key, user string) { c.count("left "+user, 1) }
func (c *cluster) Online(_, user string)            { c.count("online "+user, 1) }
func (c *cluster) Offline(_, user string)           { c.count("online "+user, -1) }

func (c *cluster) WhoIsOnline(_ string, _ []string, answer func([]string, error)) { c.online <- answer }

type fixture struct {
	*testing.T
	edge    *Edge
	cluster *cluster
	addr    string
}

func start(t *testing.T, changes ...func(*app.App)) *fixture {
	t.Helper()
	return startWith(t, func(*Config) {}, changes...)
}

// startWith starts an edge with a changed configuration.
func startWith(t *testing.T, change func(*Config), changes ...func(*app.App)) *fixture {
	t.Helper()
	a := app.App{ID: "1", Keys: []app.Key{{Key: "k"}}, ClientEvents: true, Watchlist: true}
	for _, change := range changes {
		change(&a)
	}
	apps, err := app.NewRegistry([]app.App{a})
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{
		joins: make(chan join, 8), caches: make(chan cached, 8), empty: make(chan emptyCache, 8), online: make(chan func([]string, error), 8),
		counts: map[channel.Key]int{}, members: map[string]int{},
	}
	cfg := Config{
		Apps: apps, Protocols: []Protocol{Pusher(pusher.New(""))}, Loops: 2, Partitions: partitions, NodeNumber: 7,
		Backbone: c, Roster: c, Watcher: c, Log: slog.New(slog.DiscardHandler),
	}
	change(&cfg)
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := e.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return &fixture{T: t, edge: e, cluster: c, addr: addr.String()}
}

// wsClient is a raw WebSocket client.
type wsClient struct {
	t    *testing.T
	conn net.Conn
	id   string // socket id
}

// dial connects to the app and reads the greeting.
func (f *fixture) dial() *wsClient {
	f.Helper()
	c := f.raw("/app/k?protocol=7")
	hello := c.expect("connection_established")
	_, rest, _ := strings.Cut(hello, `socket_id\":\"`)
	c.id, _, _ = strings.Cut(rest, `\"`)
	return c
}

func (f *fixture) raw(path string) *wsClient {
	f.Helper()
	conn, br, _, err := ws.Dial(f.Context(), "ws://"+f.addr+path)
	if err != nil {
		f.Fatal(err)
	}
	if br != nil {
		conn = &buffered{Conn: conn, r: br}
	}
	f.Cleanup(func() { conn.Close() })
	return &wsClient{t: f.T, conn: conn}
}

type buffered struct {
	net.Conn
	r interface{ Read([]byte) (int, error) }
}

func (b *buffered) Read(p []byte) (int, error) { return b.r.Read(p) }

func (c *wsClient) send(format string, args ...any) {
	c.t.Helper()
	if err := wsutil.WriteClientText(c.conn, fmt.Appendf(nil, format, args...)); err != nil {
		c.t.Fatal(err)
	}
}

// expect reads one message, which must contain part.
func (c *wsClient) expect(part string) string {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	msg, err := wsutil.ReadServerText(c.conn)
	if err != nil {
		c.t.Fatalf("want %q, have %v", part, err)
	}
	if !strings.Contains(string(msg), part) {
		c.t.Fatalf("want %q, have %s", part, msg)
	}
	return string(msg)
}

func (c *wsClient) expectClose(code int) {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	for {
		_, err := wsutil.ReadServerText(c.conn)
		var closed wsutil.ClosedError
		if err == nil {
			continue // what was said before
		}
		if ok := asClosed(err, &closed); !ok || int(closed.Code) != code {
			c.t.Fatalf("want close code %d, have %v", code, err)
		}
		return
	}
}

func asClosed(err error, target *wsutil.ClosedError) bool {
	c, ok := err.(wsutil.ClosedError)
	if ok {
		*target = c
	}
	return ok
}

func (c *wsClient) subscribe(name string) {
	c.t.Helper()
	c.send(`{"event":"pusher:subscribe","data":{"channel":%q}}`, name)
	c.expect("subscription_succeeded")
}

func (f *fixture) publish(name string, seq uint64, changes ...func(*message.Publication)) {
	pub := &message.Publication{Kind: message.Event, App: "1", Channel: name, Event: "e", Data: fmt.Appendf(nil, "%d", seq)}
	for _, change := range changes {
		change(pub)
	}
	key := channel.Key{App: "1", Name: name}
	var pos message.Position
	if seq > 0 {
		pos = message.At(seq, 0)
	}
	f.edge.Deliver(key.Partition(partitions), pos, pub)
}

func (f *fixture) until(what string, check func() bool) {
	f.Helper()
	await.True(f, what, check)
}

func (f *fixture) count(key channel.Key) int {
	f.cluster.mu.Lock()
	defer f.cluster.mu.Unlock()
	return f.cluster.counts[key]
}

func (f *fixture) member(what string) int {
	f.cluster.mu.Lock()
	defer f.cluster.mu.Unlock()
	return f.cluster.members[what]
}
