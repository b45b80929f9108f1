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
	known := len(r.followed())
	if len(n.Applied) != known {
		return len(n.Applied) > known
	}
	return r.younger(n)
}

// younger says whether this run began after that of the sender.
func (r *Replica) younger(n *presence.Note) bool {
	return cmp.Or(cmp.Compare(n.Incarnation, r.self.Incarnation), cmp.Compare(n.Node, r.self.Node)) < 0
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
		if n.Ready && r.yieldMs > 0 && r.knownTo(n) {
			r.yield()
			return
		}
	}
	r.tell()
}

// knownTo says whether the claimant knows all of the gateways that this node
// knows: what it does not know of a dead one would never be missed.
func (r *Replica) knownTo(n *presence.Note) bool {
	known := make(map[string]string, len(n.Applied))
	for _, m := range n.Applied {
		known[m.Node] = m.Incarnation
	}
	for _, m := range r.shard.Marks() {
		if known[m.Node] < m.Incarnation {
			return false
		}
	}
	return true
}

// contested: two nodes own the shard. The younger run steps back; if the
// membership wants it to be the owner it becomes that in good order.
func (r *Replica) contested(n *presence.Note, nowMs int64) {
	switch {
	case n.Next != "": // its last word
	case r.younger(n):
		r.stepBack(nowMs)
	default:
		r.tell()
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
	r.shard.AwaitOnly(r.missing(n))
	for _, m := range n.Applied {
		if r.shard.Followed(m.Node) && !r.has(m) {
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
	if r.due = slices.DeleteFunc(r.due, r.has); len(r.due) == 0 {
		r.promote(nowMs, out)
	}
}

// applied follows the owner up to the mark. A snapshot makes what came before
// it needless.
func (r *Replica) applied(m presence.Mark, nowMs int64, out *Output) {
	if r.has(m) {
		return
	}
	r.noteMark(m)
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
		switch refused, k := r.heard(&due[i]); k {
		case announced:
			r.confirm(&due[i], refused, nowMs, out)
		case uncertain:
			r.ask(m.Node, nowMs, out)
		}
	}
	if _, known := r.lag[m.Node]; !known && !r.has(m) {
		r.lag[m.Node] = lagging{m, nowMs}
	}
}

// noteMark remembers a delta that the owner has applied and announced.
func (r *Replica) noteMark(m presence.Mark) {
	marks := r.noted[m.Node]
	if n := len(marks); n > 0 && !before(marks[n-1], m.Incarnation, m.Seq) {
		return // of a full note, which says it again
	}
	if len(marks) >= notedMax {
		marks = slices.Delete(marks, 0, 1)
	}
	r.noted[m.Node] = append(marks, m)
}

// knowledge is what is known of a delta.
type knowledge uint8

const (
	unheard   knowledge = iota // no owner has said that it was announced
	announced                  // one has, with what it refused
	uncertain                  // one has, and what it refused was not heard: only a snapshot tells
)

// heard says what owners have said of a delta, and which of its Join
// operations were refused.
func (r *Replica) heard(d *presence.Delta) (refused []int, k knowledge) {
	marks := r.noted[d.Node]
	for len(marks) > 0 && before(marks[0], d.Incarnation, d.Seq) {
		marks = marks[1:]
	}
	r.noted[d.Node] = marks
	switch {
	case len(marks) == 0:
		delete(r.noted, d.Node)
		return nil, unheard
	case marks[0].Incarnation != d.Incarnation:
		return nil, unheard
	case marks[0].Seq != d.Seq:
		return nil, uncertain
	}
	return marks[0].Refused, announced
}

// before says whether a mark is of an earlier delta.
func before(m presence.Mark, incarnation string, seq uint64) bool {
	return m.Incarnation < incarnation || m.Incarnation == incarnation && m.Seq < seq
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
