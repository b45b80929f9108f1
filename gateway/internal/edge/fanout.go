package edge

import (
	"slices"

	"github.com/carillon-rt/carillon/gateway/internal/hub"
	"github.com/carillon-rt/carillon/gateway/internal/loop"
)

// arrive takes a delivery for the end of the turn.
func (h *handler) arrive(d *hub.Delivery) {
	if ch := h.table.Arrive(d); ch != nil {
		h.dirty = append(h.dirty, ch)
	}
}

// expand queues the turn's deliveries of a channel to its subscribers: the
// frames of one turn are joined into one, so that a subscriber costs one
// reference whatever their number.
func (h *handler) expand(ch *hub.Channel) {
	turn := ch.Turn()
	if len(turn) == 0 {
		return
	}
	defer h.table.Expanded(ch)
	h.stats.publications.Add(uint64(len(turn)))
	excluded := h.excluded(turn)
	var moves []move
	for i := range ch.Groups {
		g, floors := &ch.Groups[i], ch.Floors(i)
		wanted := h.filters.of(g.Kind).wanted(turn)
		h.stats.deliveries.Add(uint64(len(wanted)) * uint64(len(g.Slots)))
		frame := joined(wanted, g.Kind.Encoding())
		switch {
		case frame == nil:
			continue
		case len(excluded) > 0 || floors != nil:
			h.expandSome(g, wanted, frame, excluded, floors)
		default:
			for _, slot := range g.Slots {
				h.loop.ConnAt(slot).SendShared(frame)
			}
		}
		moves = h.differ(moves, g, wanted, floors)
	}
	for _, m := range moves {
		h.table.Regroup(ch, m.slot, m.to)
	}
}

// expandSome is for groups with subscribers that may not get all of the turn:
// connections that are excluded, or were told a part of it already. Of those
// that get differences, these get all of each publication: they may miss what
// the next one differs from.
func (h *handler) expandSome(g *hub.Group, turn []*hub.Delivery, frame *hub.Frame, excluded []int32, floors []hub.Floor) {
	for i, slot := range g.Slots {
		c, floor := h.loop.ConnAt(slot), hub.Floor{}
		if floors != nil {
			floor = floors[i]
		}
		if floor != (hub.Floor{}) || slices.Contains(excluded, slot) {
			sendSome(c, turn, h.edge.full[g.Kind.Encoding()], floor)
			continue
		}
		c.SendShared(frame)
	}
}

// excluded lists the slots of connections that must not get all of the turn.
func (h *handler) excluded(turn []*hub.Delivery) []int32 {
	var slots []int32
	for _, d := range turn {
		if d.Excludes && int(d.Exclude.Loop) == h.index {
			slots = append(slots, d.Exclude.Slot)
		}
	}
	return slots
}

// sendSome sends to c what is meant for it.
func sendSome(c *loop.Conn, deliveries []*hub.Delivery, enc uint8, floor hub.Floor) {
	for _, d := range deliveries {
		f := d.Frame(enc)
		if f == nil || (d.Excludes && d.Exclude == c.Handle()) || !floor.Passes(d) {
			continue
		}
		c.SendShared(f)
	}
}

// move is a subscriber that changes its group.
type move struct {
	slot int32
	to   hub.Kind
}

// differ moves subscribers that want differences: those that have got the last
// publication of the turn get differences from now on, those that have not get
// all of the next one first.
func (h *handler) differ(moves []move, g *hub.Group, turn []*hub.Delivery, floors []hub.Floor) []move {
	enc := g.Kind.Encoding()
	full := h.edge.full[enc]
	different := h.edge.interest.Differences[full]
	if different == 0 {
		return moves
	}
	last := lastPublication(turn, full)
	if last == nil {
		return moves
	}
	for i, slot := range g.Slots {
		to := different
		if last.Excludes && last.Exclude == h.loop.ConnAt(slot).Handle() || floors != nil && !floors[i].Passes(last) {
			to = full
		}
		if to != enc {
			moves = append(moves, move{slot, hub.KindOf(to, g.Kind.Number())})
		}
	}
	return moves
}

// lastPublication is the last of a turn that has a frame, nil if there is none.
func lastPublication(turn []*hub.Delivery, enc uint8) *hub.Delivery {
	for i := len(turn) - 1; i >= 0; i-- {
		if d := turn[i]; d.Frame(enc) != nil && d.IsPublication() {
			return d
		}
	}
	return nil
}

// joined is one frame with everything of the turn in an encoding, nil if
// there is nothing.
func joined(turn []*hub.Delivery, enc uint8) *hub.Frame {
	var first *hub.Frame
	n, size := 0, 0
	for _, d := range turn {
		if f := d.Frame(enc); f != nil {
			if n == 0 {
				first = f
			}
			n++
			size += len(f.Bytes)
		}
	}
	if n <= 1 {
		return first
	}
	bytes := make([]byte, 0, size)
	for _, d := range turn {
		if f := d.Frame(enc); f != nil {
			bytes = append(bytes, f.Bytes...)
		}
	}
	return &hub.Frame{Bytes: bytes}
}
