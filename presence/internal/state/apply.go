package state

import (
	"slices"
	"strings"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/presence"
)

// Verdict is what became of a delta.
type Verdict uint8

// Verdicts.
const (
	Applied  Verdict = iota + 1
	Repeated         // it was applied before
	Missing          // a number is missing: the gateway must send a snapshot
)

// Apply applies a delta, of which nothing is kept, appends what must be
// announced to out and gives the answer.
func (s *Shard) Apply(d *presence.Delta, nowMs int64, out *[]Effect) (presence.Reply, Verdict) {
	g, verdict := s.apply(d, nil, nowMs, out)
	return s.answer(d, g, verdict), verdict
}

// Confirm applies a delta as somebody else did: refused are the indices of
// the Join operations that were refused, all others were let in.
func (s *Shard) Confirm(d *presence.Delta, refused []int, nowMs int64, out *[]Effect) Verdict {
	_, verdict := s.confirm(d, refused, nowMs, out)
	return verdict
}

// ConfirmAnswered is Confirm with the answer, for a gateway that somebody else
// may not have answered.
func (s *Shard) ConfirmAnswered(d *presence.Delta, refused []int, nowMs int64, out *[]Effect) (presence.Reply, Verdict) {
	g, verdict := s.confirm(d, refused, nowMs, out)
	return s.answer(d, g, verdict), verdict
}

func (s *Shard) confirm(d *presence.Delta, refused []int, nowMs int64, out *[]Effect) (*gateway, Verdict) {
	if refused == nil {
		refused = []int{}
	}
	return s.apply(d, refused, nowMs, out)
}

func (s *Shard) answer(d *presence.Delta, g *gateway, verdict Verdict) presence.Reply {
	if verdict == Missing {
		return presence.Reply{Status: presence.Resync}
	}
	return presence.Reply{Results: s.results(d, g)}
}

// apply does the work of both; with refused nil the limits decide.
func (s *Shard) apply(d *presence.Delta, refused []int, nowMs int64, out *[]Effect) (*gateway, Verdict) {
	s.news.begin(nowMs, out)
	defer s.news.end()
	g, verdict := s.admit(d)
	if verdict != Applied {
		return g, verdict
	}
	g.last, g.refused = d.Seq, nil
	s.noteListed(g, d)
	for i := range d.Ops {
		s.applyOp(g, d, i, refused)
	}
	if !d.More {
		g.listing, g.followed = nil, true
		s.window.heard(g.node)
	}
	return g, Applied
}

// noteListed notes what a snapshot lists; with the last part goes what none has.
func (s *Shard) noteListed(g *gateway, d *presence.Delta) {
	if d.Snapshot {
		g.listing = newListing()
	}
	if g.listing == nil {
		return
	}
	g.listing.add(d.Ops)
	s.census.renew(g, d.Ops)
	if !d.More {
		s.census.keepOnly(g, g.listing)
	}
}

// admit finds or makes the gateway of a delta that is to be applied.
func (s *Shard) admit(d *presence.Delta) (*gateway, Verdict) {
	if d.Node == "" || d.Incarnation == "" || d.Seq == 0 {
		return nil, Missing
	}
	g := s.gateways[d.Node]
	fresh := d.Snapshot || d.Seq == 1
	switch {
	case g == nil && fresh:
		g = s.addGateway(d)
	case g == nil, d.Incarnation < g.incarnation:
		return nil, Missing
	case d.Incarnation > g.incarnation:
		// The old run stays until its members are known to be gone: a
		// snapshot of the new one tells, and a first delta does.
		if !fresh {
			return nil, Missing
		}
		s.census.lost(g)
		if !d.Snapshot {
			s.census.clear(g)
		}
		g.incarnation, g.last, g.followed = strings.Clone(d.Incarnation), 0, d.Seq == 1
	case d.Seq == g.last:
		return g, Repeated
	case d.Seq < g.last, !d.Snapshot && d.Seq != g.last+1:
		return nil, Missing
	}
	return g, Applied
}

func (s *Shard) addGateway(d *presence.Delta) *gateway {
	g := &gateway{
		node: strings.Clone(d.Node), incarnation: strings.Clone(d.Incarnation), followed: d.Seq == 1,
		returned: s.window.back(d.Node),
		seats:    make(map[channel.Key]*seat), online: make(map[channel.Key]struct{}),
	}
	s.gateways[g.node] = g
	return g
}

func (s *Shard) applyOp(g *gateway, d *presence.Delta, i int, refused []int) {
	op := &d.Ops[i]
	key := channel.Key{App: op.App, Name: op.Channel}
	snapshot := g.listing != nil
	s.news.silent = snapshot && !op.Want && !g.followed && !g.returned && s.Waiting(s.news.nowMs)
	switch op.Kind {
	case presence.Join:
		if limit := s.barrier(key, op, snapshot, refused, i); limit > 0 {
			if g.refused == nil {
				g.refused = make(map[int]uint64)
			}
			g.refused[i] = limit
			return
		}
		s.census.join(g, key, op)
	case presence.Leave:
		s.census.leave(g, key, op.User)
	case presence.Count:
		s.census.setCount(g, key, op.Count)
	case presence.Online:
		s.census.setOnline(g, key)
	case presence.Offline:
		s.census.setOffline(g, key)
	}
}

// barrier gives the limit that keeps a joining user out, 0 if none does.
func (s *Shard) barrier(key channel.Key, op *presence.Op, snapshot bool, refused []int, i int) uint64 {
	limits := s.limits(key.App)
	if refused != nil {
		if slices.Contains(refused, i) {
			return uint64(max(limits.PresenceMembers, 1))
		}
		return 0
	}
	// A snapshot tells of members that were let in before, unless they wait
	// for the answer.
	if snapshot && !op.Want {
		return 0
	}
	r := s.census.rooms[key]
	if r != nil && r.members[op.User] != nil {
		return 0
	}
	return r.full(limits, len(op.User)+len(op.RawID)+len(op.Info), s.cfg.RosterBytes)
}

// Evict takes a gateway's incarnation out with all that it held, and says
// whether it was there. An empty incarnation stands for any.
func (s *Shard) Evict(node, incarnation string, nowMs int64, out *[]Effect) bool {
	g := s.gateways[node]
	if g == nil || (incarnation != "" && g.incarnation != incarnation) {
		return false
	}
	s.news.begin(nowMs, out)
	defer s.news.end()
	s.census.lost(g)
	s.census.clear(g)
	delete(s.gateways, node)
	s.window.evicted(strings.Clone(node))
	return true
}

// results answers every operation with Want: refused joins, and rosters as of
// after the whole delta, which hold all that an earlier one would. Equal
// rosters are made once.
func (s *Shard) results(d *presence.Delta, g *gateway) []presence.Result {
	var out []presence.Result
	rosters := map[*room][]presence.Member{}
	bytes := 0
	for i := range d.Ops {
		op := &d.Ops[i]
		if !op.Want {
			continue
		}
		if limit, refused := g.refused[i]; refused {
			out = append(out, presence.Result{Full: true, Limit: limit, Version: s.news.version})
			continue
		}
		res := presence.Result{Version: s.news.version, Incomplete: s.Waiting(s.news.nowMs) || s.Incomplete()}
		if r := s.census.rooms[channel.Key{App: op.App, Name: op.Channel}]; r != nil {
			if bytes += r.memberBytes; bytes > s.cfg.ReplyBytes && len(rosters) > 0 {
				res.Deferred = true
			} else if res.Members = rosters[r]; res.Members == nil {
				res.Members = r.roster()
				rosters[r] = res.Members
			}
		}
		out = append(out, res)
	}
	return out
}
