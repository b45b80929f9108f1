// Package tally counts what arrives and checks it: nothing missing, nothing
// twice, every publisher's order kept. It is pure.
package tally

// Counts is what a number of connections have received.
type Counts struct {
	// Delivered messages, those that came twice included.
	Delivered int64 `json:"delivered"`
	// Missing is how many that were published never came.
	Missing int64 `json:"missing"`
	// Duplicates is how many came again.
	Duplicates int64 `json:"duplicates"`
	// Disordered is how many came behind a later one of the same publisher and
	// channel.
	Disordered int64 `json:"disordered"`
	// Unexpected is how many came on channels that the connection is not
	// subscribed to.
	Unexpected int64 `json:"unexpected"`
	// Reads is how often a connection was read: Delivered / Reads is how many
	// messages came at once.
	Reads int64 `json:"reads"`
}

// Add adds what others have received.
func (c *Counts) Add(o Counts) {
	c.Delivered += o.Delivered
	c.Missing += o.Missing
	c.Duplicates += o.Duplicates
	c.Disordered += o.Disordered
	c.Unexpected += o.Unexpected
	c.Reads += o.Reads
}

// Clean says whether everything came once and in order.
func (c *Counts) Clean() bool {
	return c.Missing == 0 && c.Duplicates == 0 && c.Disordered == 0 && c.Unexpected == 0
}

// Stream follows one publisher's messages on one channel as one connection
// gets them. The zero value has got none.
type Stream struct {
	seen uint64 // bit i: last - i has come
	last uint32 // the highest number that has come
}

// Next takes the message numbered seq, from 1.
func (s *Stream) Next(seq uint32, c *Counts) {
	c.Delivered++
	if seq == s.last+1 {
		s.last, s.seen = seq, s.seen<<1|1
		return
	}
	if seq > s.last {
		ahead := seq - s.last
		c.Missing += int64(ahead - 1)
		s.last, s.seen = seq, s.seen<<min(ahead, 64)|1
		return
	}
	behind := s.last - seq
	switch {
	case behind >= 64: // too long ago to know which of the two it is
		c.Disordered++
	case s.seen&(1<<behind) != 0:
		c.Duplicates++
	default:
		s.seen |= 1 << behind
		c.Disordered++
		c.Missing--
	}
}

// End counts as missing what follows the last one that came, up to the last
// one that was published.
func (s *Stream) End(published uint32, c *Counts) {
	if published > s.last {
		c.Missing += int64(published - s.last)
	}
}
