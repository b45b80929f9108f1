package hub

import (
	"bytes"
	"sync"
	"sync/atomic"

	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/gateway/internal/tagfilter"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// Encoding turns a publication into the frame that every subscriber of one
// kind gets. It appends nothing for publications that these are not told of.
// pos is 0 for those that are not stored.
type Encoding interface {
	AppendFrame(dst []byte, pos message.Position, pub *message.Publication) []byte
}

// Differing is implemented by the encodings that tell how a publication differs
// from the one before, whose data is before.
type Differing interface {
	AppendDifference(dst []byte, pos message.Position, pub *message.Publication, before []byte) []byte
}

// Config is what an Interest is made of.
type Config struct {
	Loops      int
	Partitions int
	Encodings  []Encoding
	// Differences gives, by encoding, the one for those of its subscribers that
	// have got the publication before, which implements Differing; 0 is none.
	// Nobody registers for these: they come with the others.
	Differences []uint8
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

	dropped   atomic.Uint64 // member events that subscribers knew
	overtaken atomic.Uint64 // publications that came after later ones
}

type shard struct {
	mu sync.Mutex
	// guarded by mu
	entries map[channel.Key]*entry
	place   resume.Place // of what was delivered last
	told    uint64       // number of the newest member event
	newest  uint64       // stamp of the newest publication that is not stored
	tallies map[channel.Key]tally
	after   []after
	_       [40]byte // keeps neighbours' locks off this cache line
}

// entry counts the subscriptions of a channel by encoding and loop.
type entry struct {
	key     channel.Key // its strings, not a batch's: deliveries may wait for long
	total   int32
	filters int32   // subscriptions that want certain tags only
	counts  []int32 // encoding * loops + loop, as far as the encodings present go
	roll    *roll   // of a presence channel
	before  *before // once somebody wants differences
	newest  uint64  // when the latest that is not stored left its router
}

// before is the data of the publication before.
type before struct{ data []byte }

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
	s.pass(last)
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

// Register adds a subscription of a loop; one whose kind has a number wants
// publications with certain tags only. mark is called under the
// partition's lock with the place that was delivered last: what mark posts
// into the loop's mailbox stands after everything up to that place and
// before everything that follows.
func (in *Interest) Register(key channel.Key, loop int, kind Kind, mark func(resume.Place)) {
	s := &in.shards[key.Partition(in.Partitions)]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	if e == nil {
		e = &entry{key: key, roll: in.rollOf(key)}
		s.entries[key] = e
	}
	enc := int(kind.Encoding())
	if n := (enc + 1) * in.Loops; len(e.counts) < n { // most channels have subscribers of the first encodings only
		e.counts = append(make([]int32, 0, n), e.counts...)[:n]
	}
	e.counts[enc*in.Loops+loop]++
	e.total++
	if kind.Number() != 0 {
		e.filters++
	}
	mark(s.place)
}

// Unregister takes a registration back.
func (in *Interest) Unregister(key channel.Key, loop int, kind Kind) {
	s := &in.shards[key.Partition(in.Partitions)]
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[key]
	if e == nil {
		return
	}
	e.counts[int(kind.Encoding())*in.Loops+loop]--
	if kind.Number() != 0 {
		e.filters--
	}
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
	s.newest = max(s.newest, pub.Left)
	e := s.entries[key]
	switch {
	case e == nil, pub.Kind == message.HistoryRemoved:
	case pub.Kind == message.MemberAdded || pub.Kind == message.MemberRemoved:
		in.member(s, e, pub)
	case isTally(pub.Kind):
		in.tell(s, e, pub)
	case e.overtaken(pub):
		in.overtaken.Add(1)
	default:
		in.post(e, pos, pub, 0)
	}
}

// leeway is how much older than one that came before it a publication may be,
// in microseconds: routers' clocks, and the ways from them, differ a little.
const leeway = 25_000

// overtaken says whether a publication that is not stored comes after later ones
// of its channel, as it does when NATS was in two pieces and becomes whole
// again. One router's come in order; a publisher that has its answer and goes on
// at another one counts on its order, too.
func (e *entry) overtaken(pub *message.Publication) bool {
	if pub.Left+leeway < e.newest && pub.Left != 0 {
		return true
	}
	e.newest = max(e.newest, pub.Left)
	return false
}

// Newest is the newest time of the routers' clock that a publication told of.
func (in *Interest) Newest() (at uint64) {
	for i := range in.shards {
		s := &in.shards[i]
		s.mu.Lock()
		at = max(at, s.newest)
		s.mu.Unlock()
	}
	return at
}

// Overtaken counts the publications that were dropped because later ones of
// their channel had come before.
func (in *Interest) Overtaken() uint64 { return in.overtaken.Load() }

// post encodes a publication and hands it to the loops; version is the number
// of a member event.
func (in *Interest) post(e *entry, pos message.Position, pub *message.Publication, version uint64) {
	present := (len(e.counts)+in.Loops-1)/in.Loops + 1 // and the differences of the last
	d, differs := newParcel(min(present, len(in.Encodings))), false
	d.Key, d.Kind, d.Position, d.Version = e.key, pub.Kind, pos, version
	if pub.Exclude != "" {
		d.Exclude, d.Excludes = in.Exclude(pub.Exclude)
	}
	if e.filters > 0 {
		d.Tags = tagfilter.Tags(pub)
	}
	for enc, encoding := range in.Encodings {
		if !e.wants(enc*in.Loops, in.Loops) {
			continue
		}
		if bytes := encoding.AppendFrame(nil, pos, pub); len(bytes) > 0 {
			d.setFrame(enc, bytes)
			differs = in.difference(e, d, enc, pos, pub) || differs
		}
	}
	e.remember(pub, differs)
	for l := range in.Loops {
		for enc, f := range d.Frames {
			if at := enc*in.Loops + l; f != nil && at < len(e.counts) && e.counts[at] > 0 { // a frame: so the encoding is present
				in.Post(l, &d.Delivery)
				break
			}
		}
	}
}

// difference adds the frame for those subscribers of an encoding that have got
// the publication before. It returns false if there are none.
func (in *Interest) difference(e *entry, d *parcel, enc int, pos message.Position, pub *message.Publication) bool {
	if enc >= len(in.Differences) || in.Differences[enc] == 0 {
		return false
	}
	other := int(in.Differences[enc])
	if differing, ok := in.Encodings[other].(Differing); ok && e.before != nil && isPublication(pub.Kind) {
		if bytes := differing.AppendDifference(nil, pos, pub, e.before.data); len(bytes) > 0 {
			d.setFrame(other, bytes)
			return true
		}
	}
	d.Frames[other] = d.Frames[enc]
	return true
}

// remember keeps what the next publication differs from.
func (e *entry) remember(pub *message.Publication, differs bool) {
	switch {
	case !isPublication(pub.Kind):
	case differs:
		e.before = &before{bytes.Clone(pub.Data)}
	default:
		e.before = nil
	}
}

func isPublication(k message.Kind) bool { return k == message.Event || k == message.ClientEvent }

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
