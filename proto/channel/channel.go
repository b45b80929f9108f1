// Package channel knows channel names: which partition and presence shard
// they hash to and what their Pusher prefixes mean. Whether a subscription
// needs authorization is a property of the name and its policy, never of the
// protocol that a client speaks.
package channel

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Key identifies a channel in a cluster.
type Key struct {
	App  string
	Name string
}

func (k Key) String() string { return k.App + "/" + k.Name }

// hash is 32-bit FNV-1a over "app/name".
func (k Key) hash() uint32 {
	const prime = 16777619
	h := uint32(2166136261)
	for i := 0; i < len(k.App); i++ {
		h = (h ^ uint32(k.App[i])) * prime
	}
	h = (h ^ '/') * prime
	for i := 0; i < len(k.Name); i++ {
		h = (h ^ uint32(k.Name[i])) * prime
	}
	return h
}

// Partition is the log partition of the channel, 0 <= p < partitions.
func (k Key) Partition(partitions int) int { return int(k.hash() % uint32(partitions)) }

// Shard is the presence shard of the channel, 0 <= s < shards. It uses other
// bits of the hash than Partition does.
func (k Key) Shard(shards int) int {
	h := k.hash()
	h ^= h >> 15
	h *= 0x2c1b3c6d
	h ^= h >> 12
	return int(h % uint32(shards))
}

// Kind is what the prefix of a channel's name asks for.
type Kind struct {
	Private   bool // subscription needs authorization
	Presence  bool // has members; implies Private
	Encrypted bool // payloads are end-to-end encrypted; implies Private
	Cache     bool // the last event is replayed to new subscribers
	User      bool // "#server-to-user-<id>": one user's own channel
	Users     bool // "name#42,43": for the users that the name lists, see AllowsUser
}

// prefixes, longest first, all anchored (Pusher protocol, "channel types").
var prefixes = []struct {
	prefix string
	kind   Kind
}{
	{"private-encrypted-cache-", Kind{Private: true, Encrypted: true, Cache: true}},
	{"private-encrypted-", Kind{Private: true, Encrypted: true}},
	{"private-cache-", Kind{Private: true, Cache: true}},
	{"private-", Kind{Private: true}},
	{"presence-cache-", Kind{Private: true, Presence: true, Cache: true}},
	{"presence-", Kind{Private: true, Presence: true}},
	{"cache-", Kind{Cache: true}},
	{UserPrefix, Kind{User: true}},
}

// UserPrefix begins the name of the channel on which a signed-in user gets
// what the backend sends to that user.
const UserPrefix = "#server-to-user-"

// OnlinePrefix begins the name of the internal channel on which a user's
// online and offline events travel to the connections that watch that user.
const OnlinePrefix = "#online-"

// PrivateMark before a name makes the channel private (Centrifugo): "$x",
// "$ns:x".
const PrivateMark = "$"

// KindOf gives the kind that name asks for, by its prefix and by a list of
// users at its end.
func KindOf(name string) Kind {
	kind := kindByPrefix(name)
	kind.Users = !kind.User && strings.Contains(name, "#")
	return kind
}

func kindByPrefix(name string) Kind {
	if strings.HasPrefix(name, PrivateMark) {
		return Kind{Private: true}
	}
	for _, p := range prefixes {
		if strings.HasPrefix(name, p.prefix) {
			return p.kind
		}
	}
	return Kind{}
}

// AllowsUser says whether the name lets user in: the names "#server-to-user-7",
// "news#7,8", "ns:#7" and "#7" only the users they list, the internal channels
// nobody, all others everybody. An empty user is never on a list.
func AllowsUser(name, user string) bool {
	if strings.HasPrefix(name, OnlinePrefix) {
		return false
	}
	if own, ok := strings.CutPrefix(name, UserPrefix); ok {
		return user != "" && own == user
	}
	at := strings.LastIndexByte(name, '#')
	if at < 0 {
		return true
	}
	for listed := range strings.SplitSeq(name[at+1:], ",") {
		if user != "" && listed == user {
			return true
		}
	}
	return false
}

// UserOf gives the user of a server-to-user channel, "" for other channels.
func UserOf(name string) string {
	user, ok := strings.CutPrefix(name, UserPrefix)
	if !ok {
		return ""
	}
	return user
}

// NameMax is the length limit of any channel name in bytes.
const NameMax = 255

// Validate checks a name against the rules of every dialect: valid UTF-8,
// 1..NameMax bytes, no control characters.
func Validate(name string) error {
	if name == "" {
		return errors.New("channel name is empty")
	}
	if len(name) > NameMax {
		return fmt.Errorf("channel name has %d bytes, at most %d are allowed", len(name), NameMax)
	}
	if !utf8.ValidString(name) {
		return errors.New("channel name is not valid UTF-8")
	}
	for _, r := range name {
		if r < 0x20 || r == 0x7f {
			return fmt.Errorf("channel name holds the control character %U", r)
		}
	}
	return nil
}

// PusherNameMax is the default length limit of a channel name in the Pusher
// dialect; apps may set another one.
const PusherNameMax = 200

// ValidatePusher checks a name against Pusher's charset [A-Za-z0-9_\-=@,.;],
// with the reserved "#server-to-user-" prefix allowed, and the limit max
// (PusherNameMax if 0).
func ValidatePusher(name string, max int) error {
	if max <= 0 {
		max = PusherNameMax
	}
	if name == "" {
		return errors.New("channel name is empty")
	}
	if len(name) > max {
		return fmt.Errorf("channel name has %d characters, at most %d are allowed", len(name), max)
	}
	rest := strings.TrimPrefix(name, UserPrefix)
	if rest != name {
		// What follows is a user id, which is the application's own.
		return Validate(name)
	}
	for i := 0; i < len(name); i++ {
		if !pusherChar(name[i]) {
			return fmt.Errorf("channel name holds %q; allowed are letters, digits and _ - = @ , . ;", name[i:i+1])
		}
	}
	return nil
}

func pusherChar(c byte) bool {
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
		return true
	}
	return strings.IndexByte("_-=@,.;", c) >= 0
}
