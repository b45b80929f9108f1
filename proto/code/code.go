// Package code holds the codes that clients see, per dialect, with the
// meaning the protocol gives them.
package code

// Pusher error and close codes (Pusher Channels protocol, "error codes").
// 4000-4099: don't reconnect; 4100-4199: reconnect after a second or more;
// 4200-4299: reconnect at once; 4300-4399: the connection stays.
const (
	PusherTLSOnly             = 4000
	PusherAppUnknown          = 4001
	PusherAppDisabled         = 4003
	PusherOverQuota           = 4004
	PusherPathUnknown         = 4005
	PusherBadVersion          = 4006
	PusherUnsupportedProtocol = 4007
	PusherNoProtocol          = 4008
	PusherUnauthorized        = 4009
	PusherOverCapacity        = 4100
	PusherReconnect           = 4200
	PusherNoPong              = 4201
	PusherInactive            = 4202
	PusherClientEventRefused  = 4301
	PusherWatchlistLimit      = 4302
)

// WebSocket close codes (RFC 6455 7.4.1).
const (
	NormalClosure   = 1000
	GoingAway       = 1001
	ProtocolError   = 1002
	UnsupportedData = 1003
	InvalidPayload  = 1007
	PolicyViolation = 1008
	MessageTooBig   = 1009
	InternalError   = 1011
)
