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

// table is the subscriptions of a connection.
type table struct {
	subs   []subscription
	byName map[string]int32 // index into subs, nil while these are few
}

// indexFrom is the number of subscriptions above which names are looked up in
// a map. Below, comparing strings one by one is as fast and costs no memory.
const indexFrom = 16

// find gives the index of a channel's subscription, -1 if there is none.
func (t *table) find(name string) int {
	if t.byName != nil {
		if i, ok := t.byName[name]; ok {
			return int(i)
		}
		return -1
	}
	for i := range t.subs {
		if t.subs[i].name == name {
			return i
		}
	}
	return -1
}

// liveOn gives the live subscription of a channel, nil if there is none.
func (t *table) liveOn(name string) *subscription {
	if i := t.find(name); i >= 0 && t.subs[i].state == session.Live {
		return &t.subs[i]
	}
	return nil
}

func (t *table) add(sub subscription) {
	t.subs = append(t.subs, sub)
	switch {
	case t.byName != nil:
		t.byName[sub.name] = int32(len(t.subs) - 1)
	case len(t.subs) > indexFrom:
		t.byName = make(map[string]int32, 2*indexFrom)
		for i := range t.subs {
			t.byName[t.subs[i].name] = int32(i)
		}
	}
}

// take takes subscription i out; the last one takes its place.
func (t *table) take(i int) subscription {
	sub, last := t.subs[i], len(t.subs)-1
	if t.byName != nil {
		delete(t.byName, sub.name)
		if i != last {
			t.byName[t.subs[last].name] = int32(i)
		}
	}
	t.subs[i] = t.subs[last]
	t.subs[last] = subscription{}
	t.subs = t.subs[:last]
	if last == 0 {
		t.subs, t.byName = nil, nil
	}
	return sub
}

// remove drops subscription i and what was attached for it.
func (s *Session) remove(i int) {
	if sub := s.take(i); sub.state != session.Authorizing {
		s.host.Detach(sub.name)
	}
}
