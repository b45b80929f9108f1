package edge

import (
	"github.com/carillon-rt/carillon/gateway/internal/hub"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/presence"
)

// roster is what a new subscriber is told of the members, and the floor of
// versions that goes with it: see hub.Interest.Roster.
func (e *Edge) roster(key channel.Key, res *presence.Result) ([]presence.Member, uint64) {
	members, floor, sure := e.interest.Roster(key, &hub.Roster{Version: res.Version, Incomplete: res.Incomplete, Members: res.Members})
	if !sure && e.cfg.Unsure != nil {
		e.cfg.Unsure(key)
	}
	return members, floor
}

// Correct tells a presence channel's subscribers how a roster of its owner
// differs from what they know: see hub.Interest.Correct.
func (e *Edge) Correct(key channel.Key, roster *hub.Roster) (sure bool) {
	return e.interest.Correct(key, roster)
}

// Rosters lists presence channels with subscribers: see hub.Interest.Rosters.
func (e *Edge) Rosters(partition int, matches func(channel.Key) bool) []channel.Key {
	return e.interest.Rosters(partition, matches)
}
