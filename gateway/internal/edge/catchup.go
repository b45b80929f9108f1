package edge

import (
	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
)

// portionBytes is how much of a channel's past a client is given before it has
// to have read it: a past may be larger than an outbox.
const portionBytes = 64 << 10

// keeps says whether the client keeps its place in the channel.
func (a *attachment) keeps() bool { return a.how.Resume != nil && a.how.Keep.Size > 0 }

// resumes says whether the client may be up to date with what it gets of the
// past.
func (a *attachment) resumes() bool {
	w := a.how.Resume
	return a.keeps() && (w.Since.Epoch != "" || w.AnyEpoch || w.Rewind > 0)
}

// askPast asks for what the client wants of the channel's past.
func (a *attachment) askPast() {
	wish, edge := a.how.Resume, a.c.h.edge
	switch {
	case !a.keeps():
		a.result.Resume = &resume.Answer{}
	case !wish.NeedsPast(a.mark):
		a.decide(nil)
	default:
		a.waits++
		edge.cfg.History.Past(wish.Question(a.keys[0], a.mark, a.how.Keep), func(p *resume.Past) {
			a.c.h.run(func() { a.pastCame(p) })
		})
	}
}

func (a *attachment) pastCame(p *resume.Past) {
	if a.done {
		return
	}
	if p == nil {
		a.fail(dialect.Unavailable, "the history of the channel can't be read now, try again")
	} else {
		a.decide(p)
	}
	a.answered()
}

// decide takes what is known of the past. A client that has lost its place is
// given the last value.
func (a *attachment) decide(p *resume.Past) {
	a.result.Resume = a.how.Resume.Decide(a.mark, p)
	if a.how.Cache && a.resumes() && !a.result.Resume.CaughtUp() {
		a.waits++
		a.askCache(a.mark.Position)
	}
}

// join makes one of what the answers say: a client that is up to date, or will
// be with what it gets of the past, needs no cached value.
func (a *attachment) join() {
	r := a.result.Resume
	if r == nil {
		return
	}
	a.c.h.stats.resume(a.how.Resume, r)
	if !r.Kept {
		return
	}
	if r.CaughtUp() {
		a.result.Cached, a.floor.Position = nil, r.Seen
	}
	r.Place.Position = max(r.Place.Position, a.floor.Position)
	switch {
	case !a.how.Inline:
		a.past = r.Entries
	case !a.fits(r.Entries):
		a.past = a.c.h.filters.of(a.kind).past(r.Entries)
		r.Entries, r.Follows = nil, len(a.past) > 0
	}
}

// fits says whether the past can be part of what the session tells, which goes
// out at once: with what waits already, and what sessions keep for the answer
// to a connect, it is no more than a portion.
func (a *attachment) fits(past []resume.Entry) bool {
	if len(past) == 0 {
		return true
	}
	size := a.c.conn.Pending()
	for other := a.c.pending; other != nil; other = other.next {
		size += other.inline
	}
	inline := 0
	for _, e := range past {
		inline += len(e.Publication.Data) + len(e.Publication.Info)
	}
	if size+inline > portionBytes {
		return false
	}
	a.inline = inline
	return true
}

// catchUp sends the past in portions, as the client reads them, then what was
// held back; then the subscription is live.
func (a *attachment) catchUp() {
	c := a.c
	for len(a.past) > 0 {
		if a.Over { // it was told that it is subscribed: only coming back is left
			c.sess.Shut(dialect.Slow)
			return
		}
		if c.conn.Pending() < portionBytes { // else others of the client have theirs first
			a.sendPortion()
		}
		if len(a.past) > 0 {
			c.h.pace(a)
			return
		}
	}
	a.goLive()
}

// sendPortion sends as much of the past as the client is given at a time.
func (a *attachment) sendPortion() {
	h := a.c.h
	key := reelKey{a.keys[0], a.result.Resume.Place.Epoch, a.kind.Encoding()}
	for sent := 0; len(a.past) > 0 && sent < portionBytes; {
		frame, n := h.reels.cut(key, h.edge.interest.Encodings[a.kind.Encoding()], a.past, portionBytes-sent, h.loop.Now())
		a.past = a.past[n:]
		if len(frame.Bytes) > 0 {
			a.c.conn.SendShared(frame)
			sent += len(frame.Bytes)
		}
	}
}

// goLive ends the attachment: what comes from now on is the table's to send.
func (a *attachment) goLive() {
	c := a.c
	a.end()
	if a.how.Member != nil {
		c.members = append(c.members, membership{a.keys[0].Name, a.how.Member.ID})
	}
	sendSome(c.conn, c.h.filters.of(a.kind).wanted(a.Held), a.kind.Encoding(), a.floor)
	a.Held = nil
	for _, key := range a.keys {
		if ch := c.h.table.Lookup(key); ch != nil {
			c.h.expand(ch) // what has arrived in this turn is not for the newcomer
		}
		c.h.table.Add(key, c.conn.Handle().Slot, a.kind, a.floor)
		c.h.table.Release(key, &a.Hold)
	}
}

// pace has the attachment go on in a later turn, once its client has read.
func (h *handler) pace(a *attachment) {
	h.paced = append(h.paced, a)
	h.run(func() {}) // a turn comes even if nothing else happens
}

// goOn continues with those whose client has read what it was given. Those
// that wait for their client get their turn when it reads.
func (h *handler) goOn() {
	for n := len(h.paced); n > 0; n-- {
		a := h.paced[0]
		h.paced = h.paced[1:]
		switch {
		case a.done:
		case a.c.conn.Blocked():
			h.paced = append(h.paced, a)
		default:
			a.catchUp()
		}
	}
	if len(h.paced) == 0 {
		h.paced = nil
	}
}
