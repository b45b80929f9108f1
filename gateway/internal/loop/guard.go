package loop

import (
	"net/http"
	"runtime/debug"

	"github.com/carillon-rt/carillon/gateway/internal/ws"
)

// The functions here call the handler. A panic in it is logged and counted,
// and costs the connection that it was about: never the loop.

func (c *core) callRequest(s *Conn, head *Head) (v Verdict) {
	v = Verdict{Action: Refuse, Status: 500, Body: "internal error"}
	defer c.recovered(nil)
	return c.handler.Request(s, head)
}

func (c *core) callOpen(s *Conn) {
	defer c.recovered(s)
	c.handler.Open(s)
}

func (c *core) callMessage(s *Conn, text bool, payload []byte) {
	defer c.recovered(s)
	c.handler.Message(s, text, payload)
}

func (c *core) callClosed(s *Conn, why Closure) {
	defer c.recovered(nil)
	c.handler.Closed(s, why)
}

func (c *core) callTick(s *Conn, now int64) {
	defer c.recovered(s)
	c.handler.Tick(s, now)
}

func (c *core) callEndTurn() {
	defer c.recovered(nil)
	c.handler.EndTurn()
}

func (c *core) callSlowClose(s *Conn) (code int, reason string) {
	code, reason = c.cfg.SlowCode, c.cfg.SlowReason
	defer c.recovered(nil)
	return c.slow.SlowClose(s)
}

// recovered is deferred around every call of the handler.
func (c *core) recovered(s *Conn) {
	r := recover()
	if r == nil {
		return
	}
	c.stats.panics.Add(1)
	c.log.Error("handler panicked", "loop", c.cfg.Index, "panic", r, "stack", string(debug.Stack()))
	if s != nil && s.state == stateOpen {
		c.fail(s, Closure{Cause: CausePanic, Code: ws.CloseInternal, Reason: "internal error"})
	}
}

// statusText is the reason phrase of an HTTP status.
func statusText(status int) string {
	if text := http.StatusText(status); text != "" {
		return text
	}
	return "Status"
}
