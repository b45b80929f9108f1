package replica

import (
	"cmp"
	"slices"

	"github.com/carillon-rt/carillon/proto/presence"
)

// Note takes what another node said of the shard.
func (r *Replica) Note(n *presence.Note, nowMs int64, out *Output) {
	if r.role == None || n.Node == r.self.Node {
		return
	}
	r.awake(nowMs)
	r.shard.RaiseVersion(n.Version)
	switch {
	case r.role == Owner && n.Claim:
		r.claimed(n, nowMs)
	case r.role == Owner && n.Owner:
		r.contested(n, nowMs)
	case r.role == Standby && n.Owner:
		r.follow(n, nowMs, out)
	}
}

// claimed answers a node that wants to own the shard: this one lives, or
// releases it.
func (r *Replica) claimed(n *presence.Note, nowMs int64) {
	if n.Node == r.duty.Owner {
		r.claimantMs = nowMs
		if n.Ready && r.yieldMs > 0 {
			r.yield()
			return
		}
	}
	r.tell()
}

// contested: two nodes own the shard. The younger run steps back; if the
// membership wants it to be the owner it becomes that in good order.
func (r *Replica) contested(n *presence.Note, nowMs int64) {
	switch {
	case n.Next != "": // its last word
	case n.Incarnation > r.self.Incarnation:
		r.tell()
	default:
		r.stepBack(nowMs)
	}
}

// follow is the standby's part: it does what the owner did.
func (r *Replica) follow(n *presence.Note, nowMs int64, out *Output) {
	if r.Claiming() {
		r.claimMs = nowMs + ClaimMs      // the owner lives and will release
		r.shard.Tick(nowMs, r.discard()) // and sends what was put off
	}
	for _, m := range n.Applied {
		r.applied(m, nowMs, out)
	}
	for _, m := range n.Gone {
		r.forget(m, nowMs)
	}
	if n.Full {
		r.compareAll(n, nowMs)
	}
	if n.Next == r.self.Node {
		r.releasedBy = n.Incarnation
		r.shard.AwaitOnly(r.missing(n))
		r.promote(nowMs, out)
	}
}

// applied follows the owner up to the mark. A snapshot makes what came before
// it needless.
func (r *Replica) applied(m presence.Mark, nowMs int64, out *Output) {
	r.noted[m.Node] = m
	kept := r.held[:0]
	var due []presence.Delta
	for _, h := range r.held {
		d := &h.delta
		switch {
		case d.Node != m.Node, d.Incarnation > m.Incarnation, d.Incarnation == m.Incarnation && d.Seq > m.Seq:
			kept = append(kept, h)
		case d.Incarnation == m.Incarnation:
			due = append(due, *d)
		}
	}
	clear(r.held[len(kept):])
	r.held = kept
	slices.SortFunc(due, func(a, b presence.Delta) int { return cmp.Compare(a.Seq, b.Seq) })
	if n := len(due); n > 0 && due[n-1].Snapshot {
		due = due[n-1:]
	}
	for i := range due {
		if own, ok := r.shard.Mark(m.Node); !ok || own.Incarnation != m.Incarnation || own.Seq < due[i].Seq {
			r.confirm(&due[i], m, nowMs, out)
		}
	}
	if _, known := r.lag[m.Node]; !known && !r.has(m) {
		r.lag[m.Node] = lagging{m, nowMs}
	}
}

// has says whether the state holds all up to the mark.
func (r *Replica) has(m presence.Mark) bool {
	own, ok := r.shard.Mark(m.Node)
	return ok && (own.Incarnation > m.Incarnation || (own.Incarnation == m.Incarnation && own.Seq >= m.Seq))
}

// forget follows the owner's eviction of one run of a gateway.
func (r *Replica) forget(m presence.Mark, nowMs int64) {
	r.held = slices.DeleteFunc(r.held, func(h held) bool { return h.isOf(m.Node) && h.delta.Incarnation <= m.Incarnation })
	if r.shard.Evict(m.Node, m.Incarnation, nowMs, r.discard()) {
		delete(r.noted, m.Node)
		delete(r.lag, m.Node)
	}
}

// missing lists the gateways of a full note whose whole state has not come:
// what others will send is new to the owner as well.
func (r *Replica) missing(n *presence.Note) []string {
	var nodes []string
	for _, m := range n.Applied {
		if !r.shard.Followed(m.Node) {
			nodes = append(nodes, m.Node)
		}
	}
	return nodes
}

// compareAll drops gateways that the owner does not have.
func (r *Replica) compareAll(n *presence.Note, nowMs int64) {
	listed := make(map[string]struct{}, len(n.Applied))
	for _, m := range n.Applied {
		listed[m.Node] = struct{}{}
	}
	for _, m := range r.shard.Marks() {
		if _, ok := listed[m.Node]; !ok {
			r.forget(m, nowMs) // its state came from a note of the owner: it is older than this one
		}
	}
}
