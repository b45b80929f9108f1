package replica

import (
	"slices"

	"github.com/carillon-rt/carillon/presence/internal/state"
	"github.com/carillon-rt/carillon/proto/presence"
)

// notes are, by gateway and in order, the deltas that another owner has
// announced and this node may not have seen.
type notes map[string][]presence.Mark

// add remembers a delta that the owner has applied and announced.
func (n notes) add(m presence.Mark) {
	marks := n[m.Node]
	if last := len(marks); last > 0 && !before(marks[last-1], m.Incarnation, m.Seq) {
		return // of a full note, which says it again
	}
	if len(marks) >= notedMax {
		marks = slices.Delete(marks, 0, 1)
	}
	n[m.Node] = append(marks, m)
}

// knowledge is what is known of a delta.
type knowledge uint8

const (
	unheard   knowledge = iota // no owner has said that it was announced
	announced                  // one has, with what it refused
	uncertain                  // one has, and what it refused was not heard: only a snapshot tells
)

// of says what owners have said of a delta, and which of its Join operations
// were refused.
func (n notes) of(d *presence.Delta) (refused []int, k knowledge) {
	marks := n[d.Node]
	for len(marks) > 0 && before(marks[0], d.Incarnation, d.Seq) {
		marks = marks[1:]
	}
	n[d.Node] = marks
	switch {
	case len(marks) == 0:
		delete(n, d.Node)
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
func has(s *state.Shard, m presence.Mark) bool {
	own, ok := s.Mark(m.Node)
	return ok && (own.Incarnation > m.Incarnation || (own.Incarnation == m.Incarnation && own.Seq >= m.Seq))
}

// followed are the marks of the gateways that are known wholly.
func followed(s *state.Shard) []presence.Mark {
	return slices.DeleteFunc(s.Marks(), func(m presence.Mark) bool { return !s.Followed(m.Node) })
}

// missing lists the gateways of a full note whose whole state has not come:
// what others will send is new to the owner as well.
func missing(s *state.Shard, n *presence.Note) []string {
	var nodes []string
	for _, m := range n.Applied {
		if !s.Followed(m.Node) {
			nodes = append(nodes, m.Node)
		}
	}
	return nodes
}

// covers says whether the sender of a note knows all of the gateways that this
// node knows: what it does not know of a dead one would never be missed.
func covers(n *presence.Note, s *state.Shard) bool {
	known := make(map[string]string, len(n.Applied))
	for _, m := range n.Applied {
		known[m.Node] = m.Incarnation
	}
	for _, m := range s.Marks() {
		if known[m.Node] < m.Incarnation {
			return false
		}
	}
	return true
}

// lags are, by gateway, the marks that were noted and not seen.
type lags map[string]lagging

type lagging struct {
	presence.Mark
	sinceMs int64
}
