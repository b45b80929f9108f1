// Package history is the contract between gateways, api and the routers that
// follow a partition: reads of a channel's cached value and of its history.
// Messages travel as JSON.
package history

import "github.com/carillon-rt/carillon/proto/message"

// Request asks the followers of the channel's partition.
// Subject: subject.History(partition).
type Request struct {
	App     string `json:"app"`
	Channel string `json:"channel"`
	// AtLeast: answer only when everything up to and including this position
	// of the partition has been applied.
	AtLeast message.Position `json:"at_least,omitempty"`
	// Cache asks for the channel's last value.
	Cache bool `json:"cache,omitempty"`
	// Limit asks for up to this many of the newest publications after Since
	// and, if that is set, before Before.
	Limit  int              `json:"limit,omitempty"`
	Since  message.Position `json:"since,omitempty"`
	Before message.Position `json:"before,omitempty"`
	// Oldest asks for the oldest of them instead. Floor then says nothing of
	// what Limit left out: see Reply.More.
	Oldest bool `json:"oldest,omitempty"`
	// Miss asks that a cache miss is reported by webhook.
	Miss bool `json:"miss,omitempty"`
}

// Reply answers a Request.
type Reply struct {
	Error string `json:"error,omitempty"`
	Epoch string `json:"epoch,omitempty"`
	// Top is the newest position of the channel that was applied, 0 if none.
	Top message.Position `json:"top,omitempty"`
	// Floor is the position from which on a read of the channel is complete:
	// what is above it was neither evicted nor left out of Entries, because of
	// Limit or because a message carries no more. Recovery from a position is
	// complete when the epochs match and it is >= Floor.
	Floor message.Position `json:"floor,omitempty"`
	// More: Entries are not all that was asked for, because of Limit or because
	// a message carries no more. What is left out is newer than them if the
	// oldest were asked for, else older.
	More bool `json:"more,omitempty"`
	// Applied: everything of the partition at or below it has been applied.
	Applied message.Position `json:"applied,omitempty"`
	// Newest is the highest sequence of the journal, all partitions together,
	// that the router knows of: positions above it do not exist yet.
	Newest uint64 `json:"newest,omitempty"`
	// Cached is the last value, nil on a miss.
	Cached *Entry `json:"cached,omitempty"`
	// CachedTTL is what is left of its life in seconds.
	CachedTTL int     `json:"cached_ttl,omitempty"`
	Entries   []Entry `json:"entries,omitempty"`
}

// Entry is a stored publication: message.Publication.Append's bytes at a
// position.
type Entry struct {
	Position    message.Position `json:"position"`
	Publication []byte           `json:"publication"`
}

// Heartbeat of a partition, published each second by whoever follows it.
// Subject: subject.Sync(partition).
type Heartbeat struct {
	LastSeq uint64 `json:"last_seq"`
	Epoch   string `json:"epoch"`
	// Clock is the time of the router's clock, 0 if it does not tell: see
	// message.AppendStamped.
	Clock uint64 `json:"clock,omitempty"`
}
