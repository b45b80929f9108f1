// Package hook is the contract of the webhook work queue: whoever sees an
// event publishes it once to subject.Hook(app), and api delivers it.
package hook

import "github.com/carillon-rt/carillon/proto/app"

// Event kinds, as in Pusher's webhooks; those of single clients are our own.
const (
	ChannelOccupied   = "channel_occupied"
	ChannelVacated    = "channel_vacated"
	MemberAdded       = "member_added"
	MemberRemoved     = "member_removed"
	ClientEvent       = "client_event"
	CacheMiss         = "cache_miss"
	SubscriptionCount = "subscription_count"

	Connected    = app.ClientConnected
	Disconnected = app.ClientDisconnected
	Unsubscribed = app.ClientUnsubscribed
)

// GatewayLost is the reason of a disconnect that nobody has seen: the client's
// gateway is gone. Its code is 0.
const GatewayLost = "gateway lost"

// Event is one webhook event, as JSON on subject.Hook(app) with a Nats-Msg-Id
// that makes a repeat harmless. Its fields are those that Pusher sends; Code
// and Reason are of Disconnected and Unsubscribed.
type Event struct {
	Name              string `json:"name"`
	Channel           string `json:"channel"`
	UserID            string `json:"user_id,omitempty"`
	Event             string `json:"event,omitempty"`
	Data              string `json:"data,omitempty"`
	SocketID          string `json:"socket_id,omitempty"`
	SubscriptionCount *int   `json:"subscription_count,omitempty"`
	Code              int    `json:"code,omitempty"`
	Reason            string `json:"reason,omitempty"`
	TimeMs            int64  `json:"time_ms"` // when it happened
}
