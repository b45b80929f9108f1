// Package centrifugo is one client of Centrifugo's protocol as a pure state
// machine: commands and answers in, messages and wishes out. Its words are
// those of dialect/centrifugo, and "client protocol" is the same as there. It
// knows no sockets, clock, goroutines, locks or NATS.
package centrifugo

import (
	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

// Host is what a session asks of the world. No method blocks; answers come
// back as calls of the session's methods, on the same loop, later. A host
// drops answers for a session that was closed meanwhile.
type Host interface {
	Transport
	session.Witness
	session.Channels
	// Live has what was held back for a subscription sent, and all that follows:
	// it is due after Session.Attached for what was attached with Attach.Wait.
	// It returns false if the subscription has a gap.
	Live(channel string) bool
	Cluster
}

// Transport is the session's own connection.
type Transport interface {
	// SocketID names the connection in the cluster.
	SocketID() string
	// SessionID is how requests of clients without a WebSocket find the session:
	// its gateway, and a name that nobody else knows. ok is false for others.
	SessionID() (node, id string, ok bool)
	// Send queues one message; payload is copied.
	Send(payload []byte)
	// Disconnect closes after what was sent has been written; why is for
	// metrics.
	Disconnect(why dialect.Reason, code int, reason string)
	// Probe has the transport ask whether the peer is there; its answer is heard:
	// see Session.Active, Options.Frames.
	Probe()
	// Refused counts an answer that was an error, and a message without one.
	Refused(why dialect.Reason)
	// Wake has Session.Tick called at the time at, or earlier, instead of when it
	// was to be called.
	Wake(at int64)
	// Unix is the time in seconds.
	Unix() int64
}

// Cluster is everything behind the gateway. A question has a number, with
// which it is answered.
type Cluster interface {
	// Decide asks the authorization service: req is an *authz.Connect, Refresh,
	// Subscribe, SubRefresh, Publish or RPC. It is answered by Session.Decided.
	Decide(call uint32, req any)
	// Publish is answered by Session.Published when the publication is stored, or
	// on its way if it is not to be stored.
	Publish(call uint32, pub *message.Publication)
	// Presence is answered by Session.PresenceCame.
	Presence(call uint32, channel string)
	// History is answered by Session.HistoryCame.
	History(call uint32, q *HistoryQuestion)
	// Identify tells that the connection now acts as user. It returns false if
	// the user has too many: then the connection is being closed.
	Identify(user string) bool
}

// HistoryQuestion asks for a part of what a channel keeps.
type HistoryQuestion struct {
	Channel string
	resume.Page
}

// Stream is the answer: what was asked for, oldest first; nil if nobody could
// tell.
type Stream struct {
	Epoch   string
	Top     message.Position // the newest of the channel
	Entries []resume.Entry
}

// Members is the answer to Cluster.Presence; nil if nobody could tell.
type Members struct{ List []presence.Member }

// decided is a continuation.
type (
	onDecision func(d *authz.Decision, now int64)
	onReceipt  func(why dialect.Reason)
	onMembers  func(m *Members)
	onStream   func(h *Stream)
)
