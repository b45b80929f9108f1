package centrifugo

import (
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/gateway/internal/session/table"
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
	since       resume.Place // where a client that recovers says that it is
	unrecovered bool         // answers 112 in place of a lost place
	delta       bool         // differences were asked for, and are allowed
	filter      *tagfilter.Filter
}

type flags uint16

const (
	byServer    flags = 1 << iota // the server made it
	byToken                       // the connection's token has it
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

// Name implements table.Row.
func (s subscription) Name() string { return s.name }

// subscriptions are those of a connection.
type subscriptions struct{ table.Table[subscription] }

// liveOn gives the live subscription of a channel, nil if there is none.
func (t *subscriptions) liveOn(name string) *subscription {
	if i := t.Find(name); i >= 0 && t.Rows[i].state == session.Live {
		return &t.Rows[i]
	}
	return nil
}

// remove drops subscription i and what was attached for it.
func (s *Session) remove(i int) {
	if sub := s.subs.Take(i); sub.state != session.Authorizing {
		s.host.Detach(sub.name)
	}
}
