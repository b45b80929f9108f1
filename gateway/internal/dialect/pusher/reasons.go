package pusher

import (
	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/proto/code"
)

// words say a reason in the protocol's terms.
type words struct {
	// error is the code of a pusher:error that tells only of this reason; 0
	// stands for null, which says that the connection stays as it is.
	error int
	close int // WebSocket close code
	text  string
}

// wordsFor translates a reason (Pusher protocol, "error codes"). Reasons that
// never close a connection have no close code of their own.
func wordsFor(why dialect.Reason) words {
	both := func(code int, text string) words { return words{code, code, text} }
	stays := func(code int, text string) words { return words{code, closeAnyway, text} }
	switch why {
	case dialect.AppUnknown:
		return both(code.PusherAppUnknown, "Application does not exist: check the app key")
	case dialect.AppDisabled:
		return both(code.PusherAppDisabled, "Application or its key is disabled")
	case dialect.OverQuota:
		return both(code.PusherOverQuota, "Application is over its connection quota")
	case dialect.UserQuota:
		return both(code.PusherOverQuota, "User is over its connection quota")
	case dialect.BadVersion:
		return both(code.PusherBadVersion, "Invalid version string: protocol must be an integer, such as protocol=7")
	case dialect.UnsupportedProtocol:
		return both(code.PusherUnsupportedProtocol, "Unsupported protocol version: 4 to 7 are supported")
	case dialect.NoProtocol:
		return both(code.PusherNoProtocol, "No protocol version supplied: add protocol=7 to the URL")
	case dialect.BadOrigin:
		return both(code.PusherUnauthorized, "Origin not allowed")
	case dialect.AuthTimeout:
		return both(code.PusherUnauthorized, "Connection not authorized within timeout")
	case dialect.Terminated:
		return both(code.PusherUnauthorized, "Connection terminated by the application")
	case dialect.Reconnect:
		return both(code.PusherReconnect, "Please reconnect immediately")
	case dialect.MaxAge:
		return both(code.PusherReconnect, "Please reconnect immediately: the connection has reached its maximum age")
	case dialect.OverCapacity:
		return both(code.PusherOverCapacity, "Over capacity: please reconnect later")
	case dialect.Slow:
		return both(code.PusherOverCapacity, "Client reads too slowly")
	case dialect.NoPong:
		return both(code.PusherNoPong, "Pong reply not received")
	case dialect.Inactive:
		return both(code.PusherInactive, "Closed after inactivity")
	case dialect.Flood:
		return both(code.PusherOverCapacity, "Too many messages: slow down")
	case dialect.Unauthorized:
		return both(code.PusherUnauthorized, "Not authorized")
	case dialect.BadData:
		return both(code.PusherUnauthorized, "Channel or user data is malformed")
	case dialect.Malformed:
		return words{0, code.ProtocolError, "Not a message of the protocol: a JSON object with an event is expected"}
	case dialect.TooLarge:
		return words{code.PusherClientEventRefused, code.MessageTooBig, "Message or data is too large"}
	case dialect.RateLimit:
		return stays(code.PusherClientEventRefused, "Client event rejected due to rate limit")
	case dialect.WatchlistLimit:
		return stays(code.PusherWatchlistLimit, "Watchlist limit exceeded")
	}
	return stays(0, staysText(why))
}

// closeAnyway closes for reasons that should not: come back, but not at once.
const closeAnyway = code.PusherOverCapacity

func staysText(why dialect.Reason) string {
	switch why {
	case dialect.BadChannel:
		return "Invalid channel name"
	case dialect.BadEvent:
		return "Invalid event name"
	case dialect.MembersLimit:
		return "The channel has reached its limit of members"
	case dialect.Subscriptions:
		return "Too many subscriptions on the connection"
	case dialect.AlreadyDone:
		return "Already done"
	case dialect.NotSubscribed:
		return "Not subscribed to the channel"
	case dialect.ClientEvents:
		return "Client events are not allowed here"
	case dialect.BadResume:
		return "Invalid resume"
	case dialect.Unavailable:
		return "Temporarily unavailable: try again"
	case dialect.Anonymous:
		return "Credentials are needed"
	case dialect.BadToken:
		return "Invalid token"
	case dialect.TokenExpired:
		return "Token expired"
	case dialect.Expired:
		return "Connection expired"
	case dialect.SubscriptionExpired:
		return "Subscription expired"
	case dialect.LostPlace:
		return "Messages are missing: reconnect"
	case dialect.NoChannel:
		return "Unknown channel"
	case dialect.NoMethod:
		return "Unknown method"
	case dialect.NotAvailable:
		return "Not available"
	case dialect.ByApp:
		return "Refused by the application"
	}
	return "Internal error: try again"
}

// Closing implements dialect.Dialect.
func (p *Pusher) Closing(why dialect.Reason) (int, string) {
	w := wordsFor(why)
	return w.close, w.text
}

// subscriptionError is the shape of pusher:subscription_error: the type and
// status that the event's data carry. pusher-js uses the same names for
// errors of the app's own authorization endpoint.
func subscriptionError(why dialect.Reason) (kind string, status int) {
	switch why {
	case dialect.Unauthorized, dialect.BadData:
		return "AuthError", 401
	case dialect.BadChannel:
		return "LimitReached", code.PusherUnauthorized
	case dialect.MembersLimit, dialect.Subscriptions:
		return "LimitReached", code.PusherOverCapacity
	case dialect.TooLarge:
		return "LimitReached", code.PusherClientEventRefused
	case dialect.BadResume:
		return "InvalidResume", 400
	case dialect.Unavailable:
		return "ServerError", 503
	}
	return "ServerError", 500
}
