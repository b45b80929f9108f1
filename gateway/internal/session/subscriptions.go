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

// indexFrom is the number of subscriptions above which names are looked up in
// a map. Below, comparing strings one by one is as fast and costs no memory.
const indexFrom = 16

// find gives the index of a channel's subscription, -1 if there is none.
func (s *Session) find(name string) int {
	if s.byName != nil {
		if i, ok := s.byName[name]; ok {
			return int(i)
		}
		return -1
	}
	for i := range s.subs {
		if s.subs[i].name == name {
			return i
		}
	}
	return -1
}

// asked gives the index of the subscription that waits for authorization id,
// -1 if none does any more.
func (s *Session) asked(id uint32) int {
	for i := range s.subs {
		if s.subs[i].id == id && s.subs[i].state == Authorizing {
			return i
		}
	}
	return -1
}

func (s *Session) add(sub subscription) {
	s.subs = append(s.subs, sub)
	switch {
	case s.byName != nil:
		s.byName[sub.name] = int32(len(s.subs) - 1)
	case len(s.subs) > indexFrom:
		s.byName = make(map[string]int32, 2*indexFrom)
		for i := range s.subs {
			s.byName[s.subs[i].name] = int32(i)
		}
	}
}

// remove drops subscription i; the last one takes its place.
func (s *Session) remove(i int) {
	last := len(s.subs) - 1
	if s.byName != nil {
		delete(s.byName, s.subs[i].name)
		if i != last {
			s.byName[s.subs[last].name] = int32(i)
		}
	}
	s.subs[i] = s.subs[last]
	s.subs[last] = subscription{}
	s.subs = s.subs[:last]
	if last == 0 {
		s.subs, s.byName = nil, nil
	}
}
