package replica_test

import (
	"fmt"
	"maps"
	"slices"

	"github.com/carillon-rt/carillon/presence/internal/replica"
	"github.com/carillon-rt/carillon/presence/internal/state"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/presence"
)

// node is a simulated presence node. The lower a name sorts, the heavier it is.
type node struct {
	sim  *sim
	name string
	inc  string
	r    *replica.Replica
	dead bool
	// noteAt is when the last note arrives.
	noteAt      int64
	deltaAt     map[string]int64 // of each gateway
	stalledTill int64
	view        []string // "name incarnation" of the presence nodes that it sees
	seen        int      // number of the view
}

func (s *sim) addNode(name string) {
	s.lastOp = s.now
	n := &node{sim: s, name: name, inc: fmt.Sprintf("%08d", s.now), deltaAt: map[string]int64{}}
	n.r = replica.New(name, n.inc, state.Config{App: func(string) *app.App { return s.app }})
	s.nodes[name] = n
	s.logf("node %s starts", name)
	n.tick()
	if s.chaos.gossip && s.cuts.IntN(2) == 0 {
		n.view = []string{name + " " + n.inc}
		n.assign()
	}
	s.spreadView()
}

// leaveNode stops a node in good order: it releases, the membership follows.
func (s *sim) leaveNode(name string) {
	s.lastOp = s.now
	n := s.nodes[name]
	delete(s.nodes, name)
	heir := ""
	for _, other := range sorted(s.nodes) {
		if heir == "" {
			heir = other
		}
	}
	s.logf("node %s leaves to %s", name, heir)
	var out replica.Output
	n.r.Release(heir, s.now, &out)
	n.flush(&out)
	n.dead = true
	s.spreadView()
}

func (s *sim) crashNode(name string) {
	s.lastOp = s.now
	s.logf("node %s dies", name)
	s.nodes[name].dead = true
	delete(s.nodes, name)
	s.after(1500, s.spreadView)
	if s.cuts.IntN(2) == 0 { // its supervisor is faster than the membership
		s.after(100+s.cuts.Int64N(1400), func() {
			if s.nodes[name] == nil {
				s.addNode(name)
			}
		})
	}
}

// spreadView lets every node see the nodes of now, each a bit later.
func (s *sim) spreadView() { s.spread("", s.view()) }

// spread shows a view to all nodes but one, each a bit later.
func (s *sim) spread(but string, view []string) {
	s.views++
	number := s.views
	for _, name := range sorted(s.nodes) {
		if name == but {
			continue
		}
		n := s.nodes[name]
		// A node that leaves has flushed its last note before it tells the membership.
		delay := 20 + s.rng.Int64N(280)
		s.after(delay, func() {
			if number > n.seen { // gossip does not go back
				n.view, n.seen = view, number
				n.do(n.assign)
			}
		})
	}
}

// do runs something at the node, when it stands still as soon as it moves again.
func (n *node) do(run func()) {
	if n.sim.now < n.stalledTill {
		n.sim.after(n.stalledTill-n.sim.now, func() { n.do(run) })
		return
	}
	run()
}

// view is the presence nodes of now.
func (s *sim) view() []string {
	var view []string
	for _, name := range sorted(s.nodes) {
		view = append(view, name+" "+s.nodes[name].inc)
	}
	return view
}

// assign is what the driver makes of a membership.
func (n *node) assign() {
	if n.dead {
		return
	}
	var names, incs []string
	for _, v := range n.view {
		var name, inc string
		fmt.Sscan(v, &name, &inc)
		names, incs = append(names, name), append(incs, inc)
	}
	rank := slices.Index(names, n.name)
	d := replica.Duty{Owner: names[0], Incarnation: incs[0]}
	switch rank {
	case 0:
		d.Role = replica.Owner
		if len(names) > 1 {
			d.Heir = names[1]
		}
	case 1:
		d.Role = replica.Standby
	}
	var out replica.Output
	n.r.Assign(d, n.sim.alive(), n.sim.now, &out)
	n.flush(&out)
}

func (n *node) tick() {
	if n.dead {
		return
	}
	n.sim.after(50, func() { n.do(n.tick) })
	var out replica.Output
	n.r.Tick(n.sim.now, &out)
	for _, m := range n.r.Suspects(func(name string) (string, bool) {
		g := n.sim.gws[name]
		if g == nil || g.gone {
			return "", false
		}
		return g.inc, true
	}) {
		if n.sim.now-n.sim.died[m.Node+" "+m.Incarnation] < 100 {
			continue // what it has sent is still on its way
		}
		n.r.Evict(m.Node, m.Incarnation, n.sim.now, &out)
	}
	n.flush(&out)
}

// flush does what the driver does with an output.
func (n *node) flush(out *replica.Output) {
	s := n.sim
	s.announce(n.name, out.Effects)
	for _, reply := range out.Replies {
		data := presence.AppendReply(nil, &reply.Reply)
		s.send(func() {
			if g := s.gws[gwOf(reply.To)]; g != nil {
				g.receive(reply.To, data)
			}
		})
	}
	for _, ask := range out.Asks {
		if g := s.gws[ask.Node]; g != nil {
			s.after(s.delay(), g.askedForSnapshot)
		}
	}
	note, ok := n.r.TakeNote()
	if !ok {
		return
	}
	s.logf("%s notes %+v", n.name, note)
	// One subject keeps its order; a connection is not lossy while it lives.
	n.noteAt = max(n.noteAt, s.now+s.delay())
	for _, name := range sorted(s.nodes) {
		other := s.nodes[name]
		s.after(n.noteAt-s.now, func() {
			other.do(func() { other.noted(&note) })
		})
	}
}

// deliver gives a delta to all that listen, as a subject does.
func (s *sim) deliver(data []byte, to string) {
	for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
		n := s.nodes[name]
		at := s.now + s.rng.Int64N(3) + s.cuts.Int64N(20)
		from := gwOf(to)
		n.deltaAt[from] = max(n.deltaAt[from], at) // one connection keeps its order
		s.after(n.deltaAt[from]-s.now, func() {
			n.do(func() { n.take(data, to) })
		})
	}
}

func (n *node) take(data []byte, to string) {
	if n.dead || n.r.Role() == replica.None {
		return
	}
	n.sim.logf("%s takes from %s", n.name, to)
	d, err := presence.ParseDelta(data)
	if err != nil {
		n.sim.failf("delta: %v", err)
		return
	}
	var out replica.Output
	n.r.Delta(d, to, n.sim.now, &out)
	n.flush(&out)
}

func (n *node) noted(note *presence.Note) {
	if n.dead {
		return
	}
	var out replica.Output
	n.r.Note(note, n.sim.now, &out)
	n.flush(&out)
}
