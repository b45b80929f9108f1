// Package unread counts the HTTP requests that net/http answers by itself, because they can't be read or do not arrive in time: no handler
// ever sees them, so nothing else can count them. It knows nothing of what the server serves.
package unread

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// Watch has count called for every request on the listener's connections that srv begins to read and gives up on before it reaches the
// handler. It returns the listener that srv must serve. Call it before Serve, with the handler, ConnState and ConnContext that srv keeps:
// it takes their place.
func Watch(srv *http.Server, l net.Listener, count func()) net.Listener {
	next := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(connKey{}).(*conn); ok {
			c.state.Store(handled)
		}
		next.ServeHTTP(w, r)
	})
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) }
	srv.ConnState = func(nc net.Conn, state http.ConnState) {
		c, ok := nc.(*conn)
		if !ok {
			return
		}
		switch state {
		case http.StateActive: // bytes of a request were read
			c.state.Store(reading)
		case http.StateIdle: // its answer was written
			c.state.Store(idle)
		case http.StateClosed:
			if c.state.Load() == reading {
				c.refused()
			}
		}
	}
	return listener{l, count}
}

// States of a connection.
const (
	idle    int32 = iota
	reading       // a request has begun
	handled       // the handler has it
)

type connKey struct{}

type listener struct {
	net.Listener
	count func()
}

// Accept implements net.Listener.
func (l listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c, refused: sync.OnceFunc(l.count)}, nil
}

// conn is a connection that knows whether the handler has its request.
type conn struct {
	net.Conn
	refused func()

	// atomic
	state atomic.Int32
}

// Write implements net.Conn. What is written while no handler has a request is net/http's own refusal.
func (c *conn) Write(b []byte) (int, error) {
	if c.state.Load() != handled {
		c.refused()
	}
	return c.Conn.Write(b)
}

// CloseWrite ends the sending side where the connection can do that; net/http uses it to let a client read an early answer.
func (c *conn) CloseWrite() error {
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}
