package replica

import (
	"github.com/carillon-rt/carillon/presence/internal/state"
	"github.com/carillon-rt/carillon/proto/presence"
)

// Assign follows the membership. gateways are the nodes of the live gateways.
func (r *Replica) Assign(d Duty, gateways []string, nowMs int64, out *Output) {
	r.awake(nowMs)
	r.gateways, r.duty = gateways, d
	if r.shard != nil {
		r.shard.AwaitOnly(gateways)
		for _, node := range r.shard.AwaitNew(gateways, nowMs) {
			r.asked.ask(node, nowMs, out)
		}
	}
	if d.Role == Owner {
		r.releasedBy, r.yieldMs = "", 0
		r.own(d, nowMs, out)
		return
	}
	if len(r.due) > 0 {
		return // about to be the owner, whatever the membership says
	}
	r.claimMs = 0
	switch {
	case r.role == Owner:
		if r.releasedBy == d.Incarnation && r.releasedBy != "" {
			return // the owner has left this to us; the membership will follow
		}
		if r.yieldMs == 0 {
			r.yieldMs, r.fullAt = nowMs+YieldMs, nowMs
		}
	case d.Role == Standby:
		r.start(nowMs, out)
		r.role = Standby
	default:
		r.stop()
	}
}

// yield hands the shard to the node whose duty it is.
func (r *Replica) yield() {
	r.release(r.duty.Owner)
	r.yieldMs, r.releasedBy = 0, ""
	r.role = Standby
	if r.duty.Role == None {
		r.stop()
	}
}

// awake notes that the node runs. An owner that stood still may have been
// taken for dead: it is the owner again when nobody else turns out to be.
func (r *Replica) awake(nowMs int64) {
	if r.role == Owner && nowMs-r.awakeMs > stallMs && !r.duty.Sole {
		r.stepBack(nowMs)
	}
	r.awakeMs = nowMs
}

// stepBack makes the owner a standby, which claims the shard if that is its
// duty.
func (r *Replica) stepBack(nowMs int64) {
	r.role, r.yieldMs, r.releasedBy = Standby, 0, ""
	clear(r.noted)
	switch r.duty.Role {
	case Owner:
		r.claim(nowMs, QuietMs)
	case None:
		r.stop()
	}
}

// stop forgets everything but the note that is to be sent.
func (r *Replica) stop() {
	r.role = None
	r.shard, r.held, r.noted, r.due, r.lag, r.asked.at = nil, nil, nil, nil, nil, nil
}

// own makes this node the owner, unless another one is: nobody hears of a
// death and of a birth at the same time as everybody else.
func (r *Replica) own(d Duty, nowMs int64, out *Output) {
	fresh := r.role == None
	if fresh {
		r.start(nowMs, out)
		r.role = Standby
	}
	switch {
	case r.role == Owner:
	case d.Sole:
		r.promote(nowMs, out)
	case !r.Claiming() && fresh && d.Heir != "":
		r.claim(nowMs, ClaimMs)
	case !r.Claiming():
		r.claim(nowMs, QuietMs)
	case d.Heir == "":
		r.claimMs = min(r.claimMs, nowMs+QuietMs)
	}
}

// claim makes the standby the owner when it has heard nothing of another one
// for so long.
func (r *Replica) claim(nowMs, patienceMs int64) {
	r.claimMs = nowMs + patienceMs
	r.sayClaim(nowMs)
}

func (r *Replica) sayClaim(nowMs int64) {
	r.claimAt = nowMs + claimEveryMs
	r.note.claim(r.shard)
}

// start makes the state, if there is none, and has the gateways fill it.
func (r *Replica) start(nowMs int64, out *Output) {
	if r.shard != nil {
		return
	}
	r.shard, r.owner = state.New(r.cfg), presence.Mark{}
	r.noted, r.lag, r.asked.at = notes{}, lags{}, map[string]int64{}
	r.shard.Await(r.gateways, nowMs)
	r.asked.askAll(r.gateways, nowMs, out)
}

// promote makes the standby the owner. What it holds was announced and
// answered by nobody for sure, so both are done now. If gateways have never
// reported, what they had is still unknown: the window begins.
func (r *Replica) promote(nowMs int64, out *Output) {
	r.role = Owner
	r.due = nil
	r.claimMs, r.note.Claim, r.note.Ready = 0, false, false
	r.fullAt = nowMs + FullNoteMs
	r.shard.Own(nowMs)
	if r.shard.Incomplete() {
		r.shard.Await(r.gateways, nowMs)
	}
	heldBack := r.held
	r.held = nil
	for i := range heldBack {
		h := &heldBack[i]
		r.answer(&h.delta, h.to, nowMs, out)
	}
	clear(r.asked.at)
	r.asked.askAll(r.gateways, nowMs, out)
	clear(r.lag)
	r.note.all(r.shard)
}

// release tells the next owner to take over.
func (r *Replica) release(next string) {
	r.note.all(r.shard)
	r.note.Next, r.note.Version = next, r.shard.Version()
}

// Heir is the node that owns the shard once this one is gone, "" if there is
// none.
func (r *Replica) Heir() string {
	if r.duty.Role == Owner {
		return r.duty.Heir
	}
	return r.duty.Owner
}

// Release ends the ownership because this node stops: heir takes over, with
// what is held back. Without an heir that is sent now.
func (r *Replica) Release(heir string, nowMs int64, out *Output) {
	if r.role == Owner {
		r.release(heir)
		if heir == "" {
			r.shard.Close(nowMs, &out.Effects)
		}
	}
	r.role = None
}

// Tick does what is due.
func (r *Replica) Tick(nowMs int64, out *Output) {
	r.awake(nowMs)
	switch r.role {
	case Owner:
		r.shard.Tick(nowMs, &out.Effects)
		r.asked.askAwaited(r.shard, nowMs, out)
		r.asked.askStrangers(r.gateways, r.shard, nowMs, out)
		if r.yieldMs > 0 && nowMs >= r.yieldMs && nowMs-r.claimantMs < ClaimMs {
			r.yield()
			return
		}
		if nowMs >= r.fullAt {
			r.fullAt = nowMs + FullNoteMs
			if r.yieldMs > 0 {
				r.fullAt = nowMs + yieldingMs
			}
			r.note.all(r.shard)
		}
	case Standby:
		if !r.Claiming() {
			r.shard.Tick(nowMs, r.discard()) // the owner sends these
		}
		r.asked.askLagging(r.lag, r.shard, nowMs, out)
		r.asked.askAwaited(r.shard, nowMs, out)
		r.press(nowMs, out)
	}
}

// press repeats the claim, and takes the shard when the present owner is silent
// for too long.
func (r *Replica) press(nowMs int64, out *Output) {
	switch {
	case !r.Claiming():
	case nowMs >= r.claimMs:
		r.promote(nowMs, out)
	case nowMs >= r.claimAt && len(r.due) == 0:
		r.sayClaim(nowMs)
	}
}

// Recheck makes up for what may have been missed: all gateways are asked for
// snapshots, and an owner may not be the only one any more.
func (r *Replica) Recheck(nowMs int64, out *Output) {
	if r.role == Owner && !r.duty.Sole {
		r.stepBack(nowMs)
	}
	if r.role == Standby {
		r.asked.askAll(r.gateways, nowMs, out)
	}
}

// Suspects lists the runs of gateways in the state that are not alive by the
// membership: live gives the incarnation of a live gateway, which may be an
// earlier one if a clock was put back, or the news is late. Only the owner
// suspects.
func (r *Replica) Suspects(live func(node string) (incarnation string, ok bool)) []presence.Mark {
	if r.role != Owner {
		return nil
	}
	var out []presence.Mark
	for _, m := range r.shard.Marks() {
		if inc, ok := live(m.Node); !ok || inc != m.Incarnation {
			out = append(out, m)
		}
	}
	return out
}
