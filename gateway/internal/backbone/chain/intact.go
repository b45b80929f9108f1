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

// Intact says whether everything that a partition's log ever had after last
// is still stored. Messages are only ever removed from the front of the
// stream, by age or by size. first is the sequence of the oldest batch of the
// partition that a read from last on has found, 0 if none; complete is when
// it was last certain that last was the newest batch.
func Intact(last, first uint64, ev Evidence, complete, now time.Time) bool {
	switch {
	case first != 0 && first == last: // last itself is still there, and so is all that came after
		return true
	case ev.FirstSeq <= last+1: // nothing after last was removed
		return true
	case ev.Messages > 0 && ev.FirstAt.Before(complete.Add(-clockSlack)): // what is missing is younger than the oldest
		return true
	}
	// What was removed may have been what expired before; that is certain when
	// age alone removes, and what is missing is too young for that.
	byAge := ev.BytesMax <= 0 || ev.Bytes < uint64(ev.BytesMax)/4*3
	return byAge && (ev.MaxAge <= 0 || now.Sub(complete) < ev.MaxAge-clockSlack)
}
