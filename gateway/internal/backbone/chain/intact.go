package chain

import "time"

// Evidence is what the stream's leader says about the stream.
type Evidence struct {
	FirstSeq uint64
	LastSeq  uint64
	Messages uint64
	FirstAt  time.Time // of the oldest message; zero when there is none
	MaxAge   time.Duration
	Bytes    uint64
	BytesMax int64 // <= 0 is no limit
}

// clockSlack is how far the clocks of gateway, routers and servers may differ.
const clockSlack = 2 * time.Second

// Reading is a read of a partition's log from the last delivered batch on.
type Reading struct {
	Last  uint64
	First uint64 // oldest batch that was found, 0 if none
	// Delivered is when Last was delivered; zero if it was before the start.
	Delivered time.Time
	// Complete is when it was last certain that Last was the newest batch.
	Complete time.Time
	Now      time.Time
}

// Intact says whether everything that the log ever had after Last is still
// stored, so that what was found is what was missed. Messages are only ever
// removed from the front of the stream.
func (r *Reading) Intact(ev Evidence) bool {
	switch {
	case r.First != 0 && r.First == r.Last: // Last itself is still there, and so is all that came after
		return true
	case ev.FirstSeq <= r.Last+1: // nothing after Last was removed
		return true
	case ev.Messages > 0 && ev.FirstAt.Before(r.Complete.Add(-clockSlack)): // what is missing is younger than the oldest
		return true
	}
	return r.onlyAged(ev)
}

// onlyAged says that what was removed was too old to be what is missing: the
// stream is not near its size limit, and what is missing can't have expired.
func (r *Reading) onlyAged(ev Evidence) bool {
	if ev.MaxAge <= 0 || ev.BytesMax > 0 && ev.Bytes >= uint64(ev.BytesMax)/4*3 {
		return false
	}
	if !r.Delivered.IsZero() && r.Now.Sub(r.Delivered) < ev.MaxAge-clockSlack {
		return false // even Last is too young to have expired: somebody has purged
	}
	return r.Now.Sub(r.Complete) < ev.MaxAge-clockSlack
}
