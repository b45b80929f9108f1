package edge

import (
	"github.com/carillon-rt/carillon/gateway/internal/hub"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

const (
	// reelsBytesMax is how much of the past a loop keeps encoded; over it all
	// is forgotten, and encoded again for whoever comes next.
	reelsBytesMax = 8 << 20
	// reelAge is how long it is kept after the last one that needed it.
	reelAge = 5e9
)

// reels are the pasts that clients of a loop are being given, encoded. A crowd
// that comes back together wants nearly the same of a channel: each
// publication is encoded once for all of them, and what follows each other is
// one run of bytes, so that thousands of publications are a few references in
// an outbox.
type reels struct {
	by    map[reelKey]*reel
	bytes int
	used  int64 // loop time
}

type reelKey struct {
	channel.Key
	epoch    string
	encoding uint8
}

// reel is one channel's past in one encoding.
type reel struct {
	at map[message.Position]spot
}

// strip is consecutive publications as they are sent.
type strip struct {
	positions []message.Position
	ends      []int // of each in bytes
	bytes     []byte
}

// spot is where a publication is.
type spot struct {
	*strip
	index int
}

// cut gives the first entries, up to max bytes but at least one, as one frame,
// and how many they are. The frame is empty if the encoding has no words for
// them.
func (r *reels) cut(key reelKey, encoding hub.Encoding, entries []resume.Entry, max int, now int64) (*hub.Frame, int) {
	r.used = now
	if r.by == nil || r.bytes > reelsBytesMax {
		r.by, r.bytes = map[reelKey]*reel{}, 0
	}
	film := r.by[key]
	if film == nil {
		film = &reel{at: map[message.Position]spot{}}
		r.by[key] = film
	}
	s, ok := film.at[entries[0].Position]
	if !ok {
		s.strip = film.shoot(encoding, entries, max)
		r.bytes += len(s.bytes)
	}
	n := s.follow(entries, max)
	from := 0
	if s.index > 0 {
		from = s.ends[s.index-1]
	}
	return &hub.Frame{Bytes: s.bytes[from:s.ends[s.index+n-1]]}, n
}

// shoot encodes entries up to max bytes, or to one that is encoded already.
func (r *reel) shoot(encoding hub.Encoding, entries []resume.Entry, max int) *strip {
	s := &strip{}
	for _, e := range entries {
		if _, known := r.at[e.Position]; known || len(s.bytes) > max {
			break
		}
		s.bytes = encoding.AppendFrame(s.bytes, e.Position, e.Publication)
		r.at[e.Position] = spot{s, len(s.positions)}
		s.positions, s.ends = append(s.positions, e.Position), append(s.ends, len(s.bytes))
	}
	return s
}

// follow is how many of the entries follow each other here, within max bytes
// but at least one.
func (s spot) follow(entries []resume.Entry, max int) int {
	n, begin := 1, 0
	if s.index > 0 {
		begin = s.ends[s.index-1]
	}
	for n < len(entries) && s.index+n < len(s.positions) &&
		s.positions[s.index+n] == entries[n].Position && s.ends[s.index+n]-begin <= max {
		n++
	}
	return n
}

// sweep forgets what nobody has needed for a while.
func (r *reels) sweep(now int64) {
	if r.by != nil && now-r.used > reelAge {
		*r = reels{}
	}
}
