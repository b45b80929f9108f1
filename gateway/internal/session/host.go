// Package session is one client's life as a pure state machine: commands and
// answers in, messages and wishes out. It knows no sockets, clock, goroutines,
// locks or NATS, and no protocol's words: those belong to its dialect.
package session

import (
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/gateway/internal/tagfilter"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

// Host is what a session asks of the world. No method blocks; answers come
// back as calls of the session's methods, on the same loop, later. A host
// drops answers for a session that was closed meanwhile.
type Host interface {
	Transport
	Witness
	Cluster
}

// Transport is the session's own connection.
type Transport interface {
	// SocketID is the id of the connection, "1234.5678". Sessions ask for it
	// when they need it: it is not kept for a million of them.
	SocketID() string
	// Send queues one text message; payload is copied.
	Send(payload []byte)
	// Close closes after what was sent has been written.
	Close(why dialect.Reason)
}

// Witness is told what clients are told of themselves, for apps that want to
// know.
type Witness interface {
	// Connected: the client has been told that it is connected.
	Connected()
	// Unsubscribed: a live subscription is over, and the connection is not. code
	// and reason are what the client is told, 0 and "" if it wanted it so.
	Unsubscribed(channel string, code uint32, reason string)
}

// Cluster is everything behind the gateway.
type Cluster interface {
	Channels
	// Authorize is answered by Session.Authorized with the same id and wish,
	// which sessions have no room for. The wish is nil mostly.
	Authorize(id uint32, req *authz.Subscribe, wish *resume.Wish)
	// SignIn is answered by Session.SignInDecided.
	SignIn(req *authz.SignIn)
	// Publish sends a client event on. Failure is counted, not reported:
	// client events have no acknowledgement.
	Publish(pub *message.Publication)
	// SetUser tells that the connection now acts as user and watches the
	// given users; answered by Session.Watching if watch is not empty.
	SetUser(user *authz.User, watch []string)
}

// Channels is the subscriptions of the connection.
type Channels interface {
	// Attach subscribes the connection to a channel that it may join. It is
	// answered by Session.Attached. Publications arrive only after that call
	// has returned, and none is missed or repeated in between.
	Attach(channel string, how Attach)
	// Detach ends a subscription, or an Attach that was not answered yet
	// (which then is never answered). A member that Attach joined leaves.
	Detach(channel string)
}

// Attach says what a subscription needs before it is complete.
type Attach struct {
	// Member joins the connection's user to the channel's members.
	Member *presence.Member
	// Cache asks for the channel's last value. Where there is none the
	// application is told, and gets as long as Fill to publish one; 0: it is not
	// told.
	Cache bool
	Fill  time.Duration
	// Resume: the client wants to keep its place, nil if it does not; of a
	// channel of which Keep is kept for clients.
	Resume *resume.Wish
	Keep   resume.Keep
	// View is how the subscription is told of publications: an index of
	// dialect.Protocol.Views.
	View uint8
	// Filter has only publications told whose tags it matches; nil is all.
	Filter *tagfilter.Filter
	// Inline: the past that the answer holds is the session's to tell, together
	// with the rest of it, unless it is too much: see resume.Answer.Follows.
	Inline bool
	// Wait: after the answer nothing is sent before the session says so.
	Wait bool
}

// Attached is the answer to Cluster.Attach.
type Attached struct {
	Channel string
	// Failed is None, MembersLimit, or Unavailable.
	Failed  dialect.Reason
	Message string
	// Members is the roster, the connection's own user included.
	Members []presence.Member
	// Cached is the channel's last value; nil with Attach.Cache is a miss.
	Cached *message.Publication
	// CachedAt is where Cached, or the channel's newest publication, stands.
	CachedAt resume.Place
	// Resume answers Attach.Resume. Unless Attach.Inline, its Entries are the
	// host's to send, after Session.Attached has returned; so are those that
	// follow, which are left out.
	Resume *resume.Answer
}
