package state

import (
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/presence"
)

// Kind is what an effect says.
type Kind uint8

// Kinds of effects.
const (
	MemberAdded   Kind = iota + 1 // a user's first connection in the channel
	MemberRemoved                 // a user's last connection has left it
	Occupied                      // the channel has its first subscription
	Vacated                       // the channel's last subscription is gone
	Count                         // the channel's number of subscriptions changed
	Online                        // a signed-in user's first connection; Key.Name is "#online-<id>"
	Offline                       // a signed-in user's last connection is gone
	Lost                          // a signed-in user's connections of one gateway are gone with it
)

// Effect is something that the world must be told.
type Effect struct {
	Kind Kind
	Key  channel.Key
	// Member of MemberAdded and MemberRemoved; its ID of Online, Offline and
	// Lost.
	Member presence.Member
	// Count of a Count.
	Count uint64
	// Version is unique and rises within the shard.
	Version uint64
	// AtMs is when it happened, Unix milliseconds.
	AtMs int64
	// Live: subscribers are told. Hook: webhooks are told. Either or both.
	Live, Hook bool
}
