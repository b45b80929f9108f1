// Package dialect is the seam between sessions and the protocols that
// clients speak. A dialect is a pure codec: it knows no sockets, clock, NATS
// or goroutines, keeps no state, and is safe for use by all loops at once.
package dialect

import (
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

// Protocol is what a gateway has to know of a client protocol besides its
// sessions.
type Protocol interface {
	// Name labels metrics: "pusher".
	Name() string
	// Hello reads the request of a WebSocket upgrade. It returns false when it
	// does not belong to this protocol. What it returns aliases head.
	Hello(head *httphead.Head) (Hello, bool)
	// Binary says whether messages are binary, else they are text.
	Binary() bool
	// Views are the ways to tell subscribers of publications; a subscription
	// has one, see session.Attach.
	Views() []View
	// Closing gives the WebSocket close code and reason for why.
	Closing(why Reason) (code int, reason string)
}

// View is a way to tell subscribers of publications.
type View struct {
	// Append appends the one message that every subscriber with this view gets;
	// pos is the publication's position, 0 if it has none. It appends nothing
	// for kinds that they are not told about.
	Append func(dst []byte, pos message.Position, pub *message.Publication) []byte
	// Difference, if there is one, does the same for those that have got the
	// publication before, whose data is before; it appends nothing where Append
	// does as well.
	Difference func(dst []byte, pos message.Position, pub *message.Publication, before []byte) []byte
}

// Dialect is the codec of a client protocol whose messages are commands and
// events.
type Dialect interface {
	Protocol
	// Decode reads one message of a client. The command's Data may alias
	// payload; its strings don't. The error says what is wrong with
	// the message: a *Refusal for one that is well formed but not allowed, any
	// other error for one that is not a message of the protocol.
	//
	// Commands and events are values: behind a pointer each would be an
	// allocation.
	Decode(payload []byte) (Command, error)
	// Encode sends the messages that tell the client about ev: one, several,
	// or none where the dialect has no words for it.
	Encode(ev Event, out Sender)
	// AppendPublication appends the one message that every subscriber of the
	// channel gets. It appends nothing for kinds that the dialect's clients
	// are not told about.
	AppendPublication(dst []byte, pub *message.Publication) []byte
	// PlacedView is the view of subscriptions that keep their place in a
	// channel (see resume.Wish).
	PlacedView() uint8
}

// Namer is implemented by dialects that allow fewer channel names than
// channel.Validate does.
type Namer interface {
	// ValidChannel says what is wrong with a channel's name; bytesMax is the
	// app's limit of its length.
	ValidChannel(name string, bytesMax int) error
}

// Sender takes complete text messages for one client. The payload is copied.
type Sender interface {
	Send(payload []byte)
}

// Hello is what a client says by connecting.
type Hello struct {
	Key      string // app key
	Protocol int    // protocol version
	// Refuse is why the connection must be refused after the upgrade, or
	// None: bad version string, unsupported protocol, missing protocol.
	Refuse Reason
	// Pingless clients know no ping: they are closed when they were silent
	// for a day, and never asked whether they are still there.
	Pingless bool
	// Host is the Host header of protocols whose apps are told apart by it, or
	// by Key if that is not "".
	Host string
	// Subprotocol to confirm, or "".
	Subprotocol string
	// First is the first message of a WebSocket's client if the URL brings it, or
	// "".
	First string
}

// Refusal is why Decode does not accept a well-formed message, or a session its
// client. Message "" leaves the words to the dialect.
type Refusal struct {
	Reason  Reason
	Message string
}

// Error implements error.
func (r *Refusal) Error() string { return r.Message }

// CommandKind is what a client asks for.
type CommandKind uint8

// Commands.
const (
	Unknown CommandKind = iota // a message that is well formed but not known: ignored and counted
	Subscribe
	Unsubscribe
	Publish // a client event
	SignIn
	Ping
	Pong
)

// Command is one decoded message of a client.
type Command struct {
	Kind        CommandKind
	Channel     string
	Event       string
	Data        []byte // Publish: JSON as the client sent it
	Auth        string // "" if absent
	ChannelData string // exact bytes, "" if absent
	UserData    string // exact bytes
	// Resume: the subscription wants to keep its place; nil if it does not.
	Resume *resume.Wish
}

// EventKind is what a session tells its client.
type EventKind uint8

// Events.
const (
	Established    EventKind = iota + 1 // SocketID, ActivitySeconds
	Subscribed                          // Channel; Members and Presence on presence channels; Resume if it was asked for
	SubscribeError                      // Channel, Reason, Message
	Error                               // Reason; Message, "" for the dialect's own words
	PingEvent
	PongEvent
	SignedIn  // UserData
	CacheMiss // Channel
	Watchlist // Online, Offline
)

// Event is one thing to tell a client; which fields count is said at its kind.
type Event struct {
	Kind            EventKind
	SocketID        string
	ActivitySeconds int
	Channel         string
	Presence        bool
	Members         []presence.Member
	Reason          Reason
	Message         string
	UserData        string
	Online, Offline []string
	Resume          *resume.Answer
}

// Reason is why something was refused or closed, in no protocol's words.
// It is also the value of the "reason" label of metrics (see String).
type Reason uint8

// Reasons.
const (
	None Reason = iota
	AppUnknown
	AppDisabled
	OverQuota // too many connections of the app
	UserQuota // too many connections of the user
	BadVersion
	UnsupportedProtocol
	NoProtocol
	BadOrigin
	AuthTimeout    // did not authorize in time
	Terminated     // by the application
	Reconnect      // draining: come back at once
	MaxAge         // the connection is old: come back at once
	OverCapacity   // come back later
	Slow           // reads too slowly
	NoPong         // no answer to a ping
	Inactive       // silent for a day
	Flood          // too many messages
	Malformed      // not a message of the protocol
	TooLarge       // message, payload or user object over its limit
	BadChannel     // channel name not allowed
	BadEvent       // event name not allowed
	Unauthorized   // signature or permission
	BadData        // channel_data or user_data malformed
	MembersLimit   // presence channel is full
	Subscriptions  // too many subscriptions on the connection
	AlreadyDone    // subscribed or signed in already
	NotSubscribed  // unsubscribe or publish without subscription
	ClientEvents   // client events are not allowed here
	RateLimit      // client event rate
	WatchlistLimit // watchlist cut to its limit
	BadResume      // what is asked of the channel's past makes no sense
	Unavailable    // can't tell now: try again
	ServerError
	Ignored // a well-formed message that nobody knows

	Anonymous           // no credentials, and none are not enough
	BadToken            // malformed, badly signed, or of another user or channel
	TokenExpired        // the token is too old: fetch a new one
	Expired             // the connection has outlived its credentials
	SubscriptionExpired // a subscription has
	LostPlace           // publications are missing: come back and recover
	NoChannel           // no policy knows the channel
	NoMethod            // nobody answers the call
	NotAvailable        // the app has not turned it on
	ByApp               // the application's own words
	numReasons
)

// ReasonOf translates the authorization service's reason.
func ReasonOf(r authz.Reason) Reason {
	switch r {
	case authz.BadData:
		return BadData
	case authz.TooLarge:
		return TooLarge
	case authz.Unavailable:
		return Unavailable
	case authz.BadToken, authz.ForeignToken:
		return BadToken
	case authz.TokenExpired:
		return TokenExpired
	case authz.NoChannel:
		return NoChannel
	case authz.NoMethod:
		return NoMethod
	case authz.NotAvailable:
		return NotAvailable
	default:
		return Unauthorized
	}
}

var reasonNames = [numReasons]string{
	"none", "app_unknown", "app_disabled", "over_quota", "user_quota", "bad_version", "unsupported_protocol",
	"no_protocol", "bad_origin", "auth_timeout", "terminated", "reconnect", "max_age", "over_capacity", "slow",
	"no_pong", "inactive", "flood", "malformed", "too_large", "bad_channel", "bad_event",
	"unauthorized", "bad_data", "members_limit", "subscriptions", "already_done", "not_subscribed",
	"client_events", "rate_limit", "watchlist_limit", "bad_resume", "unavailable", "server_error", "ignored",
	"anonymous", "bad_token", "token_expired", "expired", "subscription_expired", "lost_place", "no_channel", "no_method",
	"not_available", "by_app",
}

// String is the metric label of the reason.
func (r Reason) String() string {
	if r < numReasons {
		return reasonNames[r]
	}
	return "unknown"
}

// ReasonsMax is above every Reason: the length of arrays that they index.
const ReasonsMax = int(numReasons)

// Reasons lists all reasons but None, for metrics that are resolved ahead.
func Reasons() []Reason {
	all := make([]Reason, 0, numReasons-1)
	for r := None + 1; r < numReasons; r++ {
		all = append(all, r)
	}
	return all
}
