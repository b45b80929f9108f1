package loop

import "github.com/carillon-rt/carillon/gateway/internal/httphead"

// Head is a parsed request head; its strings are valid only during the call
// that it is given to.
type Head = httphead.Head

// Cause is why a connection ended. Its String labels metrics.
type Cause uint8

// Causes.
const (
	CausePeer     Cause = iota // the client sent a close frame
	CauseLost                  // end of stream, or an error, without a close frame
	CauseClosed                // Conn.Close
	CauseAborted               // Conn.Abort
	CauseProtocol              // the client broke RFC 6455 (1002, 1007)
	CauseTooBig                // a message over MessageBytesMax (1009)
	CauseSlow                  // the outbox is over its limit of bytes or age
	CausePanic                 // the handler panicked (1011)
	CauseShutdown              // the loop stopped (1001)
	causes
)

// String returns the label of the cause.
func (c Cause) String() string {
	names := [causes]string{"peer", "lost", "closed", "aborted", "protocol", "too_big", "slow", "panic", "shutdown"}
	if c < causes {
		return names[c]
	}
	return "unknown"
}

// Closure says how a connection ended. Code and Reason are those of the close
// frame that came first, the client's or ours; Code is 1006 if there was none,
// and 1005 if the client's had no code.
type Closure struct {
	Cause  Cause
	Code   int
	Reason string
}

// SlowCloser is an optional ability of handlers: the close code and reason for
// one slow connection, instead of Config.SlowCode and SlowReason.
type SlowCloser interface {
	SlowClose(c *Conn) (code int, reason string)
}
