package plainhttp

import (
	"bytes"
	"io"
	"log"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// bufferBytes is what a connection reads at once; a request whose head does not come within it is net/http's.
	bufferBytes = 4 << 10
	// bodyMax is the largest body of a plain request.
	bodyMax = 64 << 10
)

// past is a deadline that wakes a reader.
var past = time.Unix(1, 0)

// conn is one connection. One goroutine runs it.
type conn struct {
	// immutable after newConn
	server *Server
	nc     net.Conn
	remote string

	// owned by serve
	buf     []byte // what was read and not used
	failed  error  // of the last read, when it ended a request early
	head    head
	url     url.URL
	request http.Request
	body    body
	answer  answer

	mu sync.Mutex
	// guarded by mu
	busy bool // a request has begun
}

// body is the body of a request that has been read.
type body struct{ bytes.Reader }

// Close implements io.Closer.
func (b *body) Close() error { return nil }

func newConn(s *Server, nc net.Conn) *conn {
	c := &conn{server: s, nc: nc, buf: make([]byte, 0, bufferBytes)}
	c.head.fields = make(http.Header, 8)
	c.answer.header = make(http.Header, 4)
	c.remote = nc.RemoteAddr().String()
	return c
}

// serve serves requests until one is not plain, the client leaves, or the server stops.
func (c *conn) serve() {
	defer c.server.forget(c)
	timeout := c.server.rest.ReadHeaderTimeout // the first request is due, later ones may be waited for
	for {
		if len(c.buf) == 0 && !c.read(timeout) {
			_ = c.nc.Close()
			return
		}
		size, plain := c.head.parse(c.buf, &c.url)
		if c.server.except != nil && c.excepted(plain) {
			c.server.give(c.nc, c.buf)
			return
		}
		if !plain || !c.whole(size+c.head.length) {
			c.handOver()
			return
		}
		if !c.serveOne(size) {
			_ = c.nc.Close()
			return
		}
		timeout = c.server.rest.IdleTimeout
	}
}

// excepted says whether the request is none of the handler's. A line that is not complete is net/http's to wait for.
func (c *conn) excepted(plain bool) bool {
	if plain {
		return c.server.except(c.head.method, c.head.target) && c.nc.SetReadDeadline(time.Time{}) == nil
	}
	line, _, complete := bytes.Cut(c.buf, []byte("\r\n"))
	method, rest, _ := bytes.Cut(line, []byte(" "))
	target, _, _ := bytes.Cut(rest, []byte(" "))
	return complete && c.server.except(string(method), string(target)) && c.nc.SetReadDeadline(time.Time{}) == nil
}

// read waits for the beginning of a request; false when none comes.
func (c *conn) read(timeout time.Duration) bool {
	if !c.idle(timeout) {
		return false
	}
	n, err := c.nc.Read(c.buf[:cap(c.buf)])
	c.buf = c.buf[:n]
	c.mu.Lock()
	c.busy = true
	c.mu.Unlock()
	return err == nil || n > 0
}

// idle says that no request is being served; false when there shall be none.
func (c *conn) idle(timeout time.Duration) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busy = false
	return !c.server.stopping.Load() && c.nc.SetReadDeadline(deadline(timeout)) == nil
}

// wakeIdle ends a connection that waits for a request. Any goroutine may call it.
func (c *conn) wakeIdle() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.busy {
		_ = c.nc.SetReadDeadline(past)
	}
}

// deadline is the moment after timeout; 0 is never, as in http.Server.
func deadline(timeout time.Duration) time.Time {
	if timeout <= 0 {
		return time.Time{}
	}
	return time.Now().Add(timeout)
}

// whole reads what is missing of a request of size bytes; false when it does not come. net/http too waits for a body before it
// answers, even where the handler refuses without reading it.
func (c *conn) whole(size int) bool {
	had := len(c.buf)
	if had >= size {
		return true
	}
	if c.failed = c.nc.SetReadDeadline(deadline(c.server.rest.ReadTimeout)); c.failed != nil {
		return false
	}
	if size > cap(c.buf) {
		c.buf = append(make([]byte, 0, size), c.buf...)
	}
	n, err := io.ReadFull(c.nc, c.buf[had:size])
	c.buf = c.buf[:had+n]
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	c.failed = err
	return err == nil
}

// serveOne answers the request whose head has size bytes; false when the connection must end.
func (c *conn) serveOne(size int) (more bool) {
	end := size + c.head.length
	c.fill(c.buf[size:end])
	c.answer.reset()
	if !c.call() {
		return false
	}
	closing := c.server.stopping.Load() || c.answer.header.Get("Connection") == "close"
	if _, err := c.nc.Write(c.answer.encode(closing)); err != nil || closing {
		return false
	}
	left := copy(c.buf, c.buf[end:])
	c.buf = c.buf[:left]
	if cap(c.buf) > bufferBytes && left <= bufferBytes {
		c.buf = append(make([]byte, 0, bufferBytes), c.buf...)
	}
	return true
}

// fill makes the request of the head and its content.
func (c *conn) fill(content []byte) {
	c.request = http.Request{
		Method: c.head.method, URL: &c.url, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: c.head.fields,
		Body: http.NoBody, ContentLength: int64(len(content)), Host: c.head.host, RequestURI: c.head.target, RemoteAddr: c.remote,
	}
	if len(content) > 0 {
		c.body.Reset(content)
		c.request.Body = &c.body
	}
}

// call runs the handler; false when it has panicked, which is said as net/http says it.
func (c *conn) call() (ok bool) {
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			logf(c.server.rest.ErrorLog, "http: panic serving %v: %v\n%s", c.remote, p, debug.Stack())
		}
	}()
	c.server.handler.ServeHTTP(&c.answer, &c.request)
	return true
}

func logf(l *log.Logger, format string, args ...any) {
	if l == nil {
		l = log.Default()
	}
	l.Printf(format, args...)
}

// handOver gives the connection to net/http, which begins with what was read.
func (c *conn) handOver() {
	c.server.others.push(&replayed{Conn: c.nc, replay: bytes.Clone(c.buf), failed: c.failed})
	c.buf = nil
}

// replayed is a connection of which some input was read already, up to an error if there was one.
type replayed struct {
	net.Conn

	// owned by the reader
	replay []byte
	failed error
}

// Read implements net.Conn.
func (r *replayed) Read(b []byte) (int, error) {
	switch {
	case len(r.replay) > 0:
		n := copy(b, r.replay)
		r.replay = r.replay[n:]
		return n, nil
	case r.failed != nil:
		return 0, r.failed
	}
	return r.Conn.Read(b)
}

// CloseWrite ends the sending side where the connection can do that; net/http uses it to let a client read an early answer.
func (r *replayed) CloseWrite() error {
	if half, ok := r.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
