package state

import (
	"maps"
	"slices"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/presence"
)

// holding is what a snapshot says of one channel.
type holding struct {
	counted bool
	users   map[string]*presence.Op
}

// replace takes away from the gateway what its snapshot does not list; the
// operations of the snapshot then bring what is new, so that only the
// difference is announced. What goes is announced also while the window is
// open: somebody may have been told that it was there.
func (c *census) replace(g *gateway, d *presence.Delta) {
	want := make(map[channel.Key]*holding)
	online := make(map[channel.Key]struct{})
	for i := range d.Ops {
		op := &d.Ops[i]
		key := channel.Key{App: op.App, Name: op.Channel}
		if op.Kind == presence.Online {
			online[key] = struct{}{}
			continue
		}
		h := want[key]
		if h == nil {
			h = &holding{users: map[string]*presence.Op{}}
			want[key] = h
		}
		switch op.Kind {
		case presence.Join:
			h.users[op.User] = op
		case presence.Count:
			h.counted = op.Count > 0
		}
	}
	for _, key := range sortedKeys(g.seats) {
		c.shrink(g, key, want[key])
	}
	for _, key := range sortedKeys(g.online) {
		if _, still := online[key]; !still {
			c.setOffline(g, key)
		}
	}
}

// shrink takes the members that h does not list out of a seat, and its count
// if h has none. A member whose id or info was written anew has left and come
// back, unless another gateway holds it too.
func (c *census) shrink(g *gateway, key channel.Key, h *holding) {
	st := g.seats[key]
	for _, user := range slices.Sorted(maps.Keys(st.users)) {
		var op *presence.Op
		if h != nil {
			op = h.users[user]
		}
		m := st.users[user]
		if op == nil || (m.holders == 1 && (m.RawID != op.RawID || m.Info != op.Info)) {
			c.leave(g, key, user)
		}
	}
	if h == nil || !h.counted {
		c.setCount(g, key, 0)
	}
}

// clear empties a gateway.
func (c *census) clear(g *gateway) {
	for _, key := range sortedKeys(g.seats) {
		c.shrink(g, key, nil)
	}
	for _, key := range sortedKeys(g.online) {
		c.setOffline(g, key)
	}
}

func sortedKeys[V any](m map[channel.Key]V) []channel.Key {
	return slices.SortedFunc(maps.Keys(m), func(a, b channel.Key) int {
		if c := compare(a.App, b.App); c != 0 {
			return c
		}
		return compare(a.Name, b.Name)
	})
}
