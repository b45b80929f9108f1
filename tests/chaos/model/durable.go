package model

// checkJournal checks the journal itself: it has what was acknowledged, in
// each publisher's order.
func (h *history) checkJournal() {
	for _, p := range h.publications {
		if p.index < 0 && p.acknowledged > 0 && h.channels.Durable(p.channel) {
			h.violate(Stored, "%s was acknowledged, and the journal does not have it on %s", p.id, p.channel)
		}
		if b := p.acknowledgedBefore(); b != nil && p.index >= 0 && b.index > p.index {
			h.violate(Order, "the journal of %s has %s before %s, which was acknowledged before the other was sent", p.channel, p.id, b.id)
		}
	}
}

// acknowledgedBefore is the newest publication of the same publisher on the
// same channel that was acknowledged before p was sent: p comes after it. One
// whose answer never came may be stored later.
func (p *publication) acknowledgedBefore() *publication {
	for b := p.before; b != nil; b = b.before {
		if b.acknowledged > 0 && b.acknowledged < p.at {
			return b
		}
	}
	return nil
}

// checkPublishersOrder wants each publisher's publications in their order and
// nothing twice, on any channel.
func (h *history) checkPublishersOrder(s *session, t *topic) {
	place := map[string]int{}
	for i, id := range t.seen {
		p := h.publications[id]
		if p == nil || p.channel != t.channel {
			h.violate(Twice, "%s got %s on %s, where nobody published it", s, id, t.channel)
			continue
		}
		if _, again := place[id]; again {
			h.violate(Twice, "%s got %s on %s twice", s, id, t.channel)
			continue
		}
		place[id] = i
	}
	for id, i := range place {
		for b := h.publications[id].acknowledgedBefore(); b != nil; b = b.acknowledgedBefore() {
			if at, seen := place[b.id]; seen {
				if at > i {
					h.violate(Order, "%s got %s on %s after %s of the same publisher, which was sent when it had been acknowledged", s, b.id, t.channel, id)
				}
				break // what is before that one is checked there
			}
		}
	}
}

// checkDurable wants what the session saw to be one piece of the journal: from
// the first publication that was sent after the subscription, or one before
// it, to the last one that it saw, or to the end if it is still connected.
func (h *history) checkDurable(s *session, t *topic) {
	journal := h.journal[t.channel]
	seen, last := make([]bool, len(journal)), -1
	first := len(journal)
	for _, id := range t.seen {
		p := h.publications[id]
		if p == nil || p.channel != t.channel {
			continue // said already
		}
		if p.index < 0 {
			h.violate(Stored, "%s got %s on %s, and the journal does not have it", s, id, t.channel)
			continue
		}
		if p.index < last {
			h.violate(Order, "%s got %s on %s after %s, the journal has them the other way round", s, id, t.channel, journal[last].id)
		}
		seen[p.index] = true
		last, first = max(last, p.index), min(first, p.index)
	}
	end := last
	if s.open {
		end = len(journal) - 1
	}
	var missed, lost, again []string
	for i := 0; i <= end; i++ {
		p := journal[i]
		switch {
		case t.resumed && seen[i] && p.position <= t.from:
			again = append(again, p.id)
		case seen[i]:
		case i > first || p.at > t.at:
			missed = append(missed, p.id)
		case t.resumed && p.position > t.from:
			lost = append(lost, p.id)
		}
	}
	if len(missed) > 0 {
		h.violate(Gap, "%s missed %s on %s", s, few(missed), t.channel)
	}
	if len(lost) > 0 {
		h.violate(Resume, "%s went on from %d on %s and was not given %s", s, t.from, t.channel, few(lost))
	}
	if len(again) > 0 {
		h.violate(Resume, "%s went on from %d on %s and was given %s again", s, t.from, t.channel, few(again))
	}
}
