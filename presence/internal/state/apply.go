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
	if verdict == Missing {
		return presence.Reply{Status: presence.Resync}, Missing
	}
	return presence.Reply{Results: s.results(d, g)}, verdict
}

// Confirm applies a delta as somebody else did: refused are the indices of
// the Join operations that were refused, all others were let in.
func (s *Shard) Confirm(d *presence.Delta, refused []int, nowMs int64, out *[]Effect) Verdict {
	if refused == nil {
		refused = []int{}
	}
	_, verdict := s.apply(d, refused, nowMs, out)
	return verdict
}

// apply does the work of both; with refused nil the limits decide.
func (s *Shard) apply(d *presence.Delta, refused []int, nowMs int64, out *[]Effect) (*gateway, Verdict) {
	s.begin(nowMs, out)
	defer s.end()
	g, verdict := s.admit(d)
	if verdict != Applied {
		return g, verdict
	}
	g.last, g.refused = d.Seq, nil
	if d.Snapshot {
		s.replace(g, d)
	}
	for i := range d.Ops {
		s.applyOp(g, d, i, refused)
	}
	delete(s.window.waiting, g.node)
	return g, Applied
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
		if !d.Snapshot {
			s.clear(g)
		}
		g.incarnation, g.last = strings.Clone(d.Incarnation), 0
	case d.Seq == g.last:
		return g, Repeated
	case d.Seq < g.last, !d.Snapshot && d.Seq != g.last+1:
		return nil, Missing
	}
	return g, Applied
}

func (s *Shard) addGateway(d *presence.Delta) *gateway {
	g := &gateway{
		node: strings.Clone(d.Node), incarnation: strings.Clone(d.Incarnation),
		seats: make(map[channel.Key]*seat), online: make(map[channel.Key]struct{}),
	}
	s.gateways[g.node] = g
	return g
}

func (s *Shard) applyOp(g *gateway, d *presence.Delta, i int, refused []int) {
	op := &d.Ops[i]
	key := channel.Key{App: op.App, Name: op.Channel}
	s.silent = d.Snapshot && !op.Want && s.Waiting(s.nowMs)
	switch op.Kind {
	case presence.Join:
		if limit := s.barrier(key, op, d.Snapshot, refused, i); limit > 0 {
			if g.refused == nil {
				g.refused = make(map[int]uint64)
			}
			g.refused[i] = limit
			return
		}
		s.join(g, key, op)
	case presence.Leave:
		s.leave(g, key, op.User)
	case presence.Count:
		s.setCount(g, key, op.Count)
	case presence.Online:
		s.setOnline(g, key)
	case presence.Offline:
		s.setOffline(g, key)
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
	r := s.rooms[key]
	if r != nil && r.members[op.User] != nil {
		return 0
	}
	return r.full(limits, len(op.User)+len(op.RawID)+len(op.Info), s.cfg.RosterBytes)
}

func (s *Shard) join(g *gateway, key channel.Key, op *presence.Op) {
	if op.User == "" || key.Name == "" {
		return
	}
	r := s.room(key)
	m := r.members[op.User]
	if m == nil {
		m = r.add(op)
		s.memberAdded(r, m)
	}
	seat := s.seat(g, r)
	if _, here := seat.users[m.ID]; !here {
		if seat.users == nil {
			seat.users = make(map[string]*member)
		}
		seat.users[m.ID] = m
		m.holders++
	}
}

func (s *Shard) leave(g *gateway, key channel.Key, user string) {
	seat := g.seats[key]
	if seat == nil {
		return
	}
	m, here := seat.users[user]
	if !here {
		return
	}
	delete(seat.users, user)
	m.holders--
	if m.holders == 0 {
		seat.room.remove(m)
		s.memberRemoved(seat.room, m)
	}
	s.tidy(g, seat)
}

func (s *Shard) setCount(g *gateway, key channel.Key, n uint64) {
	seat := g.seats[key]
	if key.Name == "" || (seat == nil && n == 0) {
		return
	}
	if seat == nil {
		seat = s.seat(g, s.room(key))
	}
	if seat.subscriptions == n {
		return
	}
	r := seat.room
	before := r.subscriptions
	r.subscriptions += n - seat.subscriptions // wraps back when n is the smaller one
	seat.subscriptions = n
	s.countChanged(r, before)
	s.tidy(g, seat)
}

func (s *Shard) setOnline(g *gateway, key channel.Key) {
	if _, here := g.online[key]; here || !strings.HasPrefix(key.Name, channel.OnlinePrefix) {
		return
	}
	key = cloneKey(key)
	g.online[key] = struct{}{}
	s.online[key]++
	if s.online[key] == 1 && !s.silent {
		s.emit(s.onlineEffect(Online, key))
	}
}

func (s *Shard) setOffline(g *gateway, key channel.Key) {
	if _, here := g.online[key]; !here {
		return
	}
	delete(g.online, key)
	s.online[key]--
	if s.online[key] == 0 {
		delete(s.online, key)
		s.emit(s.onlineEffect(Offline, key))
	}
}

func (s *Shard) onlineEffect(kind Kind, key channel.Key) Effect {
	id := strings.TrimPrefix(key.Name, channel.OnlinePrefix)
	return Effect{Kind: kind, Key: cloneKey(key), Member: presence.Member{ID: id}, Live: true}
}

// room gives the room of a key and makes it if it is missing.
func (s *Shard) room(key channel.Key) *room {
	r := s.rooms[key]
	if r == nil {
		r = &room{key: cloneKey(key)}
		s.rooms[r.key] = r
	}
	return r
}

func (s *Shard) seat(g *gateway, r *room) *seat {
	st := g.seats[r.key]
	if st == nil {
		st = &seat{room: r}
		g.seats[r.key] = st
	}
	return st
}

// tidy forgets a seat and a room that hold nothing any more.
func (s *Shard) tidy(g *gateway, st *seat) {
	if !st.empty() {
		return
	}
	delete(g.seats, st.room.key)
	if r := st.room; r.subscriptions == 0 && len(r.members) == 0 {
		delete(s.rooms, r.key)
	}
}

// cloneKey makes a key that aliases no message.
func cloneKey(k channel.Key) channel.Key {
	return channel.Key{App: strings.Clone(k.App), Name: strings.Clone(k.Name)}
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
			out = append(out, presence.Result{Full: true, Limit: limit, Version: s.version})
			continue
		}
		res := presence.Result{Version: s.version}
		if r := s.rooms[channel.Key{App: op.App, Name: op.Channel}]; r != nil {
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
