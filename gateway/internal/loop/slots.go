package loop

// pageSlots is how many connections are allocated together.
const pageSlots = 256

// slots holds a loop's connections at addresses that never change, and hands
// out free ones. A slot that was given back may be taken again only in the
// next turn, so that a slot number is good for a whole turn.
type slots struct {
	pages    []*[pageSlots]Conn
	free     []int32
	released []int32 // become free at the end of the turn
}

// at returns the connection in a slot that was handed out.
func (s *slots) at(slot int32) *Conn {
	return &s.pages[uint32(slot)/pageSlots][uint32(slot)%pageSlots]
}

// has reports whether the slot exists.
func (s *slots) has(slot int32) bool {
	return slot >= 0 && int(slot) < len(s.pages)*pageSlots
}

// take hands out a slot; everything in it but its generation is zero.
func (s *slots) take() *Conn {
	if len(s.free) == 0 {
		s.grow()
	}
	slot := s.free[len(s.free)-1]
	s.free = s.free[:len(s.free)-1]
	c := s.at(slot)
	c.gen++
	return c
}

// release gives a slot back.
func (s *slots) release(c *Conn) {
	*c = Conn{core: c.core, slot: c.slot, gen: c.gen}
	s.released = append(s.released, c.slot)
}

// endTurn makes released slots free.
func (s *slots) endTurn() {
	s.free = append(s.free, s.released...)
	s.released = s.released[:0]
}

// grow adds a page; low slots are handed out first.
func (s *slots) grow() {
	base := int32(len(s.pages) * pageSlots)
	page := new([pageSlots]Conn)
	for i := range page {
		page[i].slot = base + int32(i)
	}
	s.pages = append(s.pages, page)
	for i := int32(pageSlots) - 1; i >= 0; i-- {
		s.free = append(s.free, base+i)
	}
}
