package centrifugo

import "github.com/carillon-rt/carillon/gateway/internal/tagfilter"

// Body is what a command asks for: a pointer to one of the request types
// below. Byte slices of a decoded body alias the message that it came in, its
// strings don't.
type Body interface {
	// read takes the fields of the body from r.
	read(r *reader)
}

// Command is one command of a client. Without a body it is a pong.
type Command struct {
	ID   uint32
	Body Body
}

// The requests, with the fields that Carillon reads (client protocol, "Command").
type (
	// ConnectRequest is the first command of every connection.
	ConnectRequest struct {
		Token string
		Data  []byte
		// Subs is what the client knows of its server-side subscriptions.
		Subs          map[string]SubscribeRequest
		Name, Version string
		// Headers stand for those that a browser can't send.
		Headers map[string]string
	}
	// SubscribeRequest asks for a subscription.
	SubscribeRequest struct {
		Channel, Token          string
		Recover                 bool
		Epoch                   string
		Offset                  uint64
		Data                    []byte
		Positioned, Recoverable bool
		JoinLeave               bool
		Delta                   string
		Filter                  *tagfilter.Node
		Flag                    int64
		Type                    int64
	}
	// UnsubscribeRequest ends a subscription.
	UnsubscribeRequest struct{ Channel string }
	// PublishRequest publishes to a channel.
	PublishRequest struct {
		Channel string
		Data    []byte
		Type    int64
	}
	// PresenceRequest asks who is in a channel.
	PresenceRequest struct{ Channel string }
	// PresenceStatsRequest asks how many are.
	PresenceStatsRequest struct{ Channel string }
	// HistoryRequest asks what was published.
	HistoryRequest struct {
		Channel string
		// Limit is how many publications are wanted: 0 is none, below 0 all.
		Limit   int64
		Since   *Position
		Reverse bool
	}
	// PingRequest is not a pong: servers don't take it.
	PingRequest struct{}
	// SendRequest is a message that nobody answers.
	SendRequest struct{ Data []byte }
	// RPCRequest calls a method of the application.
	RPCRequest struct {
		Data   []byte
		Method string
	}
	// RefreshRequest brings a new token for the connection.
	RefreshRequest struct{ Token string }
	// SubRefreshRequest brings a new token for a subscription.
	SubRefreshRequest struct {
		Channel, Token string
		Type           int64
	}
	// Position is a place in the stream of a channel.
	Position struct {
		Offset uint64
		Epoch  string
	}
)

// Fossil is the one kind of differences: SubscribeRequest.Delta.
const Fossil = "fossil"

// FlagUnrecoverable of a SubscribeRequest asks for error 112 in place of an
// answer without recovery.
const FlagUnrecoverable = 2

// Result answers a command: a pointer to one of the result types below.
type Result interface {
	// field is the number and name of the result in a reply.
	field() (number int, name string)
	write(w *writer)
}

// Reply is what a client is told in answer to a command: an error or a result.
type Reply struct {
	ID     uint32
	Error  *Error
	Result Result
}

// Error of a reply.
type Error struct {
	Code      uint32
	Message   string
	Temporary bool
}

// The results (client protocol, "Reply").
type (
	// ConnectResult answers a connect.
	ConnectResult struct {
		Client, Version string
		Expires         bool
		TTL             uint32 // seconds
		Data            []byte
		Subs            map[string]*SubscribeResult
		Ping            uint32 // seconds
		Pong            bool
		Session, Node   string
	}
	// SubscribeResult answers a subscribe.
	SubscribeResult struct {
		Expires                 bool
		TTL                     uint32 // seconds
		Recoverable             bool
		Epoch                   string
		Publications            []Publication
		Recovered               bool
		Offset                  uint64
		Positioned              bool
		Data                    []byte
		WasRecovering, HasDelta bool
	}
	// UnsubscribeResult answers an unsubscribe.
	UnsubscribeResult struct{}
	// PublishResult answers a publish.
	PublishResult struct{}
	// PresenceResult answers a presence.
	PresenceResult struct{ Clients []Client }
	// PresenceStatsResult answers a presence_stats.
	PresenceStatsResult struct{ Clients, Users uint32 }
	// HistoryResult answers a history.
	HistoryResult struct {
		Publications []Publication
		Epoch        string
		Offset       uint64
	}
	// RPCResult answers an rpc.
	RPCResult struct{ Data []byte }
	// RefreshResult answers a refresh.
	RefreshResult struct {
		Client, Version string
		Expires         bool
		TTL             uint32
	}
	// SubRefreshResult answers a sub_refresh.
	SubRefreshResult struct {
		Expires bool
		TTL     uint32
	}
	// Client is an entry of a PresenceResult.
	Client struct {
		ID string
		// Info is a ClientInfo in JSON: see AppendClientInfo.
		Info []byte
	}
)

// Push is what a client is told unasked: a pointer to one of the types below,
// or a publication (see Dialect.AppendPublication).
type Push interface {
	field() (number int, name string)
	write(w *writer)
}

// The pushes (client protocol, "Push").
type (
	// Join tells that a client came. Info is a ClientInfo in JSON.
	Join struct{ Info []byte }
	// Leave tells that one left.
	Leave struct{ Info []byte }
	// Unsubscribe ends a subscription.
	Unsubscribe struct {
		Code   uint32
		Reason string
	}
	// Subscribe begins a subscription that the server made.
	Subscribe struct {
		Recoverable bool
		Epoch       string
		Offset      uint64
		Positioned  bool
		Data        []byte
	}
	// Disconnect is for transports that can't tell it by closing.
	Disconnect struct {
		Code      uint32
		Reason    string
		Reconnect bool
	}
	// Refresh tells a new lifetime of the connection.
	Refresh struct {
		Expires bool
		TTL     uint32
	}
)

// ClientInfo is what others are told of a client. Everything but the ids is
// JSON of the application, or "".
type ClientInfo struct{ User, Client, ConnInfo, ChanInfo string }
