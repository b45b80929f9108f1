package loop

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/framing"
	"github.com/carillon-rt/carillon/gateway/internal/netpoll"
	"github.com/carillon-rt/carillon/kit/await"
)

// pages is a script that answers requests: with what was asked and sent, later
// ("/later", by release), with a stream ("/stream") or one that parks ("/park").
type pages struct {
	script
	journal
	later    []*Conn
	streams  []*Conn
	ready    func(c *Conn)
	parked   func(c *Conn)
	abandons int
}

func newPages() *pages {
	p := &pages{}
	p.request = func(c *Conn, head *Head) Verdict {
		if head.Header("Upgrade") != "" {
			return Verdict{Action: Upgrade}
		}
		c.Data = head.Method + " " + strings.Clone(head.Path)
		return Verdict{Action: Serve, BodyMax: 100}
	}
	p.closed = func(_ *Conn, why Closure) { p.add("closed %s %d %s", why.Cause, why.Code, why.Reason) }
	return p
}

func (p *pages) Body(c *Conn, body []byte) {
	what := c.Data.(string)
	_, path, _ := strings.Cut(what, " ")
	switch path {
	case "/later":
		p.later = append(p.later, c)
		p.add("waits")
	case "/stream", "/park":
		c.Stream("text/plain", "X-Test: 1\r\n", framing.SockJS)
		p.streams = append(p.streams, c)
		if path == "/park" {
			c.Parks()
		}
		c.SendText([]byte("hello"))
	case "/nothing":
		c.Respond(Response{Status: 204, Header: "X-Test: 1\r\n"})
	case "/panic":
		panic("as asked")
	default:
		c.Respond(Response{Status: 200, Type: "text/plain", Body: fmt.Appendf(nil, "%s %q", what, body)})
	}
}

func (p *pages) Abandoned(*Conn) { p.abandons++; p.add("abandoned") }

func (p *pages) Parked(c *Conn) {
	p.add("parked")
	if p.parked != nil {
		p.parked(c)
	}
}

func (p *pages) Ready(c *Conn) {
	if p.ready != nil {
		p.ready(c)
	}
}

// servePages runs pages on one loop.
func servePages(t *testing.T, cfg Config, p *pages) *server {
	t.Helper()
	cfg.Log = quiet()
	l, err := New[func()](cfg, p)
	if err != nil {
		t.Fatal(err)
	}
	p.loop = l
	s := &server{t: t, loops: []*Loop[func()]{l}}
	s.start(listenPlain)
	return s
}

// ask sends raw requests and wants these answers.
func (c *client) ask(raw string, wants ...string) {
	c.t.Helper()
	c.write([]byte(raw))
	for _, want := range wants {
		c.wantAnswer(want)
	}
}

func (c *client) wantAnswer(want string) {
	c.t.Helper()
	res := c.response()
	body, err := io.ReadAll(res.Body)
	if got := fmt.Sprint(res.StatusCode, " ", string(body)); err != nil || got != want {
		c.t.Fatalf("got %q, %v, want %q", got, err, want)
	}
}

// wantLine reads one line of a stream.
func (c *client) wantLine(want string) {
	c.t.Helper()
	if line, err := c.in.ReadString('\n'); err != nil || line != want+"\n" {
		c.t.Fatalf("got %q, %v, want %q", line, err, want)
	}
}

func (p *pages) waitFor(t *testing.T, line string) {
	t.Helper()
	await.True(t, line, func() bool {
		for _, l := range p.all() {
			if l == line {
				return true
			}
		}
		return false
	})
}

const postHello = "POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello"

func TestRequestsAreAnswered(t *testing.T) {
	const chunked = "POST /b HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
	s := servePages(t, Config{}, newPages())
	c := s.dial()
	c.ask("GET /g HTTP/1.1\r\nHost: h\r\n\r\n", `200 GET /g ""`)
	c.ask(postHello+chunked+"\r\n"+postHello, `200 POST /a "hello"`, `200 POST /b "abc"`, `200 POST /a "hello"`)
	for i := range postHello {
		c.write([]byte(postHello[i : i+1]))
	}
	c.wantAnswer(`200 POST /a "hello"`)
	c.ask("POST /a HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	c.wantLine("HTTP/1.1 100 Continue\r")
	c.wantLine("\r")
	c.ask("hello", `200 POST /a "hello"`)
	c.ask("GET /nothing HTTP/1.1\r\nHost: h\r\n\r\nGET /g HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", "204 ", `200 GET /g ""`)
	c.wantEnd()
	if got := s.loops[0].Stats(); got.Answered != 8 || got.Refused != 0 {
		t.Errorf("%d answered, %d refused", got.Answered, got.Refused)
	}
	c = s.dial()
	c.ask(postHello+handshake, `200 POST /a "hello"`)
	if res := c.response(); res.StatusCode != http.StatusSwitchingProtocols {
		t.Errorf("an upgrade on a connection that had a request: %s", res.Status)
	}
	old := s.dial()
	old.ask("GET /g HTTP/1.0\r\n\r\n", `200 GET /g ""`)
	old.wantEnd()
}

func TestRequestsAreRefused(t *testing.T) {
	for name, c := range map[string]struct {
		raw, want string
		abandoned bool
	}{
		"too large":           {"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\n\r\n", "413 request body is larger than 100 bytes\n", true},
		"chunks too large":    {"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n", "413 request body is larger than 100 bytes\n", true},
		"not chunked":         {"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx", "400 body is not chunked as its Transfer-Encoding says\n", true},
		"smuggled":            {"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400 request has several Content-Length fields, or one next to Transfer-Encoding\n", true},
		"the handler panics":  {"GET /panic HTTP/1.1\r\nHost: h\r\n\r\n", "500 internal error\n", true},
		"a bad head":          {"GET /a HTTP/1.1\nHost: h\r\n\r\n", "400 line of the request head does not end in CR LF\n", false},
		"a bad head, as next": {postHello + "GET /a\r\n\r\n", "200 POST /a \"hello\"", false},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPages()
			s := servePages(t, Config{}, p)
			client := s.dial()
			client.ask(c.raw, c.want)
			if strings.HasPrefix(c.want, "200") {
				client.wantAnswer("400 request line is not METHOD SP target SP HTTP/1.1\n")
			}
			client.wantEnd()
			s.on(func() {
				if (p.abandons == 1) != c.abandoned {
					t.Errorf("Abandoned was called %d times", p.abandons)
				}
			})
		})
	}
}

func TestBodiesThatDoNotCome(t *testing.T) {
	p := newPages()
	s := servePages(t, Config{HeadTimeout: 200 * time.Millisecond, IdleTimeout: 200 * time.Millisecond}, p)
	c := s.dial()
	c.ask("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhel", "408 the request body did not arrive in time\n")
	c.wantEnd()
	p.waitFor(t, "abandoned")
	idle := s.dial()
	idle.ask(postHello, `200 POST /a "hello"`)
	idle.wantEnd()
}

func TestAnswersComeLater(t *testing.T) {
	p := newPages()
	s := servePages(t, Config{}, p)
	const later = "GET /later HTTP/1.1\r\nHost: h\r\n\r\n"
	c := s.dial()
	c.ask(later)
	p.waitFor(t, "waits")
	s.on(func() { p.later[0].Respond(Response{Status: 200, Body: []byte("now")}) })
	c.ask(postHello, "200 now", `200 POST /a "hello"`)

	gone := s.dial()
	gone.ask(later)
	await.True(t, "the second waits", func() bool { return p.n.Load() == 2 })
	_ = gone.conn.Close()
	p.waitFor(t, "abandoned")
	s.on(func() { p.later[1].Respond(Response{Status: 200}) }) // too late: nothing happens

	eager := s.dial()
	eager.ask(later + postHello) // the second is not read: the answer to the first says so
	await.True(t, "the third waits", func() bool { return p.n.Load() == 4 })
	s.on(func() { p.later[2].Respond(Response{Status: 200, Body: []byte("now")}) })
	if res := eager.response(); !res.Close {
		t.Error("a client that did not wait is not told that its next request is lost")
	}
}

func TestAnswersThatDoNotCome(t *testing.T) {
	p := newPages()
	s := servePages(t, Config{AnswerTimeout: 200 * time.Millisecond}, p)
	c := s.dial()
	c.ask("GET /later HTTP/1.1\r\nHost: h\r\n\r\n", "503 the request could not be answered in time\n")
	c.wantEnd()
	p.waitFor(t, "abandoned")
}

func TestStreams(t *testing.T) {
	const ask = "POST /stream HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
	p := newPages()
	s := servePages(t, Config{}, p)
	open := func() *client {
		c := s.dial()
		c.write([]byte(ask))
		res := c.response()
		if res.StatusCode != 200 || !res.Close || res.ContentLength != -1 || res.Header.Get("X-Test") != "1" || res.Header.Get("Content-Type") != "text/plain" {
			t.Fatalf("%+v", res)
		}
		c.wantLine(`a["hello"]`)
		return c
	}
	a, b := open(), open()
	s.on(func() {
		f := &Frame{Bytes: framing.SockJS.Append(nil, []byte("shared"))}
		for _, c := range p.streams {
			c.SendShared(f)
		}
		p.streams[0].Close(4200, "go")
	})
	a.wantLine(`a["shared"]`)
	a.wantLine(`c[4200,"go"]`)
	a.wantEnd()
	p.waitFor(t, "closed closed 4200 go")
	b.wantLine(`a["shared"]`)
	b.write([]byte("more that nobody reads"))
	_ = b.conn.Close()
	await.True(t, "the second is lost", func() bool { return s.loops[0].Stats().Closed[CauseLost] == 1 })
}

func TestStreamsThatReadTooSlowlyEnd(t *testing.T) {
	p := newPages()
	s := servePages(t, Config{OutboxBytesMax: 256 << 10, SlowCode: 4100, SlowReason: "slow"}, p)
	c := s.dial()
	_ = c.conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	c.write([]byte("POST /stream HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"))
	c.response()
	c.wantLine(`a["hello"]`)
	f := &Frame{Bytes: framing.SockJS.Append(nil, make([]byte, 8<<10))}
	await.True(t, "the stream was closed", func() bool {
		s.on(func() { p.streams[0].SendShared(f) })
		return p.n.Load() > 0
	})
	p.waitFor(t, "closed slow 4100 slow")
	all, err := io.ReadAll(c.in)
	if err != nil || !strings.HasSuffix(string(all), "\nc[4100,\"slow\"]\n") {
		t.Errorf("%d bytes that end in %.40q, %v", len(all), all[max(0, len(all)-40):], err)
	}
}

func TestStreamsPark(t *testing.T) {
	p := newPages()
	s := servePages(t, Config{OutboxBytesMax: 4 << 10}, p)
	c := s.dial()
	c.write([]byte("POST /park HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"))
	c.response()
	c.wantLine(`a["hello"]`)
	_ = c.conn.Close()
	p.waitFor(t, "parked")
	var conn *Conn
	s.on(func() {
		conn = p.streams[0]
		if !conn.Parked() || conn.Blocked() || conn.Take(100) != nil {
			t.Error("is not as a parked connection should be")
		}
		p.ready = func(*Conn) { p.add("ready") }
		conn.SendText([]byte("one"))
		conn.SendShared(&Frame{Bytes: framing.SockJS.Append(nil, []byte("two"))})
	})
	p.waitFor(t, "ready")
	s.on(func() {
		if got := string(conn.Take(1)); got != "a[\"one\"]\n" {
			t.Errorf("took %q", got)
		}
		conn.SendText([]byte("three"))
		if got := string(conn.Take(100)); got != "a[\"two\"]\na[\"three\"]\n" {
			t.Errorf("took %q", got)
		}
		if conn.Take(1) != nil || conn.Pending() != 0 {
			t.Error("something is left")
		}
		conn.SendText(make([]byte, 4<<10)) // more than the limit
	})
	p.waitFor(t, "closed slow 1008 slow")
	await.True(t, "it is gone", func() bool { return s.loops[0].Stats().Connections == 0 })
	if n := s.loops[0].Stats().OutboxBytes; n != 0 {
		t.Errorf("%d bytes in outboxes", n)
	}
}

func TestParkedConnectionsAge(t *testing.T) {
	p := newPages()
	s := servePages(t, Config{OutboxAgeMax: 200 * time.Millisecond}, p)
	c := s.dial()
	c.ask("GET /later HTTP/1.1\r\nHost: h\r\n\r\n")
	p.waitFor(t, "waits")
	s.on(func() {
		conn := p.loop.NewParked(p.later[0], framing.SockJS)
		conn.SendText([]byte("one"))
		if got := string(conn.Take(100)); got != "a[\"one\"]\n" {
			t.Errorf("took %q", got)
		}
		conn.SendText([]byte("two"))
	})
	p.waitFor(t, "closed slow 1008 slow")
	s.on(func() {
		conn := p.loop.NewParked(p.later[0], framing.SockJS)
		conn.SendText([]byte("one"))
		conn.Close(4200, "go")
	})
	p.waitFor(t, "closed closed 4200 go")
}

// portablePages is servePages on goroutines, as on systems without epoll.
func portablePages(t *testing.T, cfg Config, p *pages) *server {
	t.Helper()
	cfg.Log = quiet()
	l, err := newOn[func()](cfg, p, netpoll.NewPortable())
	if err != nil {
		t.Fatal(err)
	}
	p.loop = l
	s := &server{t: t, loops: []*Loop[func()]{l}}
	s.start(listenPlain)
	return s
}

// TestParkingOverGoroutines: connections through pipes park too.
func TestParkingOverGoroutines(t *testing.T) {
	p := newPages()
	s := portablePages(t, Config{}, p)
	c := s.dial()
	c.ask(postHello, `200 POST /a "hello"`)
	c.write([]byte("POST /park HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"))
	c.response()
	c.wantLine(`a["hello"]`)
	_ = c.conn.Close()
	p.waitFor(t, "parked")
	s.on(func() {
		p.streams[0].SendText([]byte("one"))
		if got := string(p.streams[0].Take(100)); got != "a[\"one\"]\n" {
			t.Errorf("took %q", got)
		}
		p.streams[0].Abort("enough")
	})
	p.waitFor(t, "closed aborted 1006 enough")
	await.True(t, "it is gone", func() bool { return s.loops[0].Stats().Connections == 0 })
}

// TestHandOverBehindAnAnswer: what was queued is written before the connection
// is somebody else's.
func TestHandOverBehindAnAnswer(t *testing.T) {
	for name, start := range map[string]func(*testing.T, Config, *pages) *server{"descriptors": servePages, "goroutines": portablePages} {
		t.Run(name, func(t *testing.T) {
			handed := NewHandOverListener(&net.TCPAddr{}, 1)
			p := newPages()
			serve := p.request
			p.request = func(c *Conn, head *Head) Verdict {
				if head.Path == "/elsewhere" {
					return Verdict{Action: HandOver}
				}
				return serve(c, head)
			}
			s := start(t, Config{HandOver: handed}, p)
			for range 20 {
				c := s.dial()
				c.write([]byte(postHello + "GET /elsewhere HTTP/1.1\r\nHost: h\r\n\r\n"))
				conn, err := handed.Accept()
				if err != nil {
					t.Fatal(err)
				}
				if n, err := conn.Read(make([]byte, 4096)); err != nil || n == 0 {
					t.Fatalf("read %d bytes of the request, %v", n, err)
				}
				if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nelse"); err != nil {
					t.Fatal(err)
				}
				c.wantAnswer(`200 POST /a "hello"`)
				c.wantAnswer("200 else")
				if !s.loops[0].TakeBack(conn, []byte(postHello)) { // and back again
					t.Fatal("the loop does not take it back")
				}
				c.wantAnswer(`200 POST /a "hello"`)
				_ = c.conn.Close()
			}
		})
	}
}
