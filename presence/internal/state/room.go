package state

import (
	"maps"
	"slices"
	"strings"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/presence"
)

// room is what is known of one channel, over all gateways.
type room struct {
	key           channel.Key
	subscriptions uint64
	members       map[string]*member // by user id; nil until the first
	order         []*member          // in order of joining
	memberBytes   int                // of all members

	count counting
}

// empty is what a room is once it is gone, and never before.
func (r *room) empty() bool { return r.subscriptions == 0 && len(r.members) == 0 }

// member is a user in a room.
type member struct {
	presence.Member
	holders int // gateways that have connections of the user in the room
}

func (m *member) bytes() int { return len(m.ID) + len(m.RawID) + len(m.Info) }

// seat is what one gateway holds of one channel.
type seat struct {
	room          *room
	subscriptions uint64
	users         map[string]*member // nil until the first
}

func (s *seat) empty() bool { return s.subscriptions == 0 && len(s.users) == 0 }

// gateway is one incarnation of a gateway and what it holds.
type gateway struct {
	node        string
	incarnation string
	last        uint64 // number of the delta applied last
	seats       map[channel.Key]*seat
	online      map[channel.Key]struct{}
	listing     *listing // of a snapshot whose last part has not come
	followed    bool     // see Shard.Followed: what comes now is new to everybody
	returned    bool     // it was announced as gone: so is what its snapshot brings
	// refused are the indices of the operations of the last delta that met a
	// full channel, with the limit: a repeat gets the same answer.
	refused map[int]uint64
}

func (g *gateway) mark() presence.Mark {
	m := presence.Mark{Node: g.node, Incarnation: g.incarnation, Seq: g.last}
	if len(g.refused) > 0 {
		m.Refused = slices.Sorted(maps.Keys(g.refused))
	}
	return m
}

// add puts a user into the room. Its strings are cloned: they alias a message.
func (r *room) add(op *presence.Op) *member {
	m := &member{Member: presence.Member{
		ID: strings.Clone(op.User), RawID: strings.Clone(op.RawID), Info: strings.Clone(op.Info),
	}}
	if r.members == nil {
		r.members = make(map[string]*member)
	}
	r.members[m.ID] = m
	r.order = append(r.order, m)
	r.memberBytes += m.bytes()
	return m
}

func (r *room) remove(m *member) {
	delete(r.members, m.ID)
	if i := slices.Index(r.order, m); i >= 0 {
		r.order = slices.Delete(r.order, i, i+1)
	}
	r.memberBytes -= m.bytes()
}

// full gives the limit that keeps one more member of that size out, 0 if none
// does: the app's limit of members, or what a reply can carry.
func (r *room) full(limits *app.Limits, bytes, bytesMax int) uint64 {
	n := 0
	if r != nil {
		n = len(r.members)
		bytes += r.memberBytes
	}
	if n >= limits.PresenceMembers {
		return uint64(limits.PresenceMembers)
	}
	if bytes > bytesMax {
		return uint64(max(n, 1))
	}
	return 0
}

// roster lists the members in the order in which they joined.
func (r *room) roster() []presence.Member {
	if r == nil || len(r.order) == 0 {
		return nil
	}
	out := make([]presence.Member, len(r.order))
	for i, m := range r.order {
		out[i] = m.Member
	}
	return out
}
