package edge

import (
	"slices"

	"github.com/carillon-rt/carillon/gateway/internal/hub"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/presence"
)

// hasMembers says whether the subscribers of a channel may be told of its
// members.
func (e *Edge) hasMembers(key channel.Key) bool {
	a := e.cfg.Apps.ByID(key.App)
	return a != nil && a.HasMembers(key.Name)
}

// roster is what a new subscriber is told of the members, and the floor of
// versions that goes with it: see hub.Interest.Roster.
func (e *Edge) roster(key channel.Key, res *presence.Result) ([]presence.Member, uint64) {
	members, floor, sure := e.interest.Roster(key, &hub.Roster{Version: res.Version, Incomplete: res.Incomplete, Members: res.Members})
	if !sure && e.cfg.Unsure != nil {
		e.cfg.Unsure(key)
	}
	return members, floor
}

// watched notes what a new watcher was told of users.
func (e *Edge) watched(keys []channel.Key, users, online []string) {
	for i, key := range keys {
		e.interest.Watched(key, slices.Contains(online, users[i]))
	}
}

// Correct tells a channel's subscribers how its state differs from what they
// know: see hub.Interest.Correct.
func (e *Edge) Correct(key channel.Key, state *hub.State) (sure bool) {
	return e.interest.Correct(key, state)
}

// Told lists channels whose subscribers were told of presence: see
// hub.Interest.Told.
func (e *Edge) Told(partition int, matches func(channel.Key) bool) []channel.Key {
	return e.interest.Told(partition, matches)
}
