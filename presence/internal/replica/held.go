package replica

import (
	"cmp"
	"slices"

	"github.com/carillon-rt/carillon/proto/presence"
)

// held are the deltas that the owner may not have applied or answered, in
// order of arrival.
type held []pending

// pending is a delta and the reply subject of who waits for its answer.
type pending struct {
	delta presence.Delta
	to    string
}

func (p *pending) isOf(node string) bool { return p.delta.Node == node }

// again takes a delta that is held already, and was sent once more; else it
// says how many of its gateway are held.
func (h held) again(d *presence.Delta, to string) (known bool, n int) {
	for i := range h {
		p := &h[i]
		if !p.isOf(d.Node) {
			continue
		}
		if p.delta.Incarnation == d.Incarnation && p.delta.Seq == d.Seq {
			p.to = to
			return true, 0
		}
		n++
	}
	return false, n
}

// drop forgets what is held of a gateway.
func (h *held) drop(node string) {
	*h = slices.DeleteFunc(*h, func(p pending) bool { return p.isOf(node) })
}

// dropRun forgets what is held of one run of a gateway and those before it.
func (h *held) dropRun(m presence.Mark) {
	*h = slices.DeleteFunc(*h, func(p pending) bool { return p.isOf(m.Node) && p.delta.Incarnation <= m.Incarnation })
}

// take gives what is held up to a mark, in order, and forgets it, with what
// earlier runs had sent. A snapshot makes what came before it needless.
func (h *held) take(m presence.Mark) (due []presence.Delta) {
	kept := (*h)[:0]
	for _, p := range *h {
		d := &p.delta
		switch {
		case d.Node != m.Node, d.Incarnation > m.Incarnation, d.Incarnation == m.Incarnation && d.Seq > m.Seq:
			kept = append(kept, p)
		case d.Incarnation == m.Incarnation:
			due = append(due, *d)
		}
	}
	clear((*h)[len(kept):])
	*h = kept
	slices.SortFunc(due, func(a, b presence.Delta) int { return cmp.Compare(a.Seq, b.Seq) })
	if n := len(due); n > 0 && due[n-1].Snapshot {
		due = due[n-1:]
	}
	return due
}
