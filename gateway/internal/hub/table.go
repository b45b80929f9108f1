package hub

import "github.com/carillon-rt/carillon/proto/channel"

// Table is the channels of one loop and their subscribers. It belongs to its
// loop. Subscribers are slots of the loop: a channel's are dense, so that
// fan-out walks an array of int32.
type Table struct {
	channels map[channel.Key]*Channel
	refs     [][]ref // by slot: where its subscriptions are
	subs     int
}

// ref is one subscription as seen from its connection.
type ref struct {
	ch    *Channel
	index int32 // in the group's Slots
	enc   uint8
}

// Channel is a channel with at least one subscriber or hold on this loop.
type Channel struct {
	Key channel.Key
	// Groups are the subscribers by encoding; most channels have one group.
	Groups []Group
	// Turn is what arrived for the channel in this turn.
	Turn []*Delivery
	// Holds are subscriptions that are not complete yet: they keep what
	// arrives until they are.
	Holds []*Hold
	// floors are subscribers that have been told more than was delivered
	// here. Few and short-lived.
	floors []slotFloor
}

// Group is the subscribers of one encoding.
type Group struct {
	Encoding uint8
	Slots    []int32
}

type slotFloor struct {
	slot  int32
	floor Floor
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

// NewTable returns an empty table.
func NewTable() *Table { return &Table{channels: map[channel.Key]*Channel{}} }

// Lookup gives the channel, nil if this loop has no interest in it.
func (t *Table) Lookup(key channel.Key) *Channel { return t.channels[key] }

// Channels is the number of channels, Subscriptions that of subscriptions.
func (t *Table) Channels() int { return len(t.channels) }

// Subscriptions is the number of subscriptions.
func (t *Table) Subscriptions() int { return t.subs }

// Each visits all channels.
func (t *Table) Each(visit func(*Channel)) {
	for _, ch := range t.channels {
		visit(ch)
	}
}

func (t *Table) channel(key channel.Key) *Channel {
	ch := t.channels[key]
	if ch == nil {
		ch = &Channel{Key: key}
		t.channels[key] = ch
	}
	return ch
}

// Hold adds a hold to the channel, creating the channel if need be.
func (t *Table) Hold(key channel.Key, h *Hold) *Channel {
	ch := t.channel(key)
	ch.Holds = append(ch.Holds, h)
	return ch
}

// Release takes a hold back.
func (t *Table) Release(key channel.Key, h *Hold) {
	ch := t.channels[key]
	if ch == nil {
		return
	}
	for i, x := range ch.Holds {
		if x == h {
			last := len(ch.Holds) - 1
			ch.Holds[i], ch.Holds[last] = ch.Holds[last], nil
			ch.Holds = ch.Holds[:last]
			if last == 0 {
				ch.Holds = nil // most channels never have another
			}
			break
		}
	}
	t.forget(ch)
}

// Add subscribes slot, which must not be subscribed yet. What is above floor
// is delivered to it, what is not is skipped. The caller has expanded the
// channel's Turn before: those publications are not for the newcomer.
func (t *Table) Add(key channel.Key, slot int32, enc uint8, floor Floor) {
	ch := t.channel(key)
	g := ch.group(enc)
	g.Slots = append(g.Slots, slot)
	for int(slot) >= len(t.refs) {
		t.refs = append(t.refs, make([]([]ref), max(64, len(t.refs)))...)
	}
	t.refs[slot] = append(t.refs[slot], ref{ch: ch, index: int32(len(g.Slots) - 1), enc: enc})
	if floor != (Floor{}) {
		ch.floors = append(ch.floors, slotFloor{slot, floor})
	}
	t.subs++
}

func (ch *Channel) group(enc uint8) *Group {
	for i := range ch.Groups {
		if ch.Groups[i].Encoding == enc {
			return &ch.Groups[i]
		}
	}
	ch.Groups = append(ch.Groups, Group{Encoding: enc})
	return &ch.Groups[len(ch.Groups)-1]
}

// Remove ends a subscription. It returns false if there is none.
func (t *Table) Remove(key channel.Key, slot int32) bool {
	ch := t.channels[key]
	if ch == nil || int(slot) >= len(t.refs) {
		return false
	}
	refs := t.refs[slot]
	for i := range refs {
		if refs[i].ch == ch {
			t.drop(slot, refs[i])
			last := len(refs) - 1
			refs[i] = refs[last]
			refs[last] = ref{}
			t.refs[slot] = refs[:last]
			return true
		}
	}
	return false
}

// RemoveAll ends all subscriptions of a slot and visits their channels.
func (t *Table) RemoveAll(slot int32, visit func(channel.Key)) {
	if int(slot) >= len(t.refs) {
		return
	}
	refs := t.refs[slot]
	t.refs[slot] = nil
	for _, r := range refs {
		key := r.ch.Key
		t.drop(slot, r)
		visit(key)
	}
}

// drop takes the subscription out of its channel: the last subscriber of the
// group moves into its place.
func (t *Table) drop(slot int32, r ref) {
	ch := r.ch
	g := ch.group(r.enc)
	last := int32(len(g.Slots) - 1)
	moved := g.Slots[last]
	g.Slots[r.index] = moved
	g.Slots = g.Slots[:last]
	if moved != slot {
		refs := t.refs[moved]
		for i := range refs {
			if refs[i].ch == ch {
				refs[i].index = r.index
				break
			}
		}
	}
	for i := range ch.floors {
		if ch.floors[i].slot == slot {
			ch.floors = append(ch.floors[:i], ch.floors[i+1:]...)
			break
		}
	}
	t.subs--
	t.forget(ch)
}

// forget drops a channel that nobody wants any more.
func (t *Table) forget(ch *Channel) {
	if len(ch.Holds) > 0 {
		return
	}
	for i := range ch.Groups {
		if len(ch.Groups[i].Slots) > 0 {
			return
		}
	}
	delete(t.channels, ch.Key)
}

// Arrive takes a delivery for the channel: holds keep it, and Turn collects
// it for the subscribers. It returns true if it is the first of this turn, so
// that the caller remembers to expand the channel.
func (ch *Channel) Arrive(d *Delivery) (first bool) {
	for _, h := range ch.Holds {
		h.add(d)
	}
	first = len(ch.Turn) == 0
	ch.Turn = append(ch.Turn, d)
	return first
}

// AppendFloored appends the slots that have a floor: for these Skips has to
// be asked.
func (ch *Channel) AppendFloored(slots []int32) []int32 {
	for i := range ch.floors {
		slots = append(slots, ch.floors[i].slot)
	}
	return slots
}

// Skips says whether slot has been told about d already.
func (ch *Channel) Skips(slot int32, d *Delivery) bool {
	for i := range ch.floors {
		if ch.floors[i].slot == slot {
			return !ch.floors[i].floor.Passes(d)
		}
	}
	return false
}

// Passed forgets the floors that the turn's deliveries have passed.
func (ch *Channel) Passed() {
	kept := ch.floors[:0]
	for _, f := range ch.floors {
		if !f.passedBy(ch.Turn) {
			kept = append(kept, f)
		}
	}
	ch.floors = kept
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
