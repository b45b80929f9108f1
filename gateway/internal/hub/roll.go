package hub

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"

	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

// roll is whom the subscribers of a presence channel at this node have been
// told of, the same for all: a newcomer gets the roll as its roster. Member
// events may be lost, late or repeated on the way here; what the roll says is
// news to the subscribers, and nothing else, is told. A roster of the owner
// calls the roll: the difference is told as if the events had come.
//
// Versions are the shard's. A member's is that of the event or roster that
// brought it, so that an older roster does not undo a newer event.
type roll struct {
	known   bool   // a roster has come
	base    uint64 // version of the newest roster: events up to it are told
	members map[string]rolled
	// gone are the versions of removals that rosters under way may not include.
	gone      map[string]uint64
	forgotten uint64 // highest version that was dropped from gone
}

// rolled is a member by its id as JSON.
type rolled struct {
	info    string
	version uint64
	call    uint64 // version of the newest roster that listed it
}

const (
	// goneMin is how many removals a roll remembers at least; it is as many as
	// members when those are more.
	goneMin = 64
	// unknownMax is how many members a roll notes before the first roster.
	unknownMax = 4096
)

func newRoll() *roll { return &roll{} }

// news is what the subscribers must be told of a member.
type news uint8

const (
	nothing news = iota
	added
	removed
	renewed // first removed, then added
)

// event takes a member event and says what is new of it to the subscribers.
func (r *roll) event(pub *message.Publication) news {
	if r.known && pub.Version <= r.base {
		return nothing
	}
	n := r.apply(pub)
	if !r.known {
		r.boundUnknown(pub.Version)
		return nothing
	}
	return n
}

func (r *roll) apply(pub *message.Publication) news {
	m, there := r.members[pub.UserID]
	if max(m.version, r.gone[pub.UserID]) >= pub.Version {
		return nothing // what is known of the member is newer
	}
	switch {
	case pub.Kind == message.MemberRemoved:
		r.noteGone(strings.Clone(pub.UserID), pub.Version)
		if !there {
			return nothing
		}
		delete(r.members, pub.UserID)
		return removed
	case !there:
		r.add(strings.Clone(pub.UserID), rolled{info: string(pub.Data), version: pub.Version})
		return added
	case m.info != string(pub.Data):
		r.members[pub.UserID] = rolled{info: string(pub.Data), version: pub.Version}
		return renewed
	}
	m.version = pub.Version
	r.members[pub.UserID] = m
	return nothing
}

func (r *roll) add(id string, m rolled) {
	if r.members == nil {
		r.members = make(map[string]rolled)
	}
	delete(r.gone, id)
	r.members[id] = m
}

func (r *roll) noteGone(id string, version uint64) {
	if len(r.gone) >= max(goneMin, len(r.members)) {
		for _, v := range r.gone {
			r.forgotten = max(r.forgotten, v)
		}
		clear(r.gone)
	}
	if r.gone == nil {
		r.gone = make(map[string]uint64)
	}
	r.gone[id] = version
}

// boundUnknown forgets everything when it is too much; rosters that are older
// than that can't be joined with what came since.
func (r *roll) boundUnknown(version uint64) {
	if len(r.members) > unknownMax {
		clear(r.members)
		clear(r.gone)
		r.forgotten = version
	}
}

// Roster is who is in a presence channel, as its owner says.
type Roster struct {
	Version uint64 // it includes all events up to this version
	// Incomplete: the owner is new and does not know all members yet.
	Incomplete bool
	Members    []presence.Member
}

// call compares the roll with a roster and calls tell for every difference.
// sure is false when another, newer roster is needed.
func (r *roll) call(roster *Roster, tell func(kind message.Kind, id, info string)) (sure bool) {
	first := !r.known
	switch {
	case first:
		r.known, tell = true, func(message.Kind, string, string) {}
	case roster.Version < r.base:
		return true
	case roster.Version < r.forgotten:
		return false
	}
	sure = roster.Version >= r.forgotten && !roster.Incomplete
	var come []presence.Member
	for _, listed := range roster.Members {
		m, there := r.members[listed.RawID]
		switch {
		case there && m.version > roster.Version, !there && r.gone[listed.RawID] > roster.Version:
		case there && m.info == listed.Info:
			m.call = roster.Version
			r.members[listed.RawID] = m
		default: // if it is there: with another info, and not called
			come = append(come, listed)
		}
	}
	for id, m := range r.members {
		if m.version <= roster.Version && m.call != roster.Version && !roster.Incomplete {
			delete(r.members, id)
			tell(message.MemberRemoved, id, m.info)
		}
	}
	for _, m := range come {
		if _, there := r.members[m.RawID]; there { // the roster is incomplete
			continue
		}
		info := strings.Clone(m.Info)
		r.add(strings.Clone(m.RawID), rolled{info: info, version: roster.Version, call: roster.Version})
		tell(message.MemberAdded, m.RawID, info)
	}
	if !roster.Incomplete {
		r.settle(roster.Version)
	}
	return sure
}

// settle forgets what the roster of a version includes.
func (r *roll) settle(version uint64) {
	r.base = version
	for id, v := range r.gone {
		if v <= version {
			delete(r.gone, id)
		}
	}
	if len(r.gone) == 0 {
		r.gone = nil
	}
}

// list is the roll as a roster, in the order of one that was called just now,
// which it is itself if they say the same.
func (r *roll) list(roster []presence.Member) []presence.Member {
	stays := func(m presence.Member) bool {
		there, ok := r.members[m.RawID]
		return ok && there.info == m.Info
	}
	if len(roster) == len(r.members) && !slices.ContainsFunc(roster, func(m presence.Member) bool { return !stays(m) }) {
		return roster
	}
	out := make([]presence.Member, 0, len(r.members))
	listed := make(map[string]struct{}, len(roster))
	for _, m := range roster {
		if stays(m) {
			out = append(out, m)
			listed[m.RawID] = struct{}{}
		}
	}
	n := len(out)
	for id, m := range r.members {
		if _, ok := listed[id]; !ok {
			out = append(out, presence.Member{ID: plainID(id), RawID: id, Info: m.info})
		}
	}
	slices.SortFunc(out[n:], func(a, b presence.Member) int {
		return cmp.Or(cmp.Compare(r.members[a.RawID].version, r.members[b.RawID].version), strings.Compare(a.RawID, b.RawID))
	})
	return out
}

// plainID is the string form of an id in JSON, a string or a number.
func plainID(raw string) string {
	var s string
	if json.Unmarshal([]byte(raw), &s) != nil {
		return raw
	}
	return s
}
