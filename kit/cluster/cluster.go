// Package cluster says which nodes are alive and which of them owns a key. Membership is gossip (memberlist): quick, eventually
// the same everywhere, never a lock; who builds on it must stay correct when two nodes disagree for a moment. It knows
// nothing of what the roles mean.
package cluster

import (
	"crypto/rand"
	"encoding/hex"
	"slices"
	"strings"
	"sync"
	"time"
)

// Member is one live node. Node is its stable name; Incarnation names this run of it and sorts by start time.
type Member struct {
	Node        string   `json:"n"`
	Incarnation string   `json:"i"`
	Roles       []string `json:"r,omitempty"`
	Addr        string   `json:"a,omitempty"` // host:port of the node's gossip port unless the node said otherwise
	Version     string   `json:"v,omitempty"`
	// Away: the node has lost NATS, and can do nothing for others.
	Away bool `json:"w,omitempty"`
}

// HasRole reports whether the member runs role.
func (m Member) HasRole(role string) bool { return slices.Contains(m.Roles, role) }

// Membership is a node's present view of the cluster. All methods may be called from any goroutine.
type Membership interface {
	// Local returns this node.
	Local() Member
	// Members returns the live nodes sorted by name, this one included, one entry a node (its newest incarnation). The slice is
	// shared and must not be changed.
	Members() []Member
	// Watch returns a channel that gets a signal after each change (several changes may share one) and one at once,
	// and the function that ends the watch.
	Watch() (changed <-chan struct{}, stop func())
}

// NewIncarnation returns a name for a run of a node: microseconds since 1970 in hex and a random tail, so that a later
// run sorts after an earlier one.
func NewIncarnation() string {
	now := uint64(time.Now().UnixMicro())
	var b [12]byte
	for i := range 8 {
		b[i] = byte(now >> (56 - 8*i))
	}
	rand.Read(b[8:])
	return hex.EncodeToString(b[:])
}

// WithRole returns the members that run role, in the same order.
func WithRole(ms []Member, role string) []Member {
	out := make([]Member, 0, len(ms))
	for _, m := range ms {
		if m.HasRole(role) {
			out = append(out, m)
		}
	}
	return out
}

// Reachable returns those of the members that run role which have not lost NATS; when all have, that is no reason to prefer
// anybody, and it returns all.
func Reachable(ms []Member, role string) []Member {
	all := WithRole(ms, role)
	out := make([]Member, 0, len(all))
	for _, m := range all {
		if !m.Away {
			out = append(out, m)
		}
	}
	if len(out) == 0 {
		return all
	}
	return out
}

// NewStatic returns the membership of a node that is alone.
func NewStatic(local Member) Membership {
	return &static{members: []Member{local}}
}

// IsStatic says whether the membership is one of NewStatic: no other node will
// ever be seen.
func IsStatic(ms Membership) bool {
	_, ok := ms.(*static)
	return ok
}

// static is immutable: its watchers hear the first signal and nothing more.
type static struct{ members []Member }

func (s *static) Local() Member     { return s.members[0] }
func (s *static) Members() []Member { return slices.Clip(s.members) }

func (s *static) Watch() (<-chan struct{}, func()) {
	signal := make(chan struct{}, 1)
	signal <- struct{}{}
	return signal, func() {}
}

// view is the set of known incarnations and the snapshot made of it.
type view struct {
	mu sync.Mutex
	// guarded by mu
	known    map[string]Member // by gossip name, one per incarnation
	members  []Member          // replaced, never changed
	watchers map[chan struct{}]struct{}
}

func newView() *view {
	return &view{known: make(map[string]Member), watchers: make(map[chan struct{}]struct{})}
}

func (v *view) put(name string, m Member) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.known[name] = m
	v.rebuild()
}

func (v *view) remove(name string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.known, name)
	v.rebuild()
}

// twin is another run of the same node, of which there may be one alive that has not been missed yet; without, the result is empty.
func (v *view) twin(of Member) Member {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, m := range v.known {
		if m.Node == of.Node && m.Incarnation != of.Incarnation {
			return m
		}
	}
	return Member{}
}

// rebuild keeps the newest incarnation of each node and tells the watchers when the result differs.
func (v *view) rebuild() {
	newest := make(map[string]Member, len(v.known))
	for _, m := range v.known {
		if cur, ok := newest[m.Node]; !ok || m.Incarnation > cur.Incarnation {
			newest[m.Node] = m
		}
	}
	members := make([]Member, 0, len(newest))
	for _, m := range newest {
		members = append(members, m)
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Node, b.Node) })
	if slices.EqualFunc(members, v.members, sameMember) {
		return
	}
	v.members = slices.Clip(members)
	for w := range v.watchers {
		select {
		case w <- struct{}{}:
		default: // a signal is waiting there already
		}
	}
}

func sameMember(a, b Member) bool {
	return a.Node == b.Node && a.Incarnation == b.Incarnation && a.Addr == b.Addr && a.Version == b.Version && a.Away == b.Away &&
		slices.Equal(a.Roles, b.Roles)
}

// Members implements Membership.
func (v *view) Members() []Member {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.members
}

// Watch implements Membership.
func (v *view) Watch() (<-chan struct{}, func()) {
	signal := make(chan struct{}, 1)
	signal <- struct{}{}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.watchers[signal] = struct{}{}
	return signal, func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		delete(v.watchers, signal)
	}
}
