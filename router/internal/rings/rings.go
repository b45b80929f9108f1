// Package rings keeps the newest publications of the channels of one
// partition: a ring per channel, its cached value, and the floors that tell
// whether a history read is complete. It is a pure structure: the caller
// brings clock, policies and locking.
//
// The floor of a channel is the position of its newest evicted entry; for a
// channel that is not known (any more) it is the highest position ever
// forgotten. A read since a position at or above the floor misses nothing.
package rings

import (
	"sort"
	"time"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// Estimated cost of the bookkeeping, for the memory bound.
const (
	entryOverhead   = 64
	channelOverhead = 256
)

// Policy is how much of one channel is kept.
type Policy struct {
	Size     int           // publications; 0 keeps no history
	TTL      time.Duration // their age limit; 0 is none
	CacheTTL time.Duration // life of the cached value; 0 keeps none
}

// Entry is one kept publication.
type Entry struct {
	Position message.Position
	At       time.Time // when the journal stored it
	Data     []byte    // message.Publication.Append's bytes; immutable
}

// Set is the rings of one partition. It is not safe for several goroutines.
type Set struct {
	bytesMax int64
	bytes    int64

	rings  map[channel.Key]*ring
	oldest *ring // list by last touch
	newest *ring
	cursor *ring // where the next Expire goes on

	forgotten message.Position // highest position ever forgotten
	base      message.Position // nothing at or below is known to be complete
	evicted   uint64           // channels forgotten for memory
}

// ring is one channel.
type ring struct {
	key    channel.Key
	policy Policy

	entries []Entry // oldest first, from head
	head    int

	cached    Entry // Data nil: none
	cacheTill time.Time

	floor, top message.Position
	older      *ring
	newer      *ring
}

// New returns an empty set that keeps about bytesMax bytes at most: beyond it
// the channels that were published to the longest ago are forgotten.
func New(bytesMax int64) *Set {
	return &Set{bytesMax: bytesMax, rings: map[channel.Key]*ring{}}
}

// RaiseBase says that nothing at or below pos is complete: the journal was
// trimmed there before it was read.
func (s *Set) RaiseBase(pos message.Position) { s.base = max(s.base, pos) }

// Channels is the number of known channels.
func (s *Set) Channels() int { return len(s.rings) }

// Bytes is the estimated memory in use.
func (s *Set) Bytes() int64 { return s.bytes }

// Evicted is how many channels were forgotten for lack of memory.
func (s *Set) Evicted() uint64 { return s.evicted }

// Apply adds the publication at e, which is newer than everything applied
// before. The channel's names are cloned when they are kept; e.Data is kept.
// now is the time that ages are measured at: e.At during a replay would
// resurrect what has expired.
func (s *Set) Apply(key channel.Key, p Policy, e Entry, now time.Time) {
	r := s.rings[key]
	if r == nil {
		if p.Size <= 0 && p.CacheTTL <= 0 {
			s.forgotten = max(s.forgotten, e.Position)
			return
		}
		r = s.insert(key)
	}
	r.policy = p
	r.top = e.Position
	s.touch(r)
	if p.Size > 0 {
		r.entries = append(r.entries, e)
		s.bytes += cost(e)
	} else {
		r.floor = e.Position
	}
	s.dropCached(r)
	if p.CacheTTL > 0 {
		s.setCached(r, e)
	}
	s.trim(r, now)
	for s.bytes > s.bytesMax && s.oldest != nil && s.oldest != r {
		s.evicted++
		s.forget(s.oldest)
	}
}

func cost(e Entry) int64 { return int64(len(e.Data)) + entryOverhead }

func (s *Set) setCached(r *ring, e Entry) {
	r.cached, r.cacheTill = e, e.At.Add(r.policy.CacheTTL)
	s.bytes += cost(e)
}

func (s *Set) dropCached(r *ring) {
	if r.cached.Data != nil {
		s.bytes -= cost(r.cached)
		r.cached = Entry{}
	}
}

// insert adds a channel. It may have been known before, so that it begins
// with the floor of the forgotten.
func (s *Set) insert(key channel.Key) *ring {
	key = channel.Key{App: clone(key.App), Name: clone(key.Name)}
	r := &ring{key: key, floor: s.forgotten, top: s.forgotten}
	s.rings[key] = r
	s.bytes += channelOverhead + int64(len(key.App)+len(key.Name))
	return r
}

func clone(s string) string { return string([]byte(s)) }

// trim evicts by size and age.
func (s *Set) trim(r *ring, now time.Time) {
	for n := len(r.entries) - r.head; n > 0; n-- {
		e := r.entries[r.head]
		tooOld := r.policy.TTL > 0 && now.Sub(e.At) > r.policy.TTL
		if n <= r.policy.Size && !tooOld {
			break
		}
		r.floor = e.Position
		s.bytes -= cost(e)
		r.entries[r.head] = Entry{}
		r.head++
	}
	if r.head == len(r.entries) {
		r.entries, r.head = r.entries[:0], 0
	} else if r.head > 16 && 2*r.head >= len(r.entries) {
		n := copy(r.entries, r.entries[r.head:])
		clear(r.entries[n:])
		r.entries, r.head = r.entries[:n], 0
	}
	if r.cached.Data != nil && !now.Before(r.cacheTill) {
		s.dropCached(r)
	}
}

// forget drops a channel; readers of its past are below the floor from now on.
func (s *Set) forget(r *ring) {
	s.forgotten = max(s.forgotten, r.top, r.floor)
	for _, e := range r.entries[r.head:] {
		s.bytes -= cost(e)
	}
	s.dropCached(r)
	s.bytes -= channelOverhead + int64(len(r.key.App)+len(r.key.Name))
	if s.cursor == r {
		s.cursor = r.newer
	}
	s.unlink(r)
	delete(s.rings, r.key)
}

// Expire looks at up to limit channels, evicts what is too old and forgets
// those that have nothing left. Reads evict by themselves: this only frees
// memory.
func (s *Set) Expire(now time.Time, limit int) {
	for range limit {
		if s.cursor == nil {
			if s.cursor = s.oldest; s.cursor == nil {
				return
			}
		}
		r := s.cursor
		s.cursor = r.newer
		s.trim(r, now)
		if len(r.entries) == 0 && r.cached.Data == nil {
			s.forget(r)
		}
		if s.cursor == nil {
			return // a full round
		}
	}
}

// Cached gives the channel's last value and what is left of its life.
func (s *Set) Cached(key channel.Key, now time.Time) (e Entry, left time.Duration, ok bool) {
	r := s.rings[key]
	if r == nil {
		return Entry{}, 0, false
	}
	s.trim(r, now)
	if r.cached.Data == nil {
		return Entry{}, 0, false
	}
	return r.cached, r.cacheTill.Sub(now), true
}

// Since appends to dst the newest publications above since, at most limit,
// oldest first. The read is complete when since >= Floor and nothing was cut
// off by limit.
func (s *Set) Since(dst []Entry, key channel.Key, since message.Position, limit int, now time.Time) []Entry {
	dst, _ = s.Between(dst, key, since, 0, limit, false, now)
	return dst
}

// Between appends to dst the publications above since and below before (0: to
// the end), oldest first. Of those it gives the limit oldest, or newest, and
// says whether there are more.
func (s *Set) Between(dst []Entry, key channel.Key, since, before message.Position, limit int, oldest bool, now time.Time) (_ []Entry, more bool) {
	r := s.rings[key]
	if r == nil || limit <= 0 {
		return dst, false
	}
	s.trim(r, now)
	kept := r.entries[r.head:]
	from := sort.Search(len(kept), func(i int) bool { return kept[i].Position > since })
	till := len(kept)
	if before != 0 {
		till = sort.Search(len(kept), func(i int) bool { return kept[i].Position >= before })
	}
	switch {
	case till-from <= limit:
	case oldest:
		till, more = from+limit, true
	default:
		from, more = till-limit, true
	}
	return append(dst, kept[min(from, till):till]...), more
}

// Remove forgets the publications of a channel, as somebody wants it. Whoever
// has seen the newest of them misses nothing.
func (s *Set) Remove(key channel.Key) {
	r := s.rings[key]
	if r == nil {
		return
	}
	for _, e := range r.entries[r.head:] {
		r.floor = e.Position
		s.bytes -= cost(e)
	}
	clear(r.entries)
	r.entries, r.head = r.entries[:0], 0
	s.dropCached(r)
}

// Floor is the position from which on a read is complete.
func (s *Set) Floor(key channel.Key, now time.Time) message.Position {
	r := s.rings[key]
	if r == nil {
		return max(s.forgotten, s.base)
	}
	s.trim(r, now)
	return max(r.floor, s.base)
}

// Top is the newest position of the channel, 0 when it is not known.
func (s *Set) Top(key channel.Key) message.Position {
	if r := s.rings[key]; r != nil {
		return r.top
	}
	return 0
}

// touch moves r to the newest end of the list.
func (s *Set) touch(r *ring) {
	if s.newest == r {
		return
	}
	if s.cursor == r {
		s.cursor = r.newer
	}
	s.unlink(r)
	r.older = s.newest
	if s.newest != nil {
		s.newest.newer = r
	}
	s.newest = r
	if s.oldest == nil {
		s.oldest = r
	}
}

func (s *Set) unlink(r *ring) {
	if r.older != nil {
		r.older.newer = r.newer
	} else if s.oldest == r {
		s.oldest = r.newer
	}
	if r.newer != nil {
		r.newer.older = r.older
	} else if s.newest == r {
		s.newest = r.older
	}
	r.older, r.newer = nil, nil
}
