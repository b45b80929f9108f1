package hub

import "github.com/carillon-rt/carillon/proto/channel"

// Table is the channels of one loop and their subscribers. It belongs to its
// loop. Subscribers are slots of the loop: a channel's are dense, so that
// fan-out walks an array of int32.
type Table struct {
	channels map[channel.Key]*Channel
	refs     [][]ref // by slot: where its subscriptions are
	subs     int
	spares   []*passing // unused, for the next channel that needs one
}

// Kind is what the subscribers of a group have in common: their encoding, and
// a number that the table's owner gives to what else sets them apart, 0 for
// nothing.
type Kind uint32

// KindOf puts a kind together.
func KindOf(encoding uint8, number uint16) Kind { return Kind(encoding) | Kind(number)<<8 }

// Encoding of the group.
func (k Kind) Encoding() uint8 { return uint8(k) }

// Number that sets the group apart.
func (k Kind) Number() uint16 { return uint16(k >> 8) }

// ref is one subscription as seen from its connection.
type ref struct {
	ch    *Channel
	index int32 // in the group's Slots
	kind  Kind
}

// Channel is a channel with at least one subscriber or hold on this loop.
type Channel struct {
	Key channel.Key
	// Groups are the subscribers by kind; most channels have one group.
	Groups []Group

	passing *passing // nil while nothing is under way
	first   [1]Group // room for Groups
}

// Group is the subscribers of one kind.
type Group struct {
	Slots   []int32
	Kind    Kind
	floored int32 // how many of its subscribers have a floor
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

// Add subscribes slot, which must not be subscribed yet. What is above floor
// is delivered to it, what is not is skipped. The caller has expanded the
// channel's Turn before: those publications are not for the newcomer.
func (t *Table) Add(key channel.Key, slot int32, kind Kind, floor Floor) {
	ch := t.channel(key)
	group := ch.group(kind)
	g := &ch.Groups[group]
	g.Slots = append(g.Slots, slot)
	for int(slot) >= len(t.refs) {
		t.refs = append(t.refs, make([]([]ref), max(64, len(t.refs)))...)
	}
	t.refs[slot] = append(t.refs[slot], ref{ch: ch, index: int32(len(g.Slots) - 1), kind: kind})
	t.addFloor(ch, group, floor)
	t.subs++
}

// group gives the index of the group of a kind.
func (ch *Channel) group(kind Kind) int {
	for i := range ch.Groups {
		if ch.Groups[i].Kind == kind {
			return i
		}
	}
	if ch.Groups == nil {
		ch.Groups = ch.first[:0]
	}
	ch.Groups = append(ch.Groups, Group{Kind: kind})
	return len(ch.Groups) - 1
}

// Remove ends a subscription and gives its kind. It returns false if there is
// none.
func (t *Table) Remove(key channel.Key, slot int32) (kind Kind, ok bool) {
	ch := t.channels[key]
	if ch == nil || int(slot) >= len(t.refs) {
		return 0, false
	}
	refs := t.refs[slot]
	for i := range refs {
		if refs[i].ch == ch {
			kind = refs[i].kind
			t.drop(slot, refs[i])
			last := len(refs) - 1
			refs[i] = refs[last]
			refs[last] = ref{}
			t.refs[slot] = refs[:last]
			return kind, true
		}
	}
	return 0, false
}

// RemoveAll ends all subscriptions of a slot and visits their channels and
// kinds.
func (t *Table) RemoveAll(slot int32, visit func(channel.Key, Kind)) {
	if int(slot) >= len(t.refs) {
		return
	}
	refs := t.refs[slot]
	t.refs[slot] = nil
	for _, r := range refs {
		key := r.ch.Key
		t.drop(slot, r)
		visit(key, r.kind)
	}
}

// Regroup moves a subscription to another kind; its floor goes with it.
func (t *Table) Regroup(ch *Channel, slot int32, kind Kind) {
	refs := t.refs[slot]
	for i := range refs {
		if refs[i].ch != ch {
			continue
		}
		r := refs[i]
		var floor Floor
		if floors := ch.Floors(ch.group(r.kind)); floors != nil {
			floor = floors[r.index]
		}
		t.take(slot, r)
		group := ch.group(kind)
		g := &ch.Groups[group]
		g.Slots = append(g.Slots, slot)
		refs[i] = ref{ch: ch, index: int32(len(g.Slots) - 1), kind: kind}
		t.addFloor(ch, group, floor)
		return
	}
}

// drop takes the subscription out of its channel.
func (t *Table) drop(slot int32, r ref) {
	t.take(slot, r)
	t.subs--
	t.forget(r.ch)
}

// take takes it out of its group: the last subscriber of the group moves into
// its place.
func (t *Table) take(slot int32, r ref) {
	ch := r.ch
	group := ch.group(r.kind)
	t.dropFloor(ch, group, int(r.index))
	g := &ch.Groups[group]
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
}

// forget drops a channel that nobody wants any more.
func (t *Table) forget(ch *Channel) {
	if ch.passing != nil && len(ch.passing.holds) > 0 {
		return
	}
	for i := range ch.Groups {
		if len(ch.Groups[i].Slots) > 0 {
			return
		}
	}
	delete(t.channels, ch.Key)
}
