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
		r.owner = presence.Mark{Node: n.Node, Incarnation: n.Incarnation}
		r.follow(n, nowMs, out)
	case r.Claiming() && n.Claim:
		if r.comesAfter(n) {
			r.claimMs = max(r.claimMs, nowMs+QuietMs)
		}
	case r.role == Standby && n.Claim:
		r.replace(n, nowMs, out)
	}
}

// comesAfter says whether this node lets another one have the shard when both
// claim it: one that knows more gateways, or else the older run.
func (r *Replica) comesAfter(n *presence.Note) bool {
	known := len(followed(r.shard))
	if len(n.Applied) != known {
		return len(n.Applied) > known
	}
	return younger(r.self, n)
}

// younger says whether a run began after that of the sender.
func younger(self presence.Mark, n *presence.Note) bool {
	return cmp.Or(cmp.Compare(n.Incarnation, self.Incarnation), cmp.Compare(n.Node, self.Node)) < 0
}

// replace takes the shard when the owner that this standby has followed is
// there again, as another run that knows nothing: this node knows everything,
// and hands the shard over in good order.
func (r *Replica) replace(n *presence.Note, nowMs int64, out *Output) {
	if n.Node != r.owner.Node || n.Incarnation <= r.owner.Incarnation || r.shard.Incomplete() {
		return
	}
	r.promote(nowMs, out)
	r.yieldMs, r.claimantMs = nowMs+YieldMs, nowMs
}

// claimed answers a node that wants to own the shard: this one lives, or
// releases it.
func (r *Replica) claimed(n *presence.Note, nowMs int64) {
	if n.Node == r.duty.Owner {
		r.claimantMs = nowMs
		if n.Ready && r.yieldMs > 0 && covers(n, r.shard) {
			r.yield()
			return
		}
	}
	r.note.owner()
}

// contested: two nodes own the shard. The younger run steps back; if the
// membership wants it to be the owner it becomes that in good order.
func (r *Replica) contested(n *presence.Note, nowMs int64) {
	switch {
	case n.Next != "": // its last word
	case younger(r.self, n):
		r.stepBack(nowMs)
	default:
		r.note.owner()
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
		r.released(n, nowMs, out)
	}
}

// released makes this node the owner, as soon as what the owner before it has
// applied has come here: taken later it would not mean the same.
func (r *Replica) released(n *presence.Note, nowMs int64, out *Output) {
	r.releasedBy = n.Incarnation
	r.shard.AwaitOnly(missing(r.shard, n))
	for _, m := range n.Applied {
		if r.shard.Followed(m.Node) && !has(r.shard, m) {
			r.due = append(r.due, m)
		}
	}
	if r.claimMs = nowMs + settleMs; len(r.due) == 0 {
		r.promote(nowMs, out)
	}
}

// settle promotes the node once all that was due has come.
func (r *Replica) settle(nowMs int64, out *Output) {
	if len(r.due) == 0 {
		return
	}
	if r.due = slices.DeleteFunc(r.due, func(m presence.Mark) bool { return has(r.shard, m) }); len(r.due) == 0 {
		r.promote(nowMs, out)
	}
}

// applied follows the owner up to the mark.
func (r *Replica) applied(m presence.Mark, nowMs int64, out *Output) {
	if has(r.shard, m) {
		return
	}
	r.noted.add(m)
	due := r.held.take(m)
	for i := range due {
		switch refused, k := r.noted.of(&due[i]); k {
		case announced:
			r.confirm(&due[i], refused, nowMs, out)
		case uncertain:
			r.asked.ask(m.Node, nowMs, out)
		}
	}
	if _, known := r.lag[m.Node]; !known && !has(r.shard, m) {
		r.lag[m.Node] = lagging{m, nowMs}
	}
}

// forget follows the owner's eviction of one run of a gateway.
func (r *Replica) forget(m presence.Mark, nowMs int64) {
	r.held.dropRun(m)
	if r.shard.Evict(m.Node, m.Incarnation, nowMs, r.discard()) {
		delete(r.noted, m.Node)
		delete(r.lag, m.Node)
	}
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
