// Package roster is a gateway's truth about its own connections: how many
// subscribe to each channel, which users are members of which presence
// channels, who is online. It sums them up and tells the owners of the
// presence shards in numbered deltas, one at a time per shard. It knows
// nothing of connections and client protocols.
//
// shard (state.go, delta.go) is pure: no NATS, clock or goroutines. Roster
// drives it.
package roster

import (
	"errors"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/presence"
)

// ErrUnavailable is what a Join is answered with when no owner of the
// channel's members answered in time.
var ErrUnavailable = errors.New("roster: the members of the channel can't be told now, try again")

// answerFunc takes the answer to a Join.
type answerFunc func(presence.Result, error)

// waiter is a connection whose Join has not been answered.
type waiter struct {
	answer answerFunc
	due    time.Time
}

// outcome is an answer that is to be given.
type outcome struct {
	answer answerFunc
	result presence.Result
	err    error
}

// member is a user of a presence channel with connections on this gateway:
// those that wait for the answer to their Join, and those that have joined.
type member struct {
	in      *entry
	user    string
	rawID   string
	info    string
	conns   int      // waiting ones included
	waiters []waiter // to be asked for
	flying  []waiter // asked for by the delta in flight
	told    bool     // the owner has been told, in flight or before
	present bool     // the owner has accepted
	renew   bool     // what was told is not what it is now
	queued  bool
}

func (m *member) waiting() bool { return len(m.waiters)+len(m.flying) > 0 }

// joined is how many connections were told that they joined.
func (m *member) joined() int { return m.conns - len(m.waiters) - len(m.flying) }

// entry is a channel, or a user's online state under "#online-<id>". There may
// be one for each of a million connections: keep it small (see TestSizes).
type entry struct {
	key       channel.Key
	members   map[string]*member
	changed   []*member // queued ones
	count     int32     // subscriptions
	toldCount int32
	online    int32 // signed-in connections
	toldOn    bool
	queued    bool
}

func (e *entry) empty() bool {
	return e.count == 0 && e.toldCount == 0 && e.online == 0 && !e.toldOn && len(e.members) == 0 && len(e.changed) == 0
}

// shard is the state of one presence shard on this gateway, and what the
// owner has been told of it.
type shard struct {
	number   int
	bytesMax int // of a delta
	entries  map[channel.Key]*entry
	dirty    []*entry // queued ones, in order of change
	waiting  map[*member]struct{}
	outcomes []outcome

	seq    uint64
	flight *flight
	resync bool // the next delta must be a snapshot
	parts  bool // the next delta goes on with the last snapshot
}

func newShard(number int) *shard {
	return &shard{number: number, bytesMax: deltaBytesMax, entries: map[channel.Key]*entry{}, waiting: map[*member]struct{}{}}
}

func (s *shard) entry(key channel.Key) *entry {
	e := s.entries[key]
	if e == nil {
		e = &entry{key: key}
		s.entries[key] = e
	}
	return e
}

func (s *shard) change(e *entry) {
	if !e.queued {
		e.queued = true
		s.dirty = append(s.dirty, e)
	}
}

func (s *shard) changeMember(m *member) {
	if !m.queued {
		m.queued = true
		m.in.changed = append(m.in.changed, m)
	}
	s.change(m.in)
}

// subscribed changes the number of subscriptions by n.
func (s *shard) subscribed(key channel.Key, n int) {
	e := s.entry(key)
	e.count = max(e.count+int32(n), 0)
	s.change(e)
}

// signedIn changes the number of a user's signed-in connections by n.
func (s *shard) signedIn(key channel.Key, n int) {
	e := s.entry(key)
	e.online = max(e.online+int32(n), 0)
	s.change(e)
}

// join adds a connection of a member.
func (s *shard) join(key channel.Key, who presence.Member, w waiter) {
	e := s.entry(key)
	if e.members == nil {
		e.members = map[string]*member{}
	}
	m := e.members[who.ID]
	if m == nil {
		m = &member{in: e, user: who.ID, rawID: who.RawID, info: who.Info}
		e.members[who.ID] = m
	}
	if m.conns == 0 { // new, or back before the owner was told that it left
		m.renew = m.told && (m.rawID != who.RawID || m.info != who.Info)
		m.rawID, m.info = who.RawID, who.Info
	}
	m.conns++
	m.waiters = append(m.waiters, w)
	s.waiting[m] = struct{}{}
	s.changeMember(m)
}

// leave takes a connection that has joined back. A leave of somebody who is
// not there is ignored.
func (s *shard) leave(key channel.Key, user string) {
	e := s.entries[key]
	if e == nil || e.members[user] == nil || e.members[user].joined() == 0 {
		return
	}
	s.drop(e.members[user], 1)
}

// drop takes n connections of m away; they wait no more.
func (s *shard) drop(m *member, n int) {
	m.conns -= n
	if m.conns == 0 {
		s.changeMember(m)
	}
	s.settled(m)
}

// refuse answers those who wait in ws, which is one of m's lists, and takes
// their connections away.
func (s *shard) refuse(m *member, ws *[]waiter, res presence.Result, err error) {
	n := len(*ws)
	s.answer(*ws, res, err)
	*ws = nil
	s.drop(m, n)
}

func (s *shard) answer(ws []waiter, res presence.Result, err error) {
	for _, w := range ws {
		s.outcomes = append(s.outcomes, outcome{w.answer, res, err})
	}
}

// settled drops the bookkeeping of a member for whom nobody waits any more.
func (s *shard) settled(m *member) {
	if !m.waiting() {
		delete(s.waiting, m)
	}
}

// expire fails the joins whose time is up and returns when the next is due.
func (s *shard) expire(now time.Time) (next time.Time) {
	for m := range s.waiting {
		s.drop(m, s.expireWaiters(&m.flying, now)+s.expireWaiters(&m.waiters, now))
		if !m.waiting() {
			continue
		}
		if due := m.due(); next.IsZero() || due.Before(next) {
			next = due
		}
	}
	return next
}

// due is when the first of the waiters is.
func (m *member) due() time.Time {
	if len(m.flying) > 0 {
		return m.flying[0].due
	}
	return m.waiters[0].due
}

func (s *shard) expireWaiters(ws *[]waiter, now time.Time) int {
	n := 0
	for n < len(*ws) && !(*ws)[n].due.After(now) {
		n++
	}
	s.answer((*ws)[:n], presence.Result{}, ErrUnavailable)
	*ws = (*ws)[n:]
	return n
}

// takeOutcomes gives what is to be answered, once.
func (s *shard) takeOutcomes() []outcome {
	out := s.outcomes
	s.outcomes = nil
	return out
}

// busy says whether the owner has not been told everything yet.
func (s *shard) busy() bool { return s.flight != nil || len(s.dirty) > 0 || s.resync }

// onlineUser is the user of an online entry.
func onlineUser(e *entry) string { return strings.TrimPrefix(e.key.Name, channel.OnlinePrefix) }
