package edge

import (
	"github.com/carillon-rt/carillon/gateway/internal/hub"
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
	h.stats.publications.Add(uint64(len(turn)))
	special := h.special(ch)
	for i := range ch.Groups {
		g := &ch.Groups[i]
		h.stats.deliveries.Add(uint64(len(turn)) * uint64(len(g.Slots)))
		frame := joined(turn, g.Encoding)
		if frame == nil {
			continue
		}
		if len(special) == 0 {
			for _, slot := range g.Slots {
				h.loop.ConnAt(slot).SendShared(frame)
			}
			continue
		}
		for _, slot := range g.Slots {
			if contains(special, slot) {
				h.sendSome(ch, slot, g.Encoding)
			} else {
				h.loop.ConnAt(slot).SendShared(frame)
			}
		}
	}
	h.table.Expanded(ch)
}

// special lists the slots that may not get all of the turn: excluded
// connections, and subscribers that were told a part of it already.
func (h *handler) special(ch *hub.Channel) []int32 {
	var slots []int32
	for _, d := range ch.Turn() {
		if d.Excludes && int(d.Exclude.Loop) == h.index {
			slots = append(slots, d.Exclude.Slot)
		}
	}
	return ch.AppendFloored(slots)
}

func contains(slots []int32, slot int32) bool {
	for _, s := range slots {
		if s == slot {
			return true
		}
	}
	return false
}

// sendSome sends to slot what of the turn is meant for it.
func (h *handler) sendSome(ch *hub.Channel, slot int32, enc uint8) {
	c := h.loop.ConnAt(slot)
	for _, d := range ch.Turn() {
		f := d.Frames[enc]
		if f == nil || (d.Excludes && d.Exclude == c.Handle()) || ch.Skips(slot, d) {
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
