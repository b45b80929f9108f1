// Package edge joins loops, sessions and the hub: it implements the loops'
// handler, gives every connection its session, expands publications to
// subscribers, and carries the sessions' wishes to the backbone and the
// answers back through the loops' mailboxes. It imports no NATS.
package edge

import (
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/exchange"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

// Backbone is what the loops ask of the services behind NATS. Its methods are
// called on loops and never block; each answer function is called exactly
// once, on any goroutine.
type Backbone interface {
	Authorize(req *authz.Subscribe, answer func(authz.Decision))
	SignIn(req *authz.SignIn, answer func(authz.Decision))
	// Publish sends a client event to a router.
	Publish(pub *message.Publication)
	// Cached reads a channel's last value once its partition has been applied
	// up to req.AtLeast; 0 is what has been delivered here by now. A nil reply
	// means that nobody could answer in time.
	Cached(req history.Request, answer func(*history.Reply))
	// CacheEmpty tells the application that a channel has no last value, and
	// answers when it has published one, or won't, or the time is over.
	CacheEmpty(key channel.Key, within time.Duration, answer func())
}

// Answers is what loops ask for clients whose commands are answered, with the
// same terms as Backbone.
type Answers interface {
	// Decide asks the authorization service; req is an *authz.Connect, Refresh,
	// Subscribe, SubRefresh, Publish or RPC.
	Decide(req any, answer func(authz.Decision))
	// Submit publishes. It answers with the position of what was stored, 0 for
	// what is not to be stored, or why it was not published.
	Submit(pub *message.Publication, answer func(pos message.Position, why dialect.Reason))
	// Members answers with the members of a channel.
	Members(key channel.Key, answer func(members []presence.Member, err error))
	// Stream answers with a page of what a channel keeps, oldest first, and its
	// newest position.
	Stream(key channel.Key, page resume.Page, answer func(past *resume.Past, top message.Position, err error))
}

// History knows the past of channels, with the same terms as Backbone.
type History interface {
	// Past answers q; a nil answer means that nobody could in time. The past is
	// shared: it must not be changed.
	Past(q resume.Question, answer func(*resume.Past))
}

// Roster is the node's truth about its own connections: it sums them up per
// channel and user and tells the presence owners. Its methods are called on
// loops and never block; answers as with Backbone.
type Roster interface {
	// Subscribed and Unsubscribed change the number of this node's
	// subscriptions on a channel by one.
	Subscribed(key channel.Key)
	Unsubscribed(key channel.Key)
	// Join adds one connection of a member to a channel and answers with the
	// roster, or Full, or an error when no owner answered in time. After an
	// error or Full the connection does not count as joined.
	Join(key channel.Key, m presence.Member, answer func(presence.Result, error))
	// Leave takes back one connection whose Join was answered with a roster.
	Leave(key channel.Key, user string)
	// Online and Offline count the signed-in connections of a user.
	Online(app, user string)
	Offline(app, user string)
}

// Watcher answers which users are online, with the same terms as Roster.
type Watcher interface {
	// WhoIsOnline answers with those of users that are online.
	WhoIsOnline(app string, users []string, answer func(online []string, err error))
}

// Events takes what happens to clients, of apps that want to know.
type Events interface {
	// Tell is called on loops and never blocks.
	Tell(app string, ev Event)
}

// Event is what happened to a client.
type Event struct {
	Kind           string // app.ClientConnected or another of these
	SocketID, User string
	Channel        string // of app.ClientUnsubscribed
	// Code and Reason are what the client was told of the end; 0 and "" if it
	// wanted it so.
	Code   int
	Reason string
	AtMs   int64
}

// Sessions is how exchanges find sessions on other nodes, and are found; with
// the same terms as Backbone.
type Sessions interface {
	// Claim has requests about the session of this name come to this node. It
	// answers nil when other nodes' do, exchange.ErrElsewhere when another node has the
	// session, or another error when that can't be told now.
	Claim(name string, answer func(error))
	// Release takes a Claim back.
	Release(name string)
	// Ask sends a request to the node that has the session: to node, unless the
	// client has named the session.
	Ask(node string, req *exchange.Request, answer func(exchange.Reply))
}
