package plainhttp

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// echo tells all of a request, with a status that ?status= may choose.
func echo(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if r.URL.Query().Has("panic") {
		panic("told to")
	}
	w.Header().Set("X-Second", "2")
	w.Header().Set("A-First", "1")
	if r.URL.Query().Has("none") {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	if r.URL.Query().Has("empty") {
		return
	}
	if r.URL.Query().Has("close") {
		w.Header().Set("Connection", "close")
	}
	if r.URL.Query().Has("json") {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusTeapot)
		w.WriteHeader(http.StatusOK)
	}
	fmt.Fprintf(w, "%s %s host=%s uri=%s path=%q raw=%q query=%q length=%d coding=%v header=%v body=%q err=%v",
		r.Method, r.Proto, r.Host, r.RequestURI, r.URL.Path, r.URL.RawPath, r.URL.RawQuery, r.ContentLength, r.TransferEncoding, r.Header, body, err)
}

func settings(handler http.HandlerFunc) *http.Server {
	return &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 10 * time.Second, IdleTimeout: 10 * time.Second,
		ErrorLog: log.New(io.Discard, "", 0),
	}
}

// counted is a server and how many connections it handed over.
type counted struct {
	*Server
	addr  string
	given atomic.Int64
}

func start(t *testing.T, rest *http.Server, changes ...func(*Server)) *counted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &counted{Server: New(rest, l), addr: l.Addr().String()}
	rest.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			c.given.Add(1)
		}
	}
	for _, change := range changes {
		change(c.Server)
	}
	served := make(chan error, 1)
	go func() { served <- c.Serve(c.Others()) }()
	t.Cleanup(func() {
		_ = c.Close()
		c.group.Wait()
		<-served
	})
	return c
}

func bare(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := settings(echo)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	t.Cleanup(func() {
		_ = srv.Close()
		<-served
	})
	return l.Addr().String()
}

func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return nc
}

var dates = regexp.MustCompile(`Date: [^\r]*GMT`)

// converse sends parts, each after the answers that the ones before it cause, and returns all that comes until the server closes.
func converse(t *testing.T, addr string, parts ...string) string {
	t.Helper()
	nc := dial(t, addr)
	for _, part := range parts {
		if _, err := io.WriteString(nc, part); err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(nc)
	if err != nil {
		t.Fatal(err)
	}
	return dates.ReplaceAllString(string(all), "Date: now")
}

func post(target, fields, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: a.example:80\r\nContent-Length: %d\r\n%s\r\n%s", target, len(body), fields, body)
}

// TestSameAsNetHTTP compares byte by byte with net/http alone.
func TestSameAsNetHTTP(t *testing.T) {
	const get = "GET /x?y=%20z HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, tc := range []struct {
		name, send string
		plain      bool
	}{
		{"nothing", "", true},
		{"post", post("/apps/1/events?a=b&c=d+e%2f", "Content-Type: application/json\r\n", `{"a":1}`), true},
		{"post of nothing", post("/", "", ""), true},
		{"post without length", "POST / HTTP/1.1\r\nHost: a\r\n\r\n", true},
		{"get", get, true},
		{"get with a body", strings.Replace(post("/", "", "abc"), "POST", "GET", 1), true},
		{"several requests at once", post("/1", "", "abc") + get + post("/2", "", "def"), true},
		{"odd fields", post("/", "x-LOWER-case:  v \t\r\nx-lower-CASE: w\r\nEmpty:\r\nCookie: a=b; c\r\nKeep-Alive: timeout=5\r\n", "x"), true},
		{"keep-alive", post("/", "connection: Keep-Alive\r\n", "x") + get, true},
		{"json with a status", post("/?json", "", "x") + post("/?json", "", ""), true},
		{"no content", post("/?none", "", "x") + get, true},
		{"empty answer", post("/?empty", "", "x") + get, true},
		{"closed by the handler", post("/?close", "", "x") + get, true},
		{"escapes in the path", post("/a%2Fb/%C3%A9?x", "", "x") + post("/a!b'(c)*;d", "", ""), true},
		{"large body", post("/?empty", "", strings.Repeat("x", bodyMax)) + get, true},
		{"too large for us", post("/?empty", "", strings.Repeat("x", bodyMax+1)) + get, false},
		{"large head", post("/?empty", "X: "+strings.Repeat("x", bufferBytes)+"\r\n", "") + get, false},
		{"many fields", post("/", strings.Repeat("X: y\r\n", fieldsMax+1), "") + get, false},
		{"chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + get, false},
		{"plain, then chunked", get + "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + get, false},
		{"expectation", post("/", "Expect: 100-continue\r\n", "abc") + get, false},
		{"to be closed", post("/", "Connection: close\r\n", "abc") + get, false},
		{"head", "HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", false},
		{"another method", "PUT / HTTP/1.1\r\nHost: a\r\n\r\n", false},
		{"version 1.0", "GET / HTTP/1.0\r\n\r\n", false},
		{"version 2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", false},
		{"absolute target", "GET http://b/c?d HTTP/1.1\r\nHost: a\r\n\r\n", false},
		{"two slashes", post("//x/y", "", ""), false},
		{"bad escape", post("/%zz", "", ""), false},
		{"empty query", post("/x?", "", ""), false},
		{"fragment", post("/x#y", "", ""), false},
		{"no host", "GET / HTTP/1.1\r\n\r\n", false},
		{"two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", false},
		{"bad host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", false},
		{"empty host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", false},
		{"bad name", post("/", "a b: c\r\n", ""), false},
		{"space before the colon", post("/", "a : c\r\n", ""), false},
		{"folded", post("/", "a: c\r\n d\r\n", ""), false},
		{"control in a value", post("/", "a: \x01\r\n", ""), false},
		{"bare newline", "GET / HTTP/1.1\nHost: a\n\n", false},
		{"bare newline between fields", post("/", "a: b\nc: d\r\n", ""), false},
		{"two lengths", post("/", "Content-Length: 3\r\n", "abc"), false},
		{"different lengths", post("/", "Content-Length: 4\r\n", "abcd"), false},
		{"bad length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", false},
		{"huge length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\nabc", false},
		{"pragma", post("/", "Pragma: no-cache\r\n", ""), false},
		{"garbage", "\x16\x03\x01 garbage\r\n\r\n", false},
		{"empty line first", "\r\n" + get, false},
		{"half a head", get + "POST / HT", false},
		{"half a body", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc", false},
		{"panic", post("/?panic", "", "x"), true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := start(t, settings(echo))
			want := converse(t, bare(t), tc.send)
			if got := converse(t, c.addr, tc.send); got != want {
				t.Errorf("answered\n%s\nwant\n%s", got, want)
			}
			if plain := c.given.Load() == 0; plain != tc.plain {
				t.Errorf("served as plain: %v, want %v", plain, tc.plain)
			}
		})
	}
}

// TestBodyComesLater sends a body after its head: the request stays plain.
func TestBodyComesLater(t *testing.T) {
	c := start(t, settings(echo))
	whole := post("/?empty", "", strings.Repeat("x", 10_000))
	half := len(whole) - 9000
	want := converse(t, bare(t), whole)
	if got := converse(t, c.addr, whole[:half], whole[half:]); got != want {
		t.Errorf("answered\n%s\nwant\n%s", got, want)
	}
	if c.given.Load() != 0 {
		t.Error("the connection was handed over")
	}
}

// TestBodyNeverComes: the handler learns from net/http that the time is over.
func TestBodyNeverComes(t *testing.T) {
	rest := settings(echo)
	rest.ReadTimeout = 50 * time.Millisecond
	c := start(t, rest)
	nc := dial(t, c.addr)
	if _, err := io.WriteString(nc, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc"); err != nil {
		t.Fatal(err)
	}
	all, err := io.ReadAll(nc)
	if err != nil || !strings.Contains(string(all), `body="abc" err=read tcp`) || !strings.Contains(string(all), "i/o timeout") {
		t.Errorf("answered %q, %v", all, err)
	}
}

func TestTimeouts(t *testing.T) {
	for _, tc := range []struct {
		name, send   string
		header, idle time.Duration
	}{
		{"no request", "", 20 * time.Millisecond, time.Hour},
		{"no further request", "GET /?empty HTTP/1.1\r\nHost: a\r\n\r\n", time.Hour, 20 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			rest := settings(echo)
			rest.ReadHeaderTimeout, rest.IdleTimeout = tc.header, tc.idle
			nc := dial(t, start(t, rest).addr)
			if _, err := io.WriteString(nc, tc.send); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadAll(nc); err != nil {
				t.Errorf("the connection was not closed in order: %v", err)
			}
		})
	}
}

// TestShutdown lets the request under way finish and ends an idle connection.
func TestShutdown(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	c := start(t, settings(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			close(begun)
			<-finish
		}
		_, _ = io.WriteString(w, "done")
	}))
	idle, busy := dial(t, c.addr), dial(t, c.addr)
	if _, err := io.WriteString(idle, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(idle)
	if resp, err := http.ReadResponse(answers, nil); err != nil {
		t.Fatal(err)
	} else if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(busy, post("/", "", "x")); err != nil {
		t.Fatal(err)
	}
	<-begun
	down := make(chan error, 1)
	go func() { down <- c.Shutdown(context.Background()) }()
	if _, err := answers.ReadByte(); err != io.EOF {
		t.Errorf("the idle connection gives %v, want EOF", err)
	}
	select {
	case err := <-down:
		t.Fatalf("Shutdown returned %v during a request", err)
	default:
	}
	close(finish)
	all, err := io.ReadAll(busy)
	if err != nil || !strings.Contains(string(all), "Connection: close\r\n\r\ndone") {
		t.Errorf("answered %q, %v", all, err)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
	if _, err := net.Dial("tcp", c.addr); err == nil {
		t.Error("the port is still open")
	}
}

// requestAllocsMax is what a request may allocate: the copy of its head, and little else.
const requestAllocsMax = 6

func TestAllocations(t *testing.T) {
	c := &conn{server: &Server{rest: settings(nil), handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = r.Body.Read(make([]byte, 8))
		w.Header()["Content-Type"] = nil
		_, _ = w.Write([]byte("{}"))
	})}, nc: nowhere{}}
	c.head.fields, c.answer.header = make(http.Header), make(http.Header)
	wire := []byte(post("/apps/1/events?auth_key=k", "User-Agent: x\r\nContent-Type: application/json\r\n", `{"a":1}`))
	n := testing.AllocsPerRun(100, func() {
		c.buf = append(c.buf[:0], wire...)
		size, plain := c.head.parse(c.buf, &c.url)
		if !plain || !c.serveOne(size) {
			t.Fatal("not served")
		}
	})
	if n > requestAllocsMax {
		t.Errorf("%v allocations per request, the budget is %d", n, requestAllocsMax)
	}
}

// nowhere takes everything.
type nowhere struct{ net.Conn }

func (nowhere) Write(b []byte) (int, error) { return len(b), nil }

// FuzzParse: what is plain is what net/http reads, and read the same.
func FuzzParse(f *testing.F) {
	f.Add([]byte(post("/a?b", "C: d\r\nConnection: keep-alive\r\n", "")))
	f.Add([]byte("GET /%41 HTTP/1.1\r\nHost: [::1]:80\r\nx: \t\r\n\r\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var h head
		var u url.URL
		h.fields = make(http.Header)
		size, plain := h.parse(raw, &u)
		if !plain {
			return
		}
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(raw[:size]))))
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", raw[:size], err)
		}
		if r.Method != h.method || r.Host != h.host || r.RequestURI != h.target || r.ContentLength != int64(h.length) || *r.URL != u || r.Close {
			t.Fatalf("%q is %+v %+v, want %+v %+v", raw[:size], h, u, r, r.URL)
		}
		if fmt.Sprint(r.Header) != fmt.Sprint(h.fields) {
			t.Fatalf("header is %v, want %v", h.fields, r.Header)
		}
	})
}

// TestExcept: connections leave with the first request that is none of the handler's, plain or not.
func TestExcept(t *testing.T) {
	type gift struct {
		nc   net.Conn
		read string
	}
	gifts := make(chan gift, 1)
	c := start(t, settings(echo), func(s *Server) {
		s.Except(func(method, target string) bool { return strings.HasPrefix(target, "/mine") },
			func(nc net.Conn, read []byte) { gifts <- gift{nc, string(read)} })
	})
	for _, last := range []string{
		post("/mine?a=b", "", "content"),
		"OPTIONS /mine HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /mine HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		nc := dial(t, c.addr)
		in := bufio.NewReader(nc)
		io.WriteString(nc, post("/yours", "", "x"))
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		io.WriteString(nc, last)
		g := <-gifts
		if g.read != last {
			t.Errorf("given with %q, want %q", g.read, last)
		}
		io.WriteString(g.nc, "bye")
		_ = g.nc.Close()
		if rest, err := io.ReadAll(in); err != nil || string(rest) != "bye" {
			t.Errorf("the client got %q, %v", rest, err)
		}
	}
}
