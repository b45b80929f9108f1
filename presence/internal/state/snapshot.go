package state

import (
	"maps"
	"slices"
	"strings"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/presence"
)

// listing is what a snapshot lists, in one delta or in several.
type listing struct {
	rooms  map[channel.Key]*holding
	online map[channel.Key]struct{}
}

// holding is what a snapshot says of one channel.
type holding struct {
	counted bool
	users   map[string]struct{}
}

func newListing() *listing {
	return &listing{rooms: make(map[channel.Key]*holding), online: make(map[channel.Key]struct{})}
}

// add notes what a part lists. Nothing of ops is kept.
func (l *listing) add(ops []presence.Op) {
	for i := range ops {
		op := &ops[i]
		key := channel.Key{App: op.App, Name: op.Channel}
		switch op.Kind {
		case presence.Online:
			l.online[cloneKey(key)] = struct{}{}
		case presence.Join:
			l.room(key).users[strings.Clone(op.User)] = struct{}{}
		case presence.Count:
			l.room(key).counted = op.Count > 0
		}
	}
}

func (l *listing) room(key channel.Key) *holding {
	h := l.rooms[key]
	if h == nil {
		h = &holding{users: make(map[string]struct{})}
		l.rooms[cloneKey(key)] = h
	}
	return h
}

// renew takes out the members whose id or info a snapshot writes anew: they
// have left and come back, unless another gateway holds them too.
func (c *census) renew(g *gateway, ops []presence.Op) {
	for i := range ops {
		op := &ops[i]
		key := channel.Key{App: op.App, Name: op.Channel}
		st := g.seats[key]
		if op.Kind != presence.Join || st == nil {
			continue
		}
		if m := st.users[op.User]; m != nil && m.holders == 1 && (m.RawID != op.RawID || m.Info != op.Info) {
			c.leave(g, key, op.User)
		}
	}
}

// keepOnly takes away from the gateway what its snapshot does not list; the
// operations of the snapshot bring what is new, so that only the difference
// is announced. What goes is announced also while the window is open:
// somebody may have been told that it was there.
func (c *census) keepOnly(g *gateway, l *listing) {
	for _, key := range sortedKeys(g.seats) {
		c.shrink(g, key, l.rooms[key])
	}
	for _, key := range sortedKeys(g.online) {
		if _, still := l.online[key]; !still {
			c.setOffline(g, key)
		}
	}
}

// shrink takes the members that h does not list out of a seat, and its count
// if h has none.
func (c *census) shrink(g *gateway, key channel.Key, h *holding) {
	st := g.seats[key]
	for _, user := range slices.Sorted(maps.Keys(st.users)) {
		listed := false
		if h != nil {
			_, listed = h.users[user]
		}
		if !listed {
			c.leave(g, key, user)
		}
	}
	if h == nil || !h.counted {
		c.setCount(g, key, 0)
	}
}

// clear empties a gateway.
func (c *census) clear(g *gateway) {
	g.listing = nil
	c.keepOnly(g, newListing())
}

func sortedKeys[V any](m map[channel.Key]V) []channel.Key {
	return slices.SortedFunc(maps.Keys(m), func(a, b channel.Key) int {
		if c := compare(a.App, b.App); c != 0 {
			return c
		}
		return compare(a.Name, b.Name)
	})
}
