package session

import (
	"github.com/carillon-rt/carillon/proto/app"
)

// State is how far a subscription has come.
type State uint8

// States.
const (
	Authorizing State = iota + 1 // Host.Authorize was asked
	Attaching                    // Host.Attach was asked
	Live                         // the client was told
)

func (s State) String() string {
	switch s {
	case Authorizing:
		return "authorizing"
	case Attaching:
		return "attaching"
	case Live:
		return "live"
	}
	return "unknown"
}

// subscription of one channel. There may be a thousand on each of a million
// connections: keep it small (see TestSizes).
type subscription struct {
	name string
	// member is the id, as JSON, of the connection's own member on a presence
	// channel; nil on others.
	member *string
	id     uint32 // of the authorization that is asked for
	state  State
	traits traits
}

// traits are what matters later of a channel's app.Effective.
type traits uint8

const (
	private traits = 1 << iota
	presenceChannel
	encrypted
	cached
	userOwn // belongs to one user
)

// Name implements table.Row.
func (s subscription) Name() string { return s.name }

func traitsOf(e app.Effective) traits {
	var t traits
	for _, x := range [...]struct {
		is  bool
		bit traits
	}{
		{e.Private, private},
		{e.Presence, presenceChannel},
		{e.Encrypted, encrypted},
		{e.Cache, cached},
		{e.User, userOwn},
	} {
		if x.is {
			t |= x.bit
		}
	}
	return t
}

func (t traits) has(bit traits) bool { return t&bit != 0 }

// asked gives the index of the subscription that waits for authorization id,
// -1 if none does any more.
func (s *Session) asked(id uint32) int {
	for i := range s.subs.Rows {
		if s.subs.Rows[i].id == id && s.subs.Rows[i].state == Authorizing {
			return i
		}
	}
	return -1
}
