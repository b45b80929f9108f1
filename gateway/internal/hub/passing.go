package hub

import (
	"slices"

	"github.com/carillon-rt/carillon/proto/channel"
)

// passing is what a channel has only while something is under way in it. Idle
// channels, which are nearly all, do without.
type passing struct {
	turn  []*Delivery // what arrived in this turn
	holds []*Hold     // subscriptions that are not complete yet
	// floors are subscribers that have been told more than was delivered
	// here. Few and short-lived.
	floors []slotFloor
}

type slotFloor struct {
	slot  int32
	floor Floor
}

const (
	// sparesMax is how many unused passings a table keeps.
	sparesMax = 256
	// turnKept is for how many deliveries these keep room.
	turnKept = 64
)

// passing gives the channel one, if it has none.
func (t *Table) passing(ch *Channel) *passing {
	switch n := len(t.spares); {
	case ch.passing != nil:
	case n > 0:
		ch.passing, t.spares[n-1] = t.spares[n-1], nil
		t.spares = t.spares[:n-1]
	default:
		ch.passing = &passing{}
	}
	return ch.passing
}

// calm takes it back when nothing is under way any more.
func (t *Table) calm(ch *Channel) {
	p := ch.passing
	if p == nil || len(p.turn)+len(p.holds)+len(p.floors) > 0 {
		return
	}
	ch.passing = nil
	if len(t.spares) < sparesMax && cap(p.turn) <= turnKept {
		t.spares = append(t.spares, p)
	}
}

// Hold keeps what arrives for a subscription that is not complete yet.
type Hold struct {
	// Held is what has arrived, oldest first.
	Held []*Delivery
	// Over is set when more arrived than a hold keeps: the subscription has
	// to fail, as it would have a gap.
	Over bool
}

// HeldMax is how many publications a Hold keeps.
const HeldMax = 4096

func (h *Hold) add(d *Delivery) {
	if len(h.Held) >= HeldMax {
		h.Over, h.Held = true, nil
	}
	if !h.Over {
		h.Held = append(h.Held, d)
	}
}

// Hold adds a hold to the channel, creating the channel if need be.
func (t *Table) Hold(key channel.Key, h *Hold) {
	p := t.passing(t.channel(key))
	p.holds = append(p.holds, h)
}

// Release takes a hold back.
func (t *Table) Release(key channel.Key, h *Hold) {
	ch := t.channels[key]
	if ch == nil {
		return
	}
	if p := ch.passing; p != nil {
		if i := slices.Index(p.holds, h); i >= 0 {
			p.holds = slices.Delete(p.holds, i, i+1)
		}
	}
	t.calm(ch)
	t.forget(ch)
}

// Arrive takes a delivery: holds of its channel keep it, and the channel's
// turn collects it for the subscribers. It returns the channel if this is its
// first of the turn: the caller has to expand it and to call Expanded.
func (t *Table) Arrive(d *Delivery) (first *Channel) {
	ch := t.channels[d.Key]
	if ch == nil {
		return nil
	}
	p := t.passing(ch)
	for _, h := range p.holds {
		h.add(d)
	}
	p.turn = append(p.turn, d)
	if len(p.turn) > 1 {
		return nil
	}
	return ch
}

// Turn is what has arrived for the channel in this turn, oldest first.
func (ch *Channel) Turn() []*Delivery {
	if ch.passing == nil {
		return nil
	}
	return ch.passing.turn
}

// Expanded ends the channel's turn and forgets the floors that it has passed.
func (t *Table) Expanded(ch *Channel) {
	p := ch.passing
	if p == nil {
		return
	}
	p.floors = slices.DeleteFunc(p.floors, func(f slotFloor) bool { return f.passedBy(p.turn) })
	clear(p.turn)
	p.turn = p.turn[:0]
	t.calm(ch)
}

// passedBy: member events and positions have floors of their own; one that is
// zero counts as passed.
func (f slotFloor) passedBy(turn []*Delivery) bool {
	version, position := f.floor.Version == 0, f.floor.Position == 0
	for _, d := range turn {
		version = version || d.Version >= f.floor.Version && isMember(d)
		position = position || d.Position >= f.floor.Position && d.Position != 0
	}
	return version && position
}

// AppendFloored appends the slots that have a floor: for these Skips has to
// be asked.
func (ch *Channel) AppendFloored(slots []int32) []int32 {
	if p := ch.passing; p != nil {
		for i := range p.floors {
			slots = append(slots, p.floors[i].slot)
		}
	}
	return slots
}

// Skips says whether slot has been told about d already.
func (ch *Channel) Skips(slot int32, d *Delivery) bool {
	if p := ch.passing; p != nil {
		for i := range p.floors {
			if p.floors[i].slot == slot {
				return !p.floors[i].floor.Passes(d)
			}
		}
	}
	return false
}

// addFloor says that slot has been told everything up to floor.
func (t *Table) addFloor(ch *Channel, slot int32, floor Floor) {
	p := t.passing(ch)
	p.floors = append(p.floors, slotFloor{slot, floor})
}

// dropFloor forgets the floor of a subscriber that is gone.
func (t *Table) dropFloor(ch *Channel, slot int32) {
	if p := ch.passing; p != nil {
		p.floors = slices.DeleteFunc(p.floors, func(f slotFloor) bool { return f.slot == slot })
		t.calm(ch)
	}
}
