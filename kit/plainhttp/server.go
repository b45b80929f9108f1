// Package plainhttp serves plain HTTP/1.1 requests, and leaves everything else to net/http: what is not plain, or breaks a rule, is
// served, timed and refused there, with the rest of its connection. net/http's machinery around a handler (a second goroutine that reads
// while the handler runs, a context and some thirty allocations per request) costs more than a small handler. The package owns which
// requests are plain; it must not know what handlers do.
//
// Plain is a GET or a POST with a path and a Content-Length, without anything that changes how a connection is used. See parse.
package plainhttp

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Server serves the connections of one listener. Its handler must not stream, hijack or keep the request; the context of a plain
// request does not end when its client leaves.
type Server struct {
	// immutable after New
	rest     *http.Server // serves what is not plain
	handler  http.Handler
	listener net.Listener
	others   *others

	// immutable after Except
	except func(method, target string) bool
	give   func(nc net.Conn, read []byte)

	// atomic
	stopping atomic.Bool

	mu sync.Mutex
	// guarded by mu
	conns map[*conn]struct{}

	group sync.WaitGroup // of connections
}

// New returns a server with the handler and the timeouts of rest, which gets the connections that it does not serve itself.
func New(rest *http.Server, l net.Listener) *Server {
	return &Server{
		rest: rest, handler: rest.Handler, listener: l, conns: make(map[*conn]struct{}),
		others: &others{addr: l.Addr(), conns: make(chan net.Conn), done: make(chan struct{})},
	}
}

// Except has connections leave whose next request, by the method and the target of its line, is none of the handler's: give gets
// them, with what was read. Call it before Serve. Connections that net/http serves are not looked at.
func (s *Server) Except(except func(method, target string) bool, give func(nc net.Conn, read []byte)) {
	s.except, s.give = except, give
}

// Others is the listener of connections that net/http is to serve.
func (s *Server) Others() net.Listener { return s.others }

// Serve serves until Shutdown or Close, or until the listener fails. l is Others, or what wraps it. It returns http.ErrServerClosed
// after Shutdown and Close, which may not have returned yet then.
func (s *Server) Serve(l net.Listener) error {
	served := make(chan error, 1)
	go func() { served <- s.rest.Serve(l) }()
	err := s.accept()
	if !s.stopping.Load() {
		s.rest.Close()
	}
	if rest := <-served; !errors.Is(rest, http.ErrServerClosed) && s.stopping.Load() {
		return rest
	}
	return err
}

// accept takes connections until the listener is closed. Errors that pass, such as a lack of descriptors, are waited out as in net/http.
func (s *Server) accept() error {
	wait := acceptWaitMin
	for {
		nc, err := s.listener.Accept()
		switch {
		case err == nil:
			wait = acceptWaitMin
			s.start(nc)
		case s.stopping.Load():
			return http.ErrServerClosed
		case !passing(err):
			return err
		default:
			time.Sleep(wait)
			wait = min(2*wait, acceptWaitMax)
		}
	}
}

const (
	acceptWaitMin = 5 * time.Millisecond
	acceptWaitMax = time.Second
)

func passing(err error) bool {
	var ne net.Error
	//lint:ignore SA1019 net/http asks the same, and nothing replaces it
	return errors.As(err, &ne) && ne.Temporary()
}

func (s *Server) start(nc net.Conn) {
	c := newConn(s, nc)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		_ = nc.Close()
		return
	}
	s.conns[c] = struct{}{}
	s.group.Go(c.serve)
}

func (s *Server) forget(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}

// stop closes the listener and has each connection end with the request that it is serving.
func (s *Server) stop() {
	s.stopping.Store(true)
	_ = s.listener.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.wakeIdle()
	}
}

// Shutdown closes the listener and idle connections, and waits for the requests that are being served, or for ctx.
func (s *Server) Shutdown(ctx context.Context) error {
	s.stop()
	ended := make(chan struct{})
	go func() {
		s.group.Wait()
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	return s.rest.Shutdown(ctx)
}

// Close closes the listener and all connections.
func (s *Server) Close() error {
	s.stop()
	s.mu.Lock()
	for c := range s.conns {
		_ = c.nc.Close()
	}
	s.mu.Unlock()
	return s.rest.Close()
}

// others is a net.Listener of the connections that are handed over.
type others struct {
	addr  net.Addr
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

// push waits until nc is accepted; it closes nc when nobody will accept it.
func (o *others) push(nc net.Conn) {
	select {
	case o.conns <- nc:
	case <-o.done:
		_ = nc.Close()
	}
}

// Accept implements net.Listener.
func (o *others) Accept() (net.Conn, error) {
	select {
	case nc := <-o.conns:
		return nc, nil
	case <-o.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (o *others) Close() error {
	o.once.Do(func() { close(o.done) })
	return nil
}

// Addr implements net.Listener.
func (o *others) Addr() net.Addr { return o.addr }
