package presence

import "errors"

// version is the first byte of deltas and replies.
const version = 1

// ErrVersion means a message of a version that this code does not know.
var ErrVersion = errors.New("presence: message of an unknown version")

// SnapshotRequest asks a gateway to send a snapshot of a shard at once. It is
// a plain publish to subject.GatewaySnapshot(node); the gateway answers with
// a Delta in the usual way.
type SnapshotRequest struct {
	Shard int `json:"shard"`
}

// Query asks the owner of a shard. It travels as JSON; exactly one of
// Channel, Online and All is set. Subject: subject.PresenceQuery(shard).
type Query struct {
	App string `json:"app"`
	// Channel asks for one channel's counts; with Members for its roster too.
	Channel string `json:"channel,omitempty"`
	Members bool   `json:"members,omitempty"`
	// Online asks which of these users (of this shard) are online.
	Online []string `json:"online,omitempty"`
	// All lists the occupied channels of this shard whose names begin with
	// Prefix.
	All    bool   `json:"all,omitempty"`
	Prefix string `json:"prefix,omitempty"`
	// Hash lists names that begin with # as well, which All leaves out unless
	// Prefix has it.
	Hash bool `json:"hash,omitempty"`
	// Limit is how many channels All lists in one answer; 0 is as many as fit.
	Limit int `json:"limit,omitempty"`
	// After continues a list that an answer cut short: only names behind it; of
	// Members, only those behind the one with this id.
	After string `json:"after,omitempty"`
}

// Answer answers a Query.
type Answer struct {
	Error string `json:"error,omitempty"`
	// Incomplete: ownership has just moved and not every gateway has reported.
	// It is said of rosters until all have, of all else for some seconds.
	Incomplete bool `json:"incomplete,omitempty"`
	// Version orders the answer among the shard's events: it includes all up to
	// this version.
	Version  uint64        `json:"version,omitempty"`
	Channels []ChannelInfo `json:"channels,omitempty"`
	// More: Channels, sorted by name, or the members of the one asked for did
	// not fit into one message; ask again with After set to the last name or
	// id. If that member has left meanwhile there is an Error.
	More   bool     `json:"more,omitempty"`
	Online []string `json:"online,omitempty"`
}

// ChannelInfo is an occupied channel. A query for one channel that is not
// occupied gets no entry.
type ChannelInfo struct {
	Name string `json:"name"`
	// Subscriptions is the number of connections that are subscribed.
	Subscriptions int `json:"subscriptions"`
	// Users is the number of distinct users of a presence channel.
	Users   int          `json:"users,omitempty"`
	Members []MemberInfo `json:"members,omitempty"`
}

// MemberInfo is a Member in JSON.
type MemberInfo struct {
	ID    string `json:"id"`
	RawID string `json:"raw_id"`
	Info  string `json:"info,omitempty"`
}
