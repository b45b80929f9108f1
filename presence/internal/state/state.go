// Package state is the presence state of one shard: which gateway holds which
// subscriptions, members and online users, and what that means cluster-wide.
// Deltas, evictions and ticks in; effects, rosters and answers out. It knows
// no NATS, clock, goroutines or roles: the caller brings the time and decides
// who hears the effects.
//
// # Versions
//
// Every effect takes the next version of the shard's one counter, so a roster
// that carries the counter's value includes all events up to it. The counter
// of an owner begins at "start of the ownership in Unix milliseconds << 20",
// or behind the highest version heard from the owner before, whichever is
// higher: versions rise when the ownership moves.
//
// # The window after a take-over
//
// A shard that begins with nothing can't tell members that were announced by
// an earlier owner from new ones. While its window is open (until all
// gateways that were alive have reported, 2 s at most) what the first Snapshot
// of a gateway brings is taken as known and announced to nobody, except for
// Join operations with Want: these wait for their first answer, so nobody can
// have announced them for good. Ordinary deltas are announced as always, and so
// are the snapshots of a gateway that the shard has followed from its first
// delta or its first snapshot on, and of one that was evicted here before.
// Queries say Incomplete.
package state

import (
	"maps"
	"slices"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/presence"
)

const (
	// WindowMs is how long a shard that begins with nothing waits for
	// gateways at most.
	WindowMs = 2000
	// HoldMs is how long a webhook about a vacated channel or a removed member
	// waits for its undoing.
	HoldMs = 3000
	// DefaultRosterBytes is the default of Config.RosterBytes.
	DefaultRosterBytes = 320 << 10
)

// Config is what a shard needs to know.
type Config struct {
	Shard int
	// App gives an app's settings, nil for an unknown app.
	App func(id string) *app.App
	// RosterBytes bounds the members of one channel: a roster must fit into a
	// message. 0 means DefaultRosterBytes.
	RosterBytes int
	// ReplyBytes bounds the rosters of one reply, 0 means 2 * RosterBytes;
	// those beyond are Deferred.
	ReplyBytes int
}

// Shard is the state of one shard. It belongs to one goroutine.
type Shard struct {
	cfg      Config
	gateways map[string]*gateway // by node
	census   census
	news     announcer
	window   window
}

// New returns an empty shard without a window.
func New(cfg Config) *Shard {
	if cfg.RosterBytes <= 0 {
		cfg.RosterBytes = DefaultRosterBytes
	}
	if cfg.ReplyBytes <= 0 {
		cfg.ReplyBytes = 2 * cfg.RosterBytes
	}
	s := &Shard{cfg: cfg, gateways: make(map[string]*gateway)}
	s.news = announcer{app: cfg.App, window: &s.window, holds: newHolds()}
	s.census = census{news: &s.news, rooms: make(map[channel.Key]*room), online: make(map[channel.Key]int)}
	return s
}

// Await opens the window: nodes are the gateways that are alive.
func (s *Shard) Await(nodes []string, nowMs int64) {
	unheard := make([]string, 0, len(nodes))
	for _, node := range nodes {
		if !s.Followed(node) && !s.window.isGone(node) {
			unheard = append(unheard, node)
		}
	}
	s.window.open(unheard, nowMs)
}

// AwaitNew waits also for those of nodes that have not reported and are not
// awaited yet, if the take-over is not long ago, and lists them.
func (s *Shard) AwaitNew(nodes []string, nowMs int64) (fresh []string) {
	for _, node := range nodes {
		_, awaited := s.window.waiting[node]
		if !s.Followed(node) && !awaited && !s.window.isGone(node) && s.window.admit(node, nowMs) {
			fresh = append(fresh, node)
		}
	}
	return fresh
}

// Waiting says whether the window is open.
func (s *Shard) Waiting(nowMs int64) bool { return s.window.isOpen(nowMs) }

// Followed says whether all that a gateway's present run has told is known
// here: its first delta was seen, or a snapshot up to the last part.
func (s *Shard) Followed(node string) bool {
	g := s.gateways[node]
	return g != nil && g.followed
}

// Incomplete says whether a gateway of Await has never reported, in time or
// later.
func (s *Shard) Incomplete() bool { return len(s.window.waiting) > 0 }

// Awaited lists the gateways of Await that have not reported.
func (s *Shard) Awaited() []string { return slices.Sorted(maps.Keys(s.window.waiting)) }

// AwaitOnly stops waiting for gateways that are not among nodes.
func (s *Shard) AwaitOnly(nodes []string) { s.window.keep(nodes) }

// Own begins an ownership: versions from here on are above those before.
func (s *Shard) Own(nowMs int64) { s.RaiseVersion(uint64(max(nowMs, 0)) << 20) }

// RaiseVersion makes the next version higher than v.
func (s *Shard) RaiseVersion(v uint64) { s.news.version = max(s.news.version, v) }

// Version is the last version given.
func (s *Shard) Version() uint64 { return s.news.version }

// Mark gives the last delta of a gateway, false if it has nothing here.
func (s *Shard) Mark(node string) (presence.Mark, bool) {
	g := s.gateways[node]
	if g == nil {
		return presence.Mark{}, false
	}
	return g.mark(), true
}

// Marks gives the last delta of every gateway, sorted by node.
func (s *Shard) Marks() []presence.Mark {
	marks := make([]presence.Mark, 0, len(s.gateways))
	for _, g := range s.gateways {
		marks = append(marks, g.mark())
	}
	slices.SortFunc(marks, func(a, b presence.Mark) int { return compare(a.Node, b.Node) })
	return marks
}

// Size gives the numbers of channels, members (a user counts once a channel)
// and online users.
func (s *Shard) Size() (channels, members, online int) { return s.census.size() }

// Tick sends what was put off or held until now.
func (s *Shard) Tick(nowMs int64, out *[]Effect) {
	s.news.begin(nowMs, out)
	defer s.news.end()
	s.news.tick()
}

// Close sends what is held: nobody will be there to undo it or to send it later.
func (s *Shard) Close(nowMs int64, out *[]Effect) {
	s.news.begin(nowMs, out)
	defer s.news.end()
	s.news.tellHeld(nowMs + HoldMs)
}

func (s *Shard) limits(appID string) *app.Limits {
	if a := s.cfg.App(appID); a != nil {
		return &a.Limits
	}
	l := app.DefaultLimits()
	return &l
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
