package replica

import (
	"github.com/carillon-rt/carillon/presence/internal/state"
	"github.com/carillon-rt/carillon/proto/presence"
)

// draft is what to tell the other nodes at the end of the turn.
type draft struct {
	presence.Note
	unsaid bool // it holds something
}

// owner says that this node is the owner, with what it has done.
func (d *draft) owner() { d.Owner, d.unsaid = true, true }

// all says everything that the standby should have.
func (d *draft) all(s *state.Shard) {
	d.Applied, d.Full = s.Marks(), true
	d.owner()
}

// claim says that this node is to own the shard, and whom it knows.
func (d *draft) claim(s *state.Shard) {
	d.Claim, d.Ready, d.unsaid = true, !s.Incomplete(), true
	d.Applied = followed(s)
}

// requests are those for snapshots.
type requests struct {
	shard int
	at    map[string]int64 // when each gateway was asked last, or began to send
}

// ask requests a snapshot, not too often from the same gateway.
func (r *requests) ask(node string, nowMs int64, out *Output) {
	if last, ok := r.at[node]; ok && nowMs-last < askMs {
		return
	}
	r.at[node] = nowMs
	out.Asks = append(out.Asks, Ask{Node: node, Shard: r.shard})
}

func (r *requests) askAll(nodes []string, nowMs int64, out *Output) {
	for _, node := range nodes {
		r.ask(node, nowMs, out)
	}
}

// askAwaited asks those that have not reported, again and again.
func (r *requests) askAwaited(s *state.Shard, nowMs int64, out *Output) {
	if s.Waiting(nowMs) {
		r.askAll(s.Awaited(), nowMs, out)
	}
}

// askStrangers asks the live gateways of which the owner knows nothing, again
// and again: one that was taken for dead is there again, and may have nothing
// new to tell.
func (r *requests) askStrangers(live []string, s *state.Shard, nowMs int64, out *Output) {
	for _, node := range live {
		if !s.Followed(node) {
			r.ask(node, nowMs, out)
		}
	}
}

// askLagging asks the gateways whose deltas the owner has and this node misses.
func (r *requests) askLagging(l lags, s *state.Shard, nowMs int64, out *Output) {
	for node, late := range l {
		switch {
		case has(s, late.Mark):
			delete(l, node)
		case nowMs-late.sinceMs >= lagMs:
			r.ask(node, nowMs, out)
		}
	}
}
