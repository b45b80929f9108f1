package hub

import (
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

// rollOf gives a new entry its roll, if its channel has members.
func (in *Interest) rollOf(key channel.Key) *roll {
	has := channel.KindOf(key.Name).Presence
	if in.Members != nil {
		has = in.Members(key)
	}
	if !has {
		return nil
	}
	return newRoll()
}

// member posts a member event, or not, if the subscribers know it already.
func (in *Interest) member(s *shard, e *entry, pub *message.Publication) {
	if e.roll == nil {
		in.postMember(s, e, pub)
		return
	}
	known := e.roll.members[pub.UserID].info
	switch e.roll.event(pub) {
	case removed: // who is told of it may want to be told whom it is about
		gone := *pub
		gone.Data = []byte(known)
		in.postMember(s, e, &gone)
	case nothing:
		in.dropped.Add(1)
	case renewed:
		before := message.Publication{
			Kind: message.MemberRemoved, App: pub.App, Channel: pub.Channel, UserID: pub.UserID, Data: []byte(known), TimeMs: pub.TimeMs,
		}
		in.postMember(s, e, &before)
		in.postMember(s, e, pub)
	default:
		in.postMember(s, e, pub)
	}
}

// postMember numbers a member event: floors of versions are these numbers, as
// what a subscription was told is the roll at the time.
func (in *Interest) postMember(s *shard, e *entry, pub *message.Publication) {
	s.told++
	in.post(e, 0, pub, s.told)
}

// Roster takes the roster of a presence channel that a new subscription of
// this node was answered with. The other subscribers are told of the
// differences from what they know. It returns what the new one has to be told
// instead, and the version of the floor from which on events are news to it.
// Sure is false if it can't be: the owner should be asked again.
func (in *Interest) Roster(key channel.Key, roster *Roster) (members []presence.Member, floor uint64, sure bool) {
	s := &in.shards[key.Partition(in.Partitions)]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	if e == nil || e.roll == nil { // registered by whoever asks: it can't be
		return roster.Members, s.told, true
	}
	sure = in.call(s, e, roster)
	return e.roll.list(roster.Members), s.told, sure
}

// State is what the owner of a channel says of it.
type State struct {
	Roster
	Subscriptions uint64
	Online        bool // of a watched user's channel
}

// Correct tells the subscribers of a channel how its state differs from what
// they know. It returns false if the owner should be asked again.
func (in *Interest) Correct(key channel.Key, state *State) (sure bool) {
	s := &in.shards[key.Partition(in.Partitions)]
	in.Room()
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	switch {
	case e == nil, e.roll != nil && !e.roll.known: // nobody was told anything yet
		return true
	case e.roll != nil:
		return in.call(s, e, &state.Roster)
	}
	return in.retell(s, e, state)
}

func (in *Interest) call(s *shard, e *entry, roster *Roster) (sure bool) {
	return e.roll.call(roster, func(kind message.Kind, id, info string) {
		pub := message.Publication{Kind: kind, App: e.key.App, Channel: e.key.Name, UserID: id}
		if info != "" {
			pub.Data = []byte(info)
		}
		in.postMember(s, e, &pub)
	})
}

// Dropped is the number of member events that subscribers knew already.
func (in *Interest) Dropped() uint64 { return in.dropped.Load() }

// Told lists the channels of a partition that match and whose subscribers here
// were told of members, of the number of subscriptions, or of a watched user.
func (in *Interest) Told(partition int, matches func(channel.Key) bool) []channel.Key {
	s := &in.shards[partition]
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []channel.Key
	for key, e := range s.entries {
		if e.roll != nil && e.roll.known && matches(key) {
			keys = append(keys, key)
		}
	}
	for key := range s.tallies {
		if matches(key) {
			keys = append(keys, key)
		}
	}
	return keys
}
