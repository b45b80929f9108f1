package centrifugo

import (
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/gateway/internal/tagfilter"
)

// subscription of one channel. There may be many on each connection: keep it
// small (see TestSizes).
type subscription struct {
	name     string
	info     string // the channel's info of the client, JSON or ""
	pending  *pending
	id       uint32 // of the question that is asked, then of the command that waits; 0 for none
	state    session.State
	flags    flags
	deadline int64 // until it has to be live
	expireAt int64 // end of a live one, 0 is never
}

// pending is what only a subscription needs that is being made.
type pending struct {
	data        []byte // goes with the answer
	expireUnix  int64
	recovering  bool
	unrecovered bool // answers 112 in place of a lost place
	delta       bool // differences were asked for, and are allowed
	filter      *tagfilter.Filter
}

type flags uint16

const (
	byServer    flags = 1 << iota // the server made it
	recoverable                   // its publications have positions
	cached                        // it is given the channel's last value
	present                       // it is a member of the channel
	joinLeave                     // it is told of others
	refreshes                     // the server asks for more time when it expires
	mayPublish                    // whatever the policy says
	mayRead                       // history
	maySee                        // presence
)

func (s *subscription) has(bit flags) bool { return s.flags&bit != 0 }

func (s *subscription) set(bit flags, is bool) {
	if s.flags &^= bit; is {
		s.flags |= bit
	}
}

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

// live gives the live subscription of a channel, nil if there is none.
func (s *Session) liveOn(name string) *subscription {
	if i := s.find(name); i >= 0 && s.subs[i].state == session.Live {
		return &s.subs[i]
	}
	return nil
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

// remove drops subscription i and what was attached for it; the last one takes
// its place.
func (s *Session) remove(i int) {
	name, attached := s.subs[i].name, s.subs[i].state != session.Authorizing
	last := len(s.subs) - 1
	if s.byName != nil {
		delete(s.byName, name)
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
	if attached {
		s.host.Detach(name)
	}
}
