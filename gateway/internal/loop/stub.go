// Package loop is the gateway's event loops (being written: the bodies in
// this file are replaced; the signatures stay).
package loop

import (
	"context"
	"crypto/tls"
	"net"

	"github.com/carillon-rt/carillon/gateway/internal/httphead"
)

// Head is a parsed request head.
type Head = httphead.Head

// Cause is why a connection ended; its String labels metrics.
type Cause uint8

// Causes.
const (
	CausePeer     Cause = iota // the client sent a close frame
	CauseLost                  // end of stream or error without a close frame
	CauseClosed                // Conn.Close
	CauseAborted               // Conn.Abort
	CauseProtocol              // the client broke RFC 6455 (1002, 1007)
	CauseTooBig                // message over MessageBytesMax (1009)
	CauseSlow                  // outbox over its bytes or age
	CausePanic                 // the handler panicked (1011)
	CauseShutdown              // the loop stopped
)

// Closure says how a connection ended. Code and Reason are the close frame's:
// the client's if it sent the first one, else ours; 1006 if there was none.
type Closure struct {
	Cause  Cause
	Code   int
	Reason string
}

// SlowCloser is an optional ability of handlers: the close code for one slow
// connection, instead of Config.SlowCode and SlowReason.
type SlowCloser interface {
	SlowClose(c *Conn) (code int, reason string)
}

// Conn is one connection. It belongs to its loop: no method may be called
// elsewhere than in the handler's methods.
type Conn struct {
	// Data belongs to the handler.
	Data any
}

func (c *Conn) Handle() Handle                { panic("unwritten") }
func (c *Conn) RemoteAddr() string            { panic("unwritten") }
func (c *Conn) Send(frames []byte)            { panic("unwritten") }
func (c *Conn) SendShared(f *Frame)           { panic("unwritten") }
func (c *Conn) SendText(payload []byte)       { panic("unwritten") }
func (c *Conn) Close(code int, reason string) { panic("unwritten") }
func (c *Conn) Abort(reason string)           { panic("unwritten") }
func (c *Conn) SetTimer(at int64)             { panic("unwritten") }
func (c *Conn) Pending() int                  { panic("unwritten") }
func (c *Conn) LastInput() int64              { panic("unwritten") }

// Loop is one event loop.
type Loop[M any] struct{}

func New[M any](cfg Config, h Handler[M]) (*Loop[M], error) { panic("unwritten") }
func (l *Loop[M]) Run(ctx context.Context) error            { panic("unwritten") }
func (l *Loop[M]) Post(m M) bool                            { panic("unwritten") }
func (l *Loop[M]) PostAll(ms []M) bool                      { panic("unwritten") }
func (l *Loop[M]) PostAlways(m M)                           { panic("unwritten") }
func (l *Loop[M]) Conn(h Handle) *Conn                      { panic("unwritten") }
func (l *Loop[M]) ConnAt(slot int32) *Conn                  { panic("unwritten") }
func (l *Loop[M]) Now() int64                               { panic("unwritten") }
func (l *Loop[M]) Stats() Stats                             { panic("unwritten") }

// Stats is a snapshot of a loop's counters.
type Stats struct{}

// Listener accepts connections and spreads them over loops.
type Listener struct{}

func Listen[M any](addr string, loops ...*Loop[M]) (*Listener, error) { panic("unwritten") }
func ListenTLS[M any](addr string, cfg *tls.Config, loops ...*Loop[M]) (*Listener, error) {
	panic("unwritten")
}
func (l *Listener) Addr() net.Addr                { panic("unwritten") }
func (l *Listener) Run(ctx context.Context) error { panic("unwritten") }
func (l *Listener) Close() error                  { panic("unwritten") }

// HandOverListener gives handed-over connections to net/http.
type HandOverListener struct{}

func NewHandOverListener(addr net.Addr, pendingMax int) *HandOverListener { panic("unwritten") }
func (h *HandOverListener) Accept() (net.Conn, error)                     { panic("unwritten") }
func (h *HandOverListener) Close() error                                  { panic("unwritten") }
func (h *HandOverListener) Addr() net.Addr                                { panic("unwritten") }
