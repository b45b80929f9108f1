// Package rollcall finds out when this node may have missed events of
// presence, and asks the owners who is there: the subscribers are then told of
// the difference.
//
// Events travel past the journal, so nothing repeats them. Each names the one
// before it in its chain, that of a presence shard and a partition, and the
// owners tell the newest of each chain in heartbeats. The Tracker compares,
// the Queue orders what is to be asked; both are pure. RollCall drives them.
package rollcall

import (
	"math/bits"

	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

// Reason is why a chain is in doubt.
type Reason uint8

// Reasons.
const (
	Gap       Reason = iota // an event names one before it that did not come
	Late                    // a heartbeat tells of an event that did not come
	Owner                   // the shard has another owner
	Reconnect               // the connection to NATS was lost
	Slow                    // the NATS client dropped messages
	Roster                  // a roster was too old or incomplete
	reasons
)

// String is the label in metrics.
func (r Reason) String() string {
	return [reasons]string{"gap", "late", "owner", "reconnect", "slow", "roster"}[r]
}

// patienceMs is how long an event that a heartbeat tells of may be on its way:
// they come on different subjects.
const patienceMs = 300

// shardSet has a bit for each presence shard.
type shardSet uint64

const allShards = ^shardSet(0)

func (s shardSet) has(shard int) bool { return s>>shard&1 != 0 }

// compile-time: a shardSet has as many bits as there are shards.
var _ [64]struct{} = [subject.PresenceShards]struct{}{}

// chain is what was seen of the events of a shard in a partition.
type chain struct {
	seen    uint64 // newest event
	ahead   uint64 // newer event that a heartbeat told of, or 0
	aheadMs int64  // when it did
}

// Tracker says which chains are in doubt. It is pure and belongs to one
// goroutine at a time.
type Tracker struct {
	chains [][subject.PresenceShards]chain // by partition
	terms  [subject.PresenceShards]uint64
	doubts []shardSet // by partition
	ahead  int        // chains with a heartbeat ahead
	counts [reasons]uint64
}

// NewTracker returns a tracker that has seen nothing.
func NewTracker(partitions int) *Tracker {
	return &Tracker{chains: make([][subject.PresenceShards]chain, partitions), doubts: make([]shardSet, partitions)}
}

// Event takes an event that has been delivered.
func (t *Tracker) Event(partition, shard int, seq, prev uint64) {
	c := &t.chains[partition][shard]
	if seq <= c.seen {
		return // repeated, or told of by a heartbeat that waited long enough
	}
	switch {
	case prev == c.seen:
	case prev == 0:
		t.doubt(partition, 1<<shard, Owner)
	default:
		t.doubt(partition, 1<<shard, Gap)
	}
	t.see(c, seq)
}

func (t *Tracker) see(c *chain, seq uint64) {
	c.seen = max(c.seen, seq)
	if c.ahead != 0 && c.ahead <= c.seen {
		c.ahead = 0
		t.ahead--
	}
}

// Beat takes a heartbeat. What can't be, as of a shard that does not exist, is
// ignored.
func (t *Tracker) Beat(b *presence.Beat, nowMs int64) {
	for i := range b.Shards {
		s := &b.Shards[i]
		if s.Shard < 0 || s.Shard >= len(t.terms) || s.Term < t.terms[s.Shard] {
			continue // the last ones of an owner before may be late
		}
		first := t.terms[s.Shard] == 0
		if s.Term > t.terms[s.Shard] {
			t.terms[s.Shard] = s.Term
			if !first {
				t.begin(s)
			}
		}
		for _, c := range s.Chains {
			if c.Partition >= 0 && c.Partition < len(t.chains) {
				t.tail(&t.chains[c.Partition][s.Shard], c.Last, first, nowMs)
			}
		}
	}
}

// begin doubts all that the owner before may have said, or not. The chains
// begin anew.
func (t *Tracker) begin(s *presence.BeatShard) {
	for p := range t.chains {
		t.doubt(p, 1<<s.Shard, Owner)
		if c := &t.chains[p][s.Shard]; c.seen < s.Term {
			c.seen = 0
		}
	}
}

// tail takes the newest event of a chain. From the first heartbeat of all on
// nothing may be missing: nobody here was told anything before.
func (t *Tracker) tail(c *chain, last uint64, first bool, nowMs int64) {
	switch {
	case last <= c.seen:
	case first && c.seen == 0:
		c.seen = last
	case c.ahead == 0:
		t.ahead++
		c.ahead, c.aheadMs = last, nowMs
	default:
		c.ahead = max(c.ahead, last)
	}
}

// Waits says whether Tick may have something to do later; only a Beat changes
// that.
func (t *Tracker) Waits() bool { return t.ahead != 0 }

// Tick doubts the chains whose newest event has not come in time.
func (t *Tracker) Tick(nowMs int64) {
	if t.ahead == 0 {
		return
	}
	for p := range t.chains {
		for shard := range t.chains[p] {
			c := &t.chains[p][shard]
			if c.ahead != 0 && nowMs-c.aheadMs >= patienceMs {
				t.doubt(p, 1<<shard, Late)
				t.see(c, c.ahead)
			}
		}
	}
}

// Doubt takes everything of a partition for doubtful.
func (t *Tracker) Doubt(partition int, why Reason) { t.doubt(partition, allShards, why) }

func (t *Tracker) doubt(partition int, set shardSet, why Reason) {
	t.counts[why] += uint64(bits.OnesCount64(uint64(set)))
	t.doubts[partition] |= set
}

// Take calls visit for every partition with shards in doubt, which are not
// from then on. It returns how many chains were doubted, by reason, since the
// last call.
func (t *Tracker) Take(visit func(partition int, set shardSet)) [reasons]uint64 {
	for p, set := range t.doubts {
		if set != 0 {
			t.doubts[p] = 0
			visit(p, set)
		}
	}
	counts := t.counts
	t.counts = [reasons]uint64{}
	return counts
}
