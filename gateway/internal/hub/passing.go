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
	// floors are those of the subscribers, by group: nil, or as long as the
	// group's Slots. All subscribers of a cached value have one until
	// something is published: looking for one must not take time.
	floors [][]Floor
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
	ch.liftFloors(p)
	clear(p.turn)
	p.turn = p.turn[:0]
	t.calm(ch)
}

// Floors are those of the subscribers in Groups[group].Slots; nil when none
// has one.
func (ch *Channel) Floors(group int) []Floor {
	if ch.passing == nil || group >= len(ch.passing.floors) {
		return nil
	}
	return ch.passing.floors[group]
}

// addFloor gives the newest subscriber of a group its floor.
func (t *Table) addFloor(ch *Channel, group int, floor Floor) {
	g, floors := &ch.Groups[group], ch.Floors(group)
	if floors == nil {
		if floor == (Floor{}) {
			return
		}
		floors = make([]Floor, len(g.Slots)-1, len(g.Slots))
	}
	p := t.passing(ch)
	for len(p.floors) <= group {
		p.floors = append(p.floors, nil)
	}
	p.floors[group] = append(floors, floor)
	if floor != (Floor{}) {
		g.floored++
	}
}

// dropFloor forgets the floor of Slots[i], whose place the last one takes.
func (t *Table) dropFloor(ch *Channel, group, i int) {
	floors := ch.Floors(group)
	if floors == nil {
		return
	}
	last := len(floors) - 1
	if floors[i] != (Floor{}) {
		ch.Groups[group].floored--
	}
	floors[i] = floors[last]
	ch.passing.floors[group] = floors[:last]
	ch.settleFloors(ch.passing)
	t.calm(ch)
}

// liftFloors forgets the floors that the turn has passed.
func (ch *Channel) liftFloors(p *passing) {
	for group, floors := range p.floors {
		for i, f := range floors {
			if f != (Floor{}) && f.passedBy(p.turn) {
				floors[i] = Floor{}
				ch.Groups[group].floored--
			}
		}
	}
	ch.settleFloors(p)
}

// settleFloors lets groups without floors do without room for them.
func (ch *Channel) settleFloors(p *passing) {
	used := 0
	for group := range p.floors {
		if ch.Groups[group].floored == 0 {
			p.floors[group] = nil
			continue
		}
		used = group + 1
	}
	p.floors = p.floors[:used]
}

// passedBy: member events and positions have floors of their own; one that is
// zero counts as passed.
func (f Floor) passedBy(turn []*Delivery) bool {
	version, position := f.Version == 0, f.Position == 0
	for _, d := range turn {
		version = version || d.Version >= f.Version && isMember(d)
		position = position || d.Position >= f.Position && d.Position != 0
	}
	return version && position
}
