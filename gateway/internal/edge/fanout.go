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
	for i := range ch.Groups {
		g, floors := &ch.Groups[i], ch.Floors(i)
		h.stats.deliveries.Add(uint64(len(turn)) * uint64(len(g.Slots)))
		frame := joined(turn, g.Encoding)
		switch {
		case frame == nil:
		case len(excluded) > 0 || floors != nil:
			h.expandSome(g, turn, frame, excluded, floors)
		default:
			for _, slot := range g.Slots {
				h.loop.ConnAt(slot).SendShared(frame)
			}
		}
	}
}

// expandSome is for groups with subscribers that may not get all of the turn:
// connections that are excluded, or were told a part of it already.
func (h *handler) expandSome(g *hub.Group, turn []*hub.Delivery, frame *hub.Frame, excluded []int32, floors []hub.Floor) {
	for i, slot := range g.Slots {
		c, floor := h.loop.ConnAt(slot), hub.Floor{}
		if floors != nil {
			floor = floors[i]
		}
		if floor != (hub.Floor{}) || slices.Contains(excluded, slot) {
			sendSome(c, turn, g.Encoding, floor)
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
		f := d.Frames[enc]
		if f == nil || (d.Excludes && d.Exclude == c.Handle()) || !floor.Passes(d) {
			continue
		}
		c.SendShared(f)
	}
}

// joined is one frame with everything of the turn in an encoding, nil if
// there is nothing.
func joined(turn []*hub.Delivery, enc uint8) *hub.Frame {
	var first *hub.Frame
	n, size := 0, 0
	for _, d := range turn {
		if f := d.Frames[enc]; f != nil {
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
		if f := d.Frames[enc]; f != nil {
			bytes = append(bytes, f.Bytes...)
		}
	}
	return &hub.Frame{Bytes: bytes}
}
