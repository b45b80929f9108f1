package replica_test

import (
	"fmt"
	"slices"
	"strings"

	"github.com/carillon-rt/carillon/proto/presence"
)

// gw is a simulated gateway that keeps to the protocol: one delta in flight,
// repeated until it is answered, a snapshot when it is asked for one.
type gw struct {
	sim  *sim
	name string
	inc  string
	dead bool
	// cutOff: nothing comes from it or to it; gone: the membership has noticed.
	cutOff, gone bool

	users   map[string]map[string]bool // channel -> user -> the join was answered
	counts  map[string]uint64
	online  map[string]bool
	pending []presence.Op

	seq      uint64
	flight   *presence.Delta
	tries    int
	snapshot bool          // send one next
	rest     []presence.Op // of a snapshot in parts
}

func (s *sim) startGateway(name string) {
	s.gws[name] = &gw{
		sim: s, name: name, inc: fmt.Sprintf("%08d", s.now),
		users: map[string]map[string]bool{}, counts: map[string]uint64{}, online: map[string]bool{},
	}
	s.logf("gateway %s starts", name)
}

// killGateway ends a gateway; half of them are back at once.
func (s *sim) killGateway(g *gw) {
	s.logf("gateway %s dies", g.name)
	g.dead = true
	s.died[g.name+" "+g.inc] = s.now
	delete(s.gws, g.name)
	if s.rng.IntN(2) == 0 || len(s.gws) == 0 {
		s.startGateway(g.name)
		return
	}
	s.after(1000, func() { s.startGateway(g.name) })
}

// change lets a connection come or go.
func (g *gw) change() {
	s := g.sim
	user := fmt.Sprintf("u%d", s.rng.IntN(simUsers))
	switch s.rng.IntN(3) {
	case 0:
		ch := "presence-a"
		if _, in := g.users[ch][user]; in {
			delete(g.users[ch], user)
			g.queue(presence.Op{Kind: presence.Leave, Channel: ch, User: user})
			break
		}
		if g.users[ch] == nil {
			g.users[ch] = map[string]bool{}
		}
		g.users[ch][user] = false
		g.queue(presence.Op{Kind: presence.Join, Channel: ch, User: user, RawID: `"` + user + `"`, Info: "{}", Want: true})
	case 1:
		n := uint64(s.rng.IntN(4))
		if n != g.counts["news"] {
			g.counts["news"] = n
			g.queue(presence.Op{Kind: presence.Count, Channel: "news", Count: n})
		}
	case 2:
		ch := "#online-" + user
		kind := presence.Online
		if g.online[ch] {
			kind = presence.Offline
			delete(g.online, ch)
		} else {
			g.online[ch] = true
		}
		g.queue(presence.Op{Kind: kind, Channel: ch, User: user})
	}
	g.push()
}

func (g *gw) queue(op presence.Op) {
	op.App = "1"
	g.pending = append(g.pending, op)
}

func (g *gw) askedForSnapshot() {
	if !g.dead && !g.cutOff {
		g.snapshot = true
		g.push()
	}
}

// push sends the next delta if none is in flight.
func (g *gw) push() {
	if g.flight != nil || (len(g.pending) == 0 && !g.snapshot && len(g.rest) == 0) {
		return
	}
	g.seq++
	g.flight = &presence.Delta{Node: g.name, Incarnation: g.inc, Shard: 0, Seq: g.seq}
	if g.snapshot {
		g.flight.Snapshot, g.rest = true, g.all()
		g.snapshot, g.pending = false, nil
	}
	g.cut()
	g.transmit()
}

// cut puts the next part of a snapshot into the delta, and with the last part
// what has changed meanwhile.
func (g *gw) cut() {
	n := len(g.rest)
	if n > 1 && g.sim.rng.IntN(2) == 0 {
		n = 1 + g.sim.rng.IntN(n-1)
	}
	g.flight.Ops = append(g.flight.Ops, g.rest[:n]...)
	g.rest = g.rest[n:]
	if g.flight.More = len(g.rest) > 0; !g.flight.More {
		g.flight.Ops = append(g.flight.Ops, g.pending...)
		g.rest, g.pending = nil, nil
	}
}

// all is the gateway's whole state; joins that wait for an answer say so.
func (g *gw) all() []presence.Op {
	var ops []presence.Op
	for _, ch := range sorted(g.users) {
		for _, u := range sorted(g.users[ch]) {
			ops = append(ops, presence.Op{
				Kind: presence.Join, App: "1", Channel: ch, User: u, RawID: `"` + u + `"`, Info: "{}", Want: !g.users[ch][u],
			})
		}
	}
	for _, ch := range sorted(g.counts) {
		ops = append(ops, presence.Op{Kind: presence.Count, App: "1", Channel: ch, Count: g.counts[ch]})
	}
	for _, ch := range sorted(g.online) {
		ops = append(ops, presence.Op{Kind: presence.Online, App: "1", Channel: ch})
	}
	return ops
}

func (g *gw) transmit() {
	s := g.sim
	g.tries++
	to := fmt.Sprintf("%s %s %d %d", g.name, g.inc, g.flight.Seq, g.tries)
	data := presence.AppendDelta(nil, g.flight)
	s.logf("gateway %s sends %d snapshot %v: %v", g.name, g.flight.Seq, g.flight.Snapshot, g.flight.Ops)
	s.send(func() {
		if !g.cutOff && (!g.dead || !s.calm) {
			s.deliver(data, to)
		}
	})
	tries := g.tries
	s.after(400, func() {
		if !g.dead && g.flight != nil && g.tries == tries {
			g.transmit()
		}
	})
}

func gwOf(to string) string { return strings.Fields(to)[0] }

// receive takes the answer to the latest try; later ones are dropped, as a
// request's inbox does.
func (g *gw) receive(to string, data []byte) {
	if g.dead || g.cutOff || g.flight == nil || to != fmt.Sprintf("%s %s %d %d", g.name, g.inc, g.flight.Seq, g.tries) {
		return
	}
	reply, err := presence.ParseReply(data)
	if err != nil {
		g.sim.failf("reply: %v", err)
		return
	}
	switch reply.Status {
	case presence.NotOwner:
		return // the timer sends it again
	case presence.Resync:
		g.snapshot = true
		g.pending, g.rest = nil, nil // the snapshot has it all
	case presence.OK:
		g.answered(reply.Results)
	}
	g.flight = nil
	g.push()
}

// answered settles the joins of the delta in flight.
func (g *gw) answered(results []presence.Result) {
	for i, op := range g.flight.Ops {
		if !op.Want {
			continue
		}
		res := results[0]
		results = results[1:]
		later := append(slices.Clone(g.flight.Ops[i+1:]), append(slices.Clone(g.rest), g.pending...)...)
		again := slices.ContainsFunc(later, func(o presence.Op) bool { return o.Kind == presence.Join && o.User == op.User })
		_, in := g.users[op.Channel][op.User]
		switch {
		case !in || again: // left, or the later join decides
		case res.Full:
			delete(g.users[op.Channel], op.User)
		default:
			g.users[op.Channel][op.User] = true
			g.expectSelf(op, res)
		}
	}
}

// expectSelf checks a roster: it is never older than the joiner.
func (g *gw) expectSelf(op presence.Op, res presence.Result) {
	for _, m := range res.Members {
		if m.ID == op.User {
			return
		}
	}
	g.sim.failf("gateway %s: roster of %s lacks the joiner %s: %v", g.name, op.Channel, op.User, res.Members)
}
