// Package replica is one presence node's part in one shard: owner, standby or
// none. It decides who answers and announces, and makes sure that exactly one
// does while ownership moves. It is as pure as the state that it wraps: no
// NATS, no clock, no goroutines.
//
// The two heaviest presence nodes of a shard (rendezvous hash) hear all its
// deltas. The owner applies, announces and answers, then tells in notes what
// it has done. The standby holds each delta until a note about it comes, and
// then applies it as the owner did, quietly.
//
//	deltas ──┬──> owner:   apply, announce, answer ── notes ──┐
//	         └──> standby: hold ────────────> apply quietly <─┘
//
// When the owner dies, the standby becomes the owner, once the membership has
// lost it and it does not answer on NATS either: it knows every member
// (also those of gateways that died with the owner), applies, announces and
// answers what it still holds, and has the gateways send snapshots, which show
// what it missed.
// When a heavier node comes up it begins as a standby. As soon as all gateways
// have reported to it, it says that it is ready; the owner then releases the
// shard, and the new one takes over. Either does not wait for ever.
package replica

import (
	"github.com/carillon-rt/carillon/presence/internal/state"
	"github.com/carillon-rt/carillon/proto/presence"
)

const (
	// YieldMs is how long an owner waits for a heavier node that claims the shard
	// to be ready. One that takes over before all gateways have reported to it
	// can't tell what is new.
	YieldMs = 10_000
	// ClaimMs is how long a new owner waits for a note of the one that it knows
	// of: an owner answers a claim, and sends a note every yieldingMs when it is
	// to yield.
	ClaimMs    = 3500
	yieldingMs = 500
	// QuietMs is how long it waits where the membership shows no other owner.
	QuietMs = 600
	// stallMs is how long an owner may stand still: shorter than the membership
	// and QuietMs need to make another one.
	stallMs = 1000
	// settleMs is how long a node to which the shard was released waits for what
	// the owner before it has seen.
	settleMs = 500
	// claimEveryMs is how often a node says that it is to own the shard.
	claimEveryMs = 200
	// FullNoteMs is how often the owner tells the standby everything that it
	// should have, which finds what got lost.
	FullNoteMs = 10_000
	// heldMax bounds the deltas held of one gateway. It has one in flight; more
	// are held only when notes are lost.
	heldMax = 8
	// notedMax bounds the marks that are remembered of one gateway.
	notedMax = 64
	// lagMs is how late a delta may come behind the note about it.
	lagMs = 500
	// askMs is how often one gateway is asked for a snapshot at most.
	askMs = 1000
)

// Role of a node in a shard.
type Role uint8

// Roles.
const (
	None Role = iota
	Standby
	Owner
)

// Duty is what the membership wants of this node for a shard.
type Duty struct {
	Role Role
	// Owner is the node that owns the shard, Incarnation its run.
	Owner, Incarnation string
	// Heir is, for the owner, the node that would own the shard without it;
	// "" if it is alone. A node that becomes owner with nothing in its hands
	// takes over from its heir.
	Heir string
	// Sole: there can't be another node.
	Sole bool
}

// Reply goes to a gateway that waits.
type Reply struct {
	To string // reply subject
	presence.Reply
}

// Output is what must be done, in the order of the fields: announce the
// effects, then answer, then ask gateways for snapshots. The note comes last.
type Output struct {
	Effects []state.Effect
	Replies []Reply
	Asks    []Ask
	// Resyncs counts the deltas that were answered with Resync.
	Resyncs int
}

// Ask is a request for a snapshot.
type Ask struct {
	Node  string
	Shard int
}

// Reset empties the output and keeps its memory.
func (o *Output) Reset() {
	clear(o.Effects)
	clear(o.Replies)
	o.Effects, o.Replies, o.Asks, o.Resyncs = o.Effects[:0], o.Replies[:0], o.Asks[:0], 0
}

// Replica is a node's part in one shard. It belongs to one goroutine.
type Replica struct {
	self  presence.Mark // this node
	cfg   state.Config
	shard *state.Shard // nil with role None

	role Role
	duty Duty
	// claimMs: with a duty of Owner and the role Standby, when to take over at
	// the latest. claimAt is when to say so next.
	claimMs, claimAt int64
	// yieldMs: with another duty and the role Owner, when to release at the
	// latest, if the next owner was heard: at claimantMs.
	yieldMs, claimantMs int64
	awakeMs             int64 // when this was called last
	// releasedBy is the incarnation of the owner that made this standby the
	// owner before the membership did.
	releasedBy string
	owner      presence.Mark   // whom a standby has followed last
	due        []presence.Mark // what must come before it is

	held  held // of a standby
	noted notes
	lag   lags
	asked requests

	note     draft
	fullAt   int64    // when to tell the standby everything again
	gateways []string // the live ones
	nothing  []state.Effect
}

// New returns a replica without a role. node and incarnation are this node's.
func New(node, incarnation string, cfg state.Config) *Replica {
	return &Replica{self: presence.Mark{Node: node, Incarnation: incarnation}, cfg: cfg, asked: requests{shard: cfg.Shard}}
}

// Role is what the node does for the shard now.
func (r *Replica) Role() Role { return r.role }

// Claiming says that the node is to become the owner and waits for a release.
func (r *Replica) Claiming() bool { return r.role == Standby && r.claimMs > 0 }

// Shard is the state, nil without a role.
func (r *Replica) Shard() *state.Shard { return r.shard }

// Delta takes a delta, which it may keep: its strings must alias nothing that
// changes. to is the reply subject.
func (r *Replica) Delta(d presence.Delta, to string, nowMs int64, out *Output) {
	r.awake(nowMs)
	if r.role != None && (d.Snapshot || d.More) {
		r.asked.at[d.Node] = nowMs // it is on its way: another request would start it over
	}
	switch r.role {
	case None:
		out.Replies = append(out.Replies, Reply{To: to, Reply: presence.Reply{Status: presence.NotOwner}})
	case Owner:
		r.answer(&d, to, nowMs, out)
	case Standby:
		r.hold(d, to, nowMs, out)
		r.settle(nowMs, out)
	}
}

func (r *Replica) answer(d *presence.Delta, to string, nowMs int64, out *Output) {
	reply, verdict := r.apply(d, nowMs, out)
	if to != "" {
		out.Replies = append(out.Replies, Reply{To: to, Reply: reply})
	}
	switch verdict {
	case state.Missing:
		out.Resyncs++
	case state.Applied:
		m, _ := r.shard.Mark(d.Node)
		r.note.Applied = append(r.note.Applied, m)
		r.note.owner()
	}
}

// apply announces what a delta brings, unless the owner before this one has.
func (r *Replica) apply(d *presence.Delta, nowMs int64, out *Output) (presence.Reply, state.Verdict) {
	switch refused, k := r.noted.of(d); k {
	case announced:
		return r.shard.ConfirmAnswered(d, refused, nowMs, r.discard())
	case uncertain:
		return presence.Reply{Status: presence.Resync}, state.Missing
	}
	return r.shard.Apply(d, nowMs, &out.Effects)
}

// hold keeps a delta until the owner says that it has applied it.
func (r *Replica) hold(d presence.Delta, to string, nowMs int64, out *Output) {
	if d.Node == "" || d.Seq == 0 {
		return // no gateway sends that
	}
	known, n := r.held.again(&d, to)
	if known {
		return
	}
	switch refused, k := r.noted.of(&d); k {
	case announced: // the note was faster
		r.confirm(&d, refused, nowMs, out)
		return
	case uncertain:
		r.asked.ask(d.Node, nowMs, out)
		return
	}
	if n >= heldMax {
		r.held.drop(d.Node)
		r.asked.ask(d.Node, nowMs, out)
	}
	r.held = append(r.held, pending{delta: d, to: to})
}

// confirm applies what the owner has applied.
func (r *Replica) confirm(d *presence.Delta, refused []int, nowMs int64, out *Output) {
	if r.shard.Confirm(d, refused, nowMs, r.discard()) == state.Missing {
		r.asked.ask(d.Node, nowMs, out)
	}
}

// discard takes effects that others announce.
func (r *Replica) discard() *[]state.Effect {
	r.nothing = r.nothing[:0]
	return &r.nothing
}

// Evict takes a dead gateway out. Only the owner does: the standby hears of it.
func (r *Replica) Evict(node, incarnation string, nowMs int64, out *Output) bool {
	r.awake(nowMs)
	if r.role != Owner || !r.shard.Evict(node, incarnation, nowMs, &out.Effects) {
		return false
	}
	r.note.Gone = append(r.note.Gone, presence.Mark{Node: node, Incarnation: incarnation})
	r.note.owner()
	return true
}

// Query answers for the owner; ok is false when this node is not the owner.
func (r *Replica) Query(q *presence.Query, nowMs int64) (a presence.Answer, ok bool) {
	if r.role != Owner {
		return presence.Answer{}, false
	}
	return r.shard.Query(q, nowMs), true
}

// TakeNote gives what the standby must be told once the output is out, false
// if there is nothing new.
func (r *Replica) TakeNote() (presence.Note, bool) {
	if !r.note.unsaid {
		return presence.Note{}, false
	}
	n := r.note.Note
	n.Node, n.Incarnation = r.self.Node, r.self.Incarnation
	if r.shard != nil {
		n.Version = max(n.Version, r.shard.Version())
	}
	r.note = draft{}
	return n, true
}
