package hub

import (
	"strings"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// tally is what the subscribers of a channel without members were told last of
// presence: the number of subscriptions, or whether a watched user is online.
type tally struct {
	kind  message.Kind
	count uint64
	seq   uint64 // of the event, or the version of the answer that told it
}

func isTally(kind message.Kind) bool {
	return kind == message.SubscriptionCount || kind == message.UserOnline || kind == message.UserOffline
}

// tell posts a count or a change of a watched user, unless something newer was
// told.
func (in *Interest) tell(s *shard, e *entry, pub *message.Publication) {
	if pub.Seq != 0 && pub.Seq <= s.tallies[e.key].seq {
		in.dropped.Add(1)
		return
	}
	s.remember(e.key, tally{pub.Kind, pub.Version, pub.Seq})
	in.post(e, 0, pub, 0)
}

func (s *shard) remember(key channel.Key, t tally) {
	if s.tallies == nil {
		s.tallies = make(map[channel.Key]tally)
	}
	s.tallies[key] = t
}

// Watched says that a subscription was told by other means whether a user is
// online.
func (in *Interest) Watched(key channel.Key, online bool) {
	s := &in.shards[key.Partition(in.Partitions)]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	if e == nil {
		return
	}
	if _, told := s.tallies[e.key]; !told { // else by an event: that is newer, or what it says will come
		s.remember(e.key, tally{kind: onlineKind(online)})
	}
}

func onlineKind(online bool) message.Kind {
	if online {
		return message.UserOnline
	}
	return message.UserOffline
}

// retell tells the subscribers what an answer of the owner says if they were
// told something else.
func (in *Interest) retell(s *shard, e *entry, state *State) (sure bool) {
	t, told := s.tallies[e.key]
	switch {
	case !told, state.Version < t.seq:
		return true
	case state.Incomplete:
		return false
	}
	if t.kind == message.SubscriptionCount && state.Subscriptions == 0 {
		return true // not even told of those here: it will be, and that is an event
	}
	pub := message.Publication{Kind: t.kind, App: e.key.App, Channel: e.key.Name}
	if t.kind == message.SubscriptionCount {
		pub.Version = state.Subscriptions
	} else {
		pub.Kind, pub.UserID = onlineKind(state.Online), strings.TrimPrefix(e.key.Name, channel.OnlinePrefix)
	}
	s.remember(e.key, tally{pub.Kind, pub.Version, state.Version})
	if pub.Kind != t.kind || pub.Version != t.count {
		in.post(e, 0, &pub, 0)
	}
	return true
}
