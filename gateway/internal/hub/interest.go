package hub

import (
	"sync"
	"sync/atomic"

	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// Encoding turns a publication into the frame that every subscriber of one
// kind gets. It appends nothing for publications that these are not told of.
// pos is 0 for those that are not stored.
type Encoding interface {
	AppendFrame(dst []byte, pos message.Position, pub *message.Publication) []byte
}

// Config is what an Interest is made of.
type Config struct {
	Loops      int
	Partitions int
	Encodings  []Encoding
	// Post hands a delivery to a loop's mailbox. It is called under a lock,
	// must not block and must not fail.
	Post func(loop int, d *Delivery)
	// Room blocks until the loops' mailboxes have room. It is called without
	// locks, before each publication, wanted or not.
	Room func()
	// Exclude resolves a socket id of this node, false for others.
	Exclude func(socketID string) (loop.Handle, bool)
	// Members says whether a channel has members; nil goes by its name.
	Members func(channel.Key) bool
}

// Interest is which channels this node's loops want, by partition. A
// partition has one deliverer, and its lock is held for one publication, or
// for one roster, at a time: a loop never waits longer than that.
type Interest struct {
	Config // immutable after NewInterest
	shards []shard

	dropped atomic.Uint64 // member events that subscribers knew
}

type shard struct {
	mu sync.Mutex
	// guarded by mu
	entries map[channel.Key]*entry
	place   resume.Place // of what was delivered last
	told    uint64       // number of the newest member event
	tallies map[channel.Key]tally
	after   []after
	_       [48]byte // keeps neighbours' locks off this cache line
}

// entry counts the subscriptions of a channel by encoding and loop.
type entry struct {
	key    channel.Key // its strings, not a batch's: deliveries may wait for long
	total  int32
	counts []int32 // encoding * loops + loop, as far as the encodings present go
	roll   *roll   // of a presence channel
}

// NewInterest returns an empty interest.
func NewInterest(cfg Config) *Interest {
	in := &Interest{Config: cfg, shards: make([]shard, cfg.Partitions)}
	for i := range in.shards {
		in.shards[i].entries = map[channel.Key]*entry{}
	}
	return in
}

// Start says that everything of a partition after last will be delivered. It
// is called by the partition's deliverer: at the beginning, and when what came
// before was lost.
func (in *Interest) Start(partition int, last message.Position) {
	s := &in.shards[partition]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.place.Position = last
}

// Lost says that positions of a partition mean nothing until Start.
func (in *Interest) Lost(partition int) {
	s := &in.shards[partition]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.place = resume.Place{}
	s.pass(message.Infinite)
}

// Epoch names the life of the journal that a partition's positions belong to.
func (in *Interest) Epoch(partition int, epoch string) {
	s := &in.shards[partition]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.place.Epoch = epoch
}

// Register adds a subscription of a loop. mark is called under the
// partition's lock with the place that was delivered last: what mark posts
// into the loop's mailbox stands after everything up to that place and
// before everything that follows.
func (in *Interest) Register(key channel.Key, loop int, enc uint8, mark func(resume.Place)) {
	s := &in.shards[key.Partition(in.Partitions)]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	if e == nil {
		e = &entry{key: key, roll: in.rollOf(key)}
		s.entries[key] = e
	}
	if n := (int(enc) + 1) * in.Loops; len(e.counts) < n { // most channels have subscribers of the first encodings only
		e.counts = append(make([]int32, 0, n), e.counts...)[:n]
	}
	e.counts[int(enc)*in.Loops+loop]++
	e.total++
	mark(s.place)
}

// Unregister takes a registration back.
func (in *Interest) Unregister(key channel.Key, loop int, enc uint8) {
	s := &in.shards[key.Partition(in.Partitions)]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	if e == nil {
		return
	}
	e.counts[int(enc)*in.Loops+loop]--
	if e.total--; e.total == 0 {
		delete(s.entries, key)
		delete(s.tallies, key)
	}
}

// Deliver gives one publication to the loops that want it, encoded once for
// each encoding that is present. Publications of a partition are delivered by
// one goroutine, in order; pos is 0 for those that are not stored.
func (in *Interest) Deliver(partition int, pos message.Position, pub *message.Publication) {
	s := &in.shards[partition]
	key := channel.Key{App: pub.App, Name: pub.Channel}
	in.Room()
	s.mu.Lock()
	defer s.mu.Unlock()
	if pos != 0 {
		s.place.Position = pos
		defer s.pass(pos)
	}
	e := s.entries[key]
	switch {
	case e == nil, pub.Kind == message.HistoryRemoved:
	case pub.Kind == message.MemberAdded || pub.Kind == message.MemberRemoved:
		in.member(s, e, pub)
	case isTally(pub.Kind):
		in.tell(s, e, pub)
	default:
		in.post(e, pos, pub, 0)
	}
}

// post encodes a publication and hands it to the loops; version is the number
// of a member event.
func (in *Interest) post(e *entry, pos message.Position, pub *message.Publication, version uint64) {
	d := newParcel(len(in.Encodings))
	d.Key, d.Kind, d.Position, d.Version = e.key, pub.Kind, pos, version
	if pub.Exclude != "" {
		d.Exclude, d.Excludes = in.Exclude(pub.Exclude)
	}
	for enc, encoding := range in.Encodings {
		if !e.wants(enc*in.Loops, in.Loops) {
			continue
		}
		if bytes := encoding.AppendFrame(nil, pos, pub); len(bytes) > 0 {
			d.setFrame(enc, bytes)
		}
	}
	for l := range in.Loops {
		for enc, f := range d.Frames {
			if f != nil && e.counts[enc*in.Loops+l] > 0 { // a frame: so the encoding is present
				in.Post(l, &d.Delivery)
				break
			}
		}
	}
}

func (e *entry) wants(from, n int) bool {
	if from >= len(e.counts) {
		return false
	}
	for _, c := range e.counts[from : from+n] {
		if c > 0 {
			return true
		}
	}
	return false
}

// Position is what was delivered last of a partition.
func (in *Interest) Position(partition int) message.Position {
	s := &in.shards[partition]
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.place.Position
}

// Channels is the number of channels wanted.
func (in *Interest) Channels() int {
	n := 0
	for i := range in.shards {
		s := &in.shards[i]
		s.mu.Lock()
		n += len(s.entries)
		s.mu.Unlock()
	}
	return n
}
