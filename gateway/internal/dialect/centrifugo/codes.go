package centrifugo

import (
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
)

// Errors of replies (client protocol, "codes").
var (
	ErrInternal      = Error{100, "internal server error", true}
	ErrUnauthorized  = Error{101, "unauthorized", false}
	ErrNoChannel     = Error{102, "unknown channel", false}
	ErrDenied        = Error{103, "permission denied", false}
	ErrNoMethod      = Error{104, "method not found", false}
	ErrSubscribed    = Error{105, "already subscribed", false}
	ErrLimit         = Error{106, "limit exceeded", false}
	ErrBadRequest    = Error{107, "bad request", false}
	ErrNotAvailable  = Error{108, "not available", false}
	ErrTokenExpired  = Error{109, "token expired", false}
	ErrExpired       = Error{110, "expired", false}
	ErrTooMany       = Error{111, "too many requests", true}
	ErrUnrecoverable = Error{112, "unrecoverable position", false}
)

// Codes with which a subscription ends: from 2500 on the client subscribes
// again.
const (
	UnsubscribedByServer   = 2000
	UnsubscribedLost       = 2500
	UnsubscribedExpired    = 2501
	unsubscribedByServer   = "server unsubscribe"
	unsubscribedLost       = "insufficient state"
	unsubscribedExpiredSub = "subscription expired"
)

// UnsubscribeReason is what is said with one of the codes above.
func UnsubscribeReason(code uint32) string {
	switch code {
	case UnsubscribedLost:
		return unsubscribedLost
	case UnsubscribedExpired:
		return unsubscribedExpiredSub
	}
	return unsubscribedByServer
}

// Closing implements dialect.Protocol. Clients come back after codes from 3000
// to 3499, and stay away after those from 3500 on.
func (d *Dialect) Closing(why dialect.Reason) (int, string) {
	switch why {
	case dialect.Reconnect:
		return 3001, "shutdown"
	case dialect.Expired:
		return 3005, "connection expired"
	case dialect.SubscriptionExpired:
		return 3006, "subscription expired"
	case dialect.Slow:
		return 3008, "slow"
	case dialect.LostPlace:
		return 3010, "insufficient state"
	case dialect.MaxAge:
		return 3011, "force reconnect"
	case dialect.NoPong:
		return 3012, "no pong"
	case dialect.Flood, dialect.RateLimit, dialect.OverCapacity:
		return 3013, "too many requests"
	case dialect.BadToken, dialect.Unauthorized:
		return 3500, "invalid token"
	case dialect.Malformed, dialect.BadData, dialect.AppUnknown, dialect.Anonymous:
		return 3501, closingText(why)
	case dialect.Inactive, dialect.AuthTimeout:
		return 3502, "stale"
	case dialect.Terminated:
		return 3503, "force disconnect"
	case dialect.OverQuota, dialect.UserQuota:
		return 3504, "connection limit"
	case dialect.Subscriptions:
		return 3505, "channel limit"
	case dialect.AppDisabled, dialect.BadOrigin:
		return 3507, closingText(why)
	case dialect.NotAvailable:
		return 3508, "not available"
	case dialect.TooLarge:
		return 1009, "message is too large"
	}
	return 3004, "internal server error"
}

func closingText(why dialect.Reason) string {
	switch why {
	case dialect.AppUnknown:
		return "bad request: no app takes Centrifugo clients on this host"
	case dialect.Anonymous:
		return "bad request: no token, and anonymous connections are not allowed"
	case dialect.AppDisabled:
		return "permission denied: the app is disabled"
	case dialect.BadOrigin:
		return "permission denied: origin not allowed"
	}
	return "bad request"
}

// ErrorOf gives the error of a reply for why.
func ErrorOf(why dialect.Reason) Error {
	switch why {
	case dialect.NoChannel:
		return ErrNoChannel
	case dialect.Unauthorized, dialect.BadToken, dialect.NotSubscribed, dialect.ClientEvents:
		return ErrDenied
	case dialect.NoMethod:
		return ErrNoMethod
	case dialect.AlreadyDone:
		return ErrSubscribed
	case dialect.Subscriptions, dialect.MembersLimit, dialect.TooLarge:
		return ErrLimit
	case dialect.BadChannel, dialect.BadData, dialect.BadResume, dialect.BadEvent, dialect.Malformed:
		return ErrBadRequest
	case dialect.NotAvailable:
		return ErrNotAvailable
	case dialect.TokenExpired:
		return ErrTokenExpired
	case dialect.Expired, dialect.SubscriptionExpired:
		return ErrExpired
	case dialect.RateLimit, dialect.Flood:
		return ErrTooMany
	case dialect.LostPlace:
		return ErrUnrecoverable
	}
	return ErrInternal
}

// Ending is how a connection ends whose connect is refused with an error, and
// whose client can't be answered (client protocol, "unidirectional").
func Ending(e *Error) (code int, reason string) {
	switch e.Code {
	case ErrTokenExpired.Code:
		return 3005, reword(e.Message, ErrTokenExpired.Message, "connection expired")
	case ErrExpired.Code:
		return 3005, reword(e.Message, ErrExpired.Message, "connection expired")
	case ErrTooMany.Code:
		return 3013, e.Message
	case ErrDenied.Code:
		return 3507, e.Message
	case ErrInternal.Code:
		return 3004, e.Message
	}
	return 3004, fmt.Sprintf("%s: error %d, %s", ErrInternal.Message, e.Code, e.Message)
}

// reword says with other words what begins with some, or has none of them.
func reword(text, words, others string) string {
	if rest, ok := strings.CutPrefix(text, words); ok {
		return others + rest
	}
	return others + ": " + text
}

// reasonBytesMax is what a close frame has room for, with some to spare.
const reasonBytesMax = 120

// CloseReason makes text fit to be the reason of a close frame: short enough,
// and no JSON. centrifuge-js takes a reason that parses as JSON for an object
// that says whether to reconnect, so that one such as "123" or "true" would
// keep the client away for good.
func CloseReason(text string) string {
	text = strings.ToValidUTF8(text, "")
	for len(text) > reasonBytesMax-len(notJSON) {
		_, size := utf8.DecodeLastRuneInString(text)
		text = text[:len(text)-size]
	}
	if json.Valid([]byte(text)) {
		return notJSON + text
	}
	return text
}

const notJSON = "reason: "
