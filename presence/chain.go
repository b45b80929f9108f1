package presence

import (
	"github.com/carillon-rt/carillon/presence/internal/replica"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

const (
	// beatEveryMs is the time between two heartbeats.
	beatEveryMs = 1000
	// beatAllEvery: one in so many lists all chains, the others those that have
	// changed since then.
	beatAllEvery = 10
)

// chains numbers the events of a shard that this node owns, by partition: an
// event names the one before it, so that who misses one knows.
type chains struct {
	term uint64
	last []uint64 // by partition, 0 before the first
	at   []int    // number of the beat before which it was published
}

// next continues a partition's chain.
func (c *chains) next(partition int, seq uint64, beat int) (prev uint64) {
	prev = c.last[partition]
	c.last[partition], c.at[partition] = seq, beat
	return prev
}

// appendSince appends the chains that have changed since a beat.
func (c *chains) appendSince(dst []presence.BeatChain, beat int) []presence.BeatChain {
	for p, last := range c.last {
		if last != 0 && c.at[p] >= beat {
			dst = append(dst, presence.BeatChain{Partition: p, Last: last})
		}
	}
	return dst
}

// beat sends the heartbeat when it is due. The caller has flushed the events.
func (w *worker) beat(nowMs int64) {
	a := w.announce
	if nowMs-a.beatMs < beatEveryMs || !w.svc.nc.IsConnected() {
		return
	}
	a.beatMs = nowMs
	a.beats++
	since := a.beats - beatAllEvery
	if a.beats%beatAllEvery == 1 {
		since = 0
	}
	b := presence.Beat{Node: w.svc.node}
	for _, s := range w.seats {
		if s.replica.Role() != replica.Owner {
			continue
		}
		c := a.chainsOf(s.shard)
		if c.term == 0 {
			c.term = s.replica.Shard().Version()
		}
		b.Shards = append(b.Shards, presence.BeatShard{Shard: s.shard, Term: c.term, Chains: c.appendSince(nil, since)})
	}
	if len(b.Shards) == 0 {
		return
	}
	w.buf = presence.AppendBeat(w.buf[:0], &b)
	w.send(subject.PresenceSync, w.buf)
}
