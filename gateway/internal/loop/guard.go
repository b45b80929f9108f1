package loop

import (
	"log/slog"
	"runtime/debug"
	"sync/atomic"

	"github.com/carillon-rt/carillon/gateway/internal/ws"
)

// callbacks are the methods of Handler that don't depend on its mail.
type callbacks interface {
	Request(c *Conn, head *Head) Verdict
	Open(c *Conn)
	Message(c *Conn, text bool, payload []byte)
	Closed(c *Conn, why Closure)
	Tick(c *Conn, now int64)
	EndTurn()
}

// guard calls the handler. A panic in it is logged and counted, and costs the
// connection that it was about: never the loop.
type guard struct {
	// immutable after New
	handler callbacks
	slow    SlowCloser // nil if the handler isn't one
	http    Exchanger  // nil if the handler isn't one
	log     *slog.Logger
	panics  *atomic.Int64
	// of Config, for connections whose handler has no opinion
	slowCode   int
	slowReason string
}

func (g *guard) init(cfg *Config, h callbacks, panics *atomic.Int64) {
	g.handler, g.panics = h, panics
	g.slow, _ = h.(SlowCloser)
	g.http, _ = h.(Exchanger)
	g.log = cfg.Log.With("loop", cfg.Index)
	g.slowCode, g.slowReason = cfg.SlowCode, cfg.SlowReason
}

func (g *guard) request(s *Conn, head *Head) (v Verdict) {
	v = Verdict{Action: Refuse, Status: 500, Body: "internal error"}
	defer g.recovered(nil)
	return g.handler.Request(s, head)
}

func (g *guard) open(s *Conn) {
	defer g.recovered(s)
	g.handler.Open(s)
}

func (g *guard) message(s *Conn, text bool, payload []byte) {
	defer g.recovered(s)
	g.handler.Message(s, text, payload)
}

func (g *guard) closed(s *Conn, why Closure) {
	defer g.recovered(nil)
	g.handler.Closed(s, why)
}

func (g *guard) tick(s *Conn, now int64) {
	defer g.recovered(s)
	g.handler.Tick(s, now)
}

func (g *guard) body(s *Conn, body []byte) {
	defer g.recovered(s)
	g.http.Body(s, body)
}

func (g *guard) abandoned(s *Conn) {
	defer g.recovered(nil)
	g.http.Abandoned(s)
}

func (g *guard) parked(s *Conn) {
	defer g.recovered(s)
	g.http.Parked(s)
}

func (g *guard) ready(s *Conn) {
	defer g.recovered(s)
	g.http.Ready(s)
}

func (g *guard) endTurn() {
	defer g.recovered(nil)
	g.handler.EndTurn()
}

// slowClose gives the close code and reason for a slow connection. The handler
// may have aborted it afterwards.
func (g *guard) slowClose(s *Conn) (code int, reason string) {
	code, reason = g.slowCode, g.slowReason
	if g.slow == nil {
		return code, reason
	}
	defer g.recovered(nil)
	return g.slow.SlowClose(s)
}

// recovered is deferred around every call of the handler.
func (g *guard) recovered(s *Conn) {
	r := recover()
	if r == nil {
		return
	}
	g.panics.Add(1)
	g.log.Error("handler panicked", "panic", r, "stack", string(debug.Stack()))
	switch {
	case s == nil:
	case s.state == stateOpen:
		s.core.fail(s, Closure{Cause: CausePanic, Code: ws.CloseInternal, Reason: "internal error"})
	case s.state == stateAnswer:
		s.core.abandon(s)
		s.core.refuse(s, 500, "internal error")
	}
}
