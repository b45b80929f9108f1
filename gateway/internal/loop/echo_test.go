package loop

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/netpoll"
	"github.com/carillon-rt/carillon/gateway/internal/ws"
	"github.com/carillon-rt/carillon/kit/leaktest"
	gobwas "github.com/gobwas/ws"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// script is a handler made of functions; those that are nil do nothing, but
// messages come back.
type script struct {
	loop    *Loop[func()]
	request func(c *Conn, head *Head) Verdict
	open    func(c *Conn)
	message func(c *Conn, text bool, payload []byte)
	closed  func(c *Conn, why Closure)
	tick    func(c *Conn, now int64)
	endTurn func()
}

func (s *script) Request(c *Conn, head *Head) Verdict {
	if s.request != nil {
		return s.request(c, head)
	}
	return Verdict{Action: Upgrade}
}

func (s *script) Open(c *Conn) {
	if s.open != nil {
		s.open(c)
	}
}

func (s *script) Message(c *Conn, text bool, payload []byte) {
	if s.message != nil {
		s.message(c, text, payload)
		return
	}
	if text {
		c.SendText(payload)
		return
	}
	c.Send(ws.AppendFrame(nil, ws.OpBinary, payload))
}

func (s *script) Closed(c *Conn, why Closure) {
	if s.closed != nil {
		s.closed(c, why)
	}
}

func (s *script) Tick(c *Conn, now int64) {
	if s.tick != nil {
		s.tick(c, now)
	}
}

func (s *script) Mail(items []func()) {
	for _, f := range items {
		f()
	}
}

func (s *script) EndTurn() {
	if s.endTurn != nil {
		s.endTurn()
	}
}

var _ Handler[func()] = (*script)(nil)

// server is running loops with one listener.
type server struct {
	t        testing.TB
	loops    []*Loop[func()]
	listener *Listener
	addr     string
	stop     context.CancelFunc
	running  sync.WaitGroup
}

// quiet is where tests log to that provoke errors.
func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// serve runs one loop with one handler until the test ends.
func serve(t testing.TB, cfg Config, h *script) *server {
	t.Helper()
	return serveAll(t, cfg, listenPlain, h)
}

func listenPlain(loops []*Loop[func()]) (*Listener, error) { return Listen("127.0.0.1:0", loops...) }

// serveAll runs a loop per handler.
func serveAll(t testing.TB, cfg Config, listen func([]*Loop[func()]) (*Listener, error), hs ...*script) *server {
	t.Helper()
	s := &server{t: t}
	for i, h := range hs {
		cfg.Index = i
		l, err := New(cfg, h)
		if err != nil {
			t.Fatal(err)
		}
		h.loop = l
		s.loops = append(s.loops, l)
	}
	s.start(listen)
	return s
}

func (s *server) start(listen func([]*Loop[func()]) (*Listener, error)) {
	s.t.Helper()
	ln, err := listen(s.loops)
	if err != nil {
		s.t.Fatal(err)
	}
	s.listener, s.addr = ln, ln.Addr().String()
	ctx, stop := context.WithCancel(context.Background())
	s.stop = stop
	for _, l := range s.loops {
		s.running.Go(func() {
			if err := l.Run(ctx); err != nil {
				s.t.Errorf("loop: %v", err)
			}
		})
	}
	s.running.Go(func() {
		if err := ln.Run(ctx); err != nil {
			s.t.Errorf("listener: %v", err)
		}
	})
	s.t.Cleanup(func() {
		s.stop()
		s.running.Wait()
	})
}

// on runs f on the loop and waits for it.
func (s *server) on(f func()) {
	s.t.Helper()
	done := make(chan struct{})
	if !s.loops[0].Post(func() { defer close(done); f() }) {
		s.t.Fatal("mailbox is full")
	}
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		s.t.Fatal("loop does not take its mail")
	}
}

// client is a WebSocket client of the tests.
type client struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
}

const handshake = "GET /path HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"

// dial connects without a handshake.
func (s *server) dial() *client {
	s.t.Helper()
	conn, err := net.DialTimeout("tcp", s.addr, 10*time.Second)
	if err != nil {
		s.t.Fatal(err)
	}
	return newClient(s.t, conn)
}

func newClient(t testing.TB, conn net.Conn) *client {
	t.Cleanup(func() { _ = conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return &client{t: t, conn: conn, in: bufio.NewReader(conn)}
}

// open connects and upgrades.
func (s *server) open() *client {
	s.t.Helper()
	c := s.dial()
	c.upgrade()
	return c
}

func (c *client) upgrade() {
	c.t.Helper()
	c.write([]byte(handshake))
	if res := c.response(); res.StatusCode != http.StatusSwitchingProtocols {
		c.t.Fatalf("handshake answered with %s", res.Status)
	}
}

func (c *client) response() *http.Response {
	c.t.Helper()
	res, err := http.ReadResponse(c.in, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	return res
}

func (c *client) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// frame reads one frame.
func (c *client) frame() (gobwas.OpCode, []byte) {
	c.t.Helper()
	h, err := gobwas.ReadHeader(c.in)
	if err != nil {
		c.t.Fatalf("read frame: %v", err)
	}
	payload := make([]byte, h.Length)
	if _, err := io.ReadFull(c.in, payload); err != nil {
		c.t.Fatalf("read frame: %v", err)
	}
	return h.OpCode, payload
}

// wantText reads one text message.
func (c *client) wantText(want string) {
	c.t.Helper()
	if op, got := c.frame(); op != gobwas.OpText || string(got) != want {
		c.t.Fatalf("got %v %.100q, want %.100q", op, got, want)
	}
}

// wantClose reads a close frame.
func (c *client) wantClose(code int, reason string) {
	c.t.Helper()
	op, got := c.frame()
	gotCode, gotReason := gobwas.ParseCloseFrameData(got)
	if op != gobwas.OpClose || int(gotCode) != code || gotReason != reason {
		c.t.Fatalf("got %v %d %q, want close %d %q", op, gotCode, gotReason, code, reason)
	}
}

// wantEnd reads the end of the stream.
func (c *client) wantEnd() {
	c.t.Helper()
	if b, err := c.in.ReadByte(); err == nil {
		c.t.Fatalf("got byte %#x, want the end of the stream", b)
	} else if ne, ok := err.(net.Error); ok && ne.Timeout() {
		c.t.Fatal("the connection was not closed")
	}
}

// portable makes a loop that runs on goroutines, as on systems without epoll.
func portable(t testing.TB, cfg Config, h *script) *server {
	t.Helper()
	l, err := newOn(cfg, h, netpoll.NewPortable())
	if err != nil {
		t.Fatal(err)
	}
	h.loop = l
	s := &server{t: t, loops: []*Loop[func()]{l}}
	s.start(listenPlain)
	return s
}

// log of strings that several goroutines write.
type journal struct {
	mu    sync.Mutex
	lines []string
	n     atomic.Int64
}

func (j *journal) add(format string, args ...any) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, fmt.Sprintf(format, args...))
	j.n.Add(1)
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return append([]string(nil), j.lines...)
}
