// Package resume decides what a subscription is given that wants to keep its
// place in a channel: what it has missed, whether that is all of it, and where
// it is now. It is pure, and the same for every dialect.
//
// The order of a partition is one line of positions. A subscription begins at
// a mark in it: everything after the mark arrives and is held back until the
// client was answered. What lies between the place that the client had and the
// mark comes from the channel's past.
//
//	client's place          mark
//	------+------------------+-----------------> positions
//	      |---- the past ----|---- arrives ----
package resume

import (
	"slices"
	"time"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// RewindMax is the most publications that a client may ask for; a channel
// gives no more than it keeps.
const RewindMax = 10_000

// Place is a position in a life of the journal.
type Place struct {
	// Epoch names the life; "" is no place, or one that is not known yet.
	Epoch    string
	Position message.Position
}

// Wish is what a client asks for that wants to keep its place.
type Wish struct {
	// Since is the client's place. Without an epoch it has none yet.
	Since Place
	// AnyEpoch: Since.Position counts in whatever life the journal is in.
	AnyEpoch bool
	// Rewind is how many of the newest publications the client wants if it has
	// no place, or has lost it; 0 is none.
	Rewind int
	// Most is how many publications the client may have missed: one that has
	// missed more has lost its place. 0 is no limit.
	Most int
	// Socket is the connection that had come as far as Since: what excluded it
	// is not for the client now either.
	Socket string
	// Wrong is what is wrong with the wish, "" if nothing is.
	Wrong string
}

// Entry is a publication of the past.
type Entry struct {
	Position    message.Position
	Publication *message.Publication
}

// Past is what is known of a channel's publications. It is shared by all that
// asked, and immutable.
type Past struct {
	Epoch string
	// Floor is the position above which Entries lack nothing.
	Floor message.Position
	// Newest is the highest sequence of the journal that is known to exist.
	Newest uint64
	// Entries are in order. They may begin before and end after what was asked.
	Entries []Entry
}

// Page is what somebody wants to see of a channel's past: of what is above Since
// and below Before, 0 is the end, the Limit oldest, or newest if it is Reverse.
type Page struct {
	Since, Before message.Position
	Limit         int
	Reverse       bool
}

// Question asks for a channel's past on behalf of one subscription.
type Question struct {
	Key  channel.Key
	Mark Place
	// Since: everything between it and the mark is wanted, if Resumes.
	Since   message.Position
	Resumes bool
	// Newest publications up to the mark are wanted besides; 0 is none.
	Newest int
	Keep   Keep
}

// Question is what the past has to be asked for the wish at mark.
func (w *Wish) Question(key channel.Key, mark Place, keep Keep) Question {
	q := Question{Key: key, Mark: mark, Newest: min(w.Rewind, keep.Size), Keep: keep}
	if w.AnyEpoch || w.Since.Epoch != "" && (mark.Epoch == "" || w.Since.Epoch == mark.Epoch) {
		q.Since, q.Resumes = w.Since.Position, true
	}
	return q
}

// Limit is how many of the newest publications are enough for the answer.
func (q *Question) Limit() int {
	if q.Resumes {
		return q.Keep.Size
	}
	return q.Newest
}

// Answer is what the client is told and given.
type Answer struct {
	// Kept is false for a channel without a past: it has no places.
	Kept bool
	// Recovered: the client had a place, and with Entries it has everything
	// that was published between it and Place.
	Recovered bool
	// Place is where the client is when it has got Entries.
	Place   Place
	Entries []Entry
	// Follows: Entries are too much for one message, and come after the answer.
	Follows bool
	// Since is the place that the client had, if it recovered.
	Since Place
	// Seen is a position after the mark up to which the client has got
	// everything on another gateway.
	Seen message.Position
}

// CaughtUp says whether the client has, or gets, what was published last: it
// needs no cached value.
func (a *Answer) CaughtUp() bool { return a != nil && (a.Recovered || len(a.Entries) > 0) }

// NeedsPast says whether the past has to be read for an answer at mark.
func (w *Wish) NeedsPast(mark Place) bool {
	switch {
	case mark.Epoch == "": // whoever knows the past knows the epoch
		return true
	case w.Since.Epoch == mark.Epoch && w.Since.Position == mark.Position:
		return false
	}
	return w.AnyEpoch || w.Since.Epoch == mark.Epoch || w.Rewind > 0
}

// Decide answers the wish at mark. past is nil if it was not needed.
func (w *Wish) Decide(mark Place, past *Past) *Answer {
	if past == nil {
		past = &Past{Epoch: mark.Epoch, Newest: mark.Position.Seq()}
	}
	a := &Answer{Kept: true, Place: mark}
	if mark.Epoch == "" {
		a.Place.Epoch = past.Epoch
	}
	same := past.Epoch == a.Place.Epoch // else nothing that is known can be compared
	since, epoch := w.Since.Position, w.Since.Epoch
	if w.AnyEpoch {
		epoch = a.Place.Epoch
	}
	switch {
	case !same || epoch == "" || epoch != a.Place.Epoch:
	case since == mark.Position:
		a.Recovered = true
	case since > mark.Position: // from a gateway that is ahead, or made up
		if since.Seq() <= max(past.Newest, mark.Position.Seq()) {
			a.Recovered, a.Seen, a.Place.Position = true, since, since
		}
	case since >= past.Floor:
		missed := between(past.Entries, since, mark.Position)
		if a.Recovered = w.Most == 0 || len(missed) <= w.Most; a.Recovered {
			a.Entries = missed
		}
	}
	if a.Recovered {
		a.Since = Place{epoch, since}
	}
	if !a.Recovered && same && w.Rewind > 0 {
		a.Entries = between(past.Entries, past.Floor, mark.Position)
		a.Entries = a.Entries[max(0, len(a.Entries)-w.Rewind):]
	}
	a.Entries = without(a.Entries, w.Socket)
	return a
}

// between gives the entries above from, up to and including till.
func between(entries []Entry, from, till message.Position) []Entry {
	i, _ := slices.BinarySearchFunc(entries, from+1, byPosition)
	j, _ := slices.BinarySearchFunc(entries, till+1, byPosition)
	return entries[i:max(i, j):max(i, j)]
}

func byPosition(e Entry, p message.Position) int {
	switch {
	case e.Position < p:
		return -1
	case e.Position > p:
		return 1
	}
	return 0
}

// without leaves out what excludes socket.
func without(entries []Entry, socket string) []Entry {
	excluded := func(e Entry) bool { return e.Publication.Exclude == socket }
	if socket == "" || !slices.ContainsFunc(entries, excluded) {
		return entries
	}
	return slices.DeleteFunc(slices.Clone(entries), excluded)
}

// Keep is how much of a channel's past may be given to clients.
type Keep struct {
	Size int
	TTL  time.Duration
}

// Trim cuts a past down to what may be given at now: the floor rises to the
// newest that was cut off.
func (k Keep) Trim(p *Past, now time.Time) {
	cut := max(0, len(p.Entries)-k.Size)
	for cut < len(p.Entries) && k.tooOld(p.Entries[cut].Publication, now) {
		cut++
	}
	if cut > 0 {
		p.Floor = max(p.Floor, p.Entries[cut-1].Position)
		p.Entries = p.Entries[cut:]
	}
}

func (k Keep) tooOld(pub *message.Publication, now time.Time) bool {
	return k.TTL > 0 && pub.TimeMs != 0 && now.Sub(time.UnixMilli(int64(pub.TimeMs))) > k.TTL
}
