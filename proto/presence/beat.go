package presence

import "github.com/carillon-rt/carillon/proto/wire"

// Beat is a presence node's heartbeat about the events that it has published
// as owner. Gateways find by it that they have missed some. It travels on
// subject.PresenceSync, on the connection that carried the events before it,
// but gateways read it on another one: it may overtake them.
type Beat struct {
	Node   string
	Shards []BeatShard
}

// BeatShard is a shard that the node owns.
type BeatShard struct {
	Shard int
	// Term names this ownership. It rises from owner to owner.
	Term uint64
	// Chains are those with events that this owner has published: the ones that
	// changed lately in most beats, all in some.
	Chains []BeatChain
}

// BeatChain is the events of a shard that travel in one partition.
type BeatChain struct {
	Partition int
	Last      uint64 // Seq of the newest event: see message.Publication
}

// Smallest encodings, as with deltas.
const (
	beatShardBytesMin = 3
	beatChainBytesMin = 2
)

// AppendBeat appends the wire form of b.
func AppendBeat(dst []byte, b *Beat) []byte {
	dst = append(dst, version)
	dst = wire.AppendString(dst, b.Node)
	dst = wire.AppendUvarint(dst, uint64(len(b.Shards)))
	for i := range b.Shards {
		s := &b.Shards[i]
		dst = wire.AppendUvarint(dst, uint64(s.Shard))
		dst = wire.AppendUvarint(dst, s.Term)
		dst = wire.AppendUvarint(dst, uint64(len(s.Chains)))
		for _, c := range s.Chains {
			dst = wire.AppendUvarint(dst, uint64(c.Partition))
			dst = wire.AppendUvarint(dst, c.Last)
		}
	}
	return dst
}

// ParseBeat reads what AppendBeat wrote. Its strings alias buf.
func ParseBeat(buf []byte) (Beat, error) {
	r := wire.NewReader(buf)
	if r.Byte() != version {
		return Beat{}, ErrVersion
	}
	b := Beat{Node: r.String()}
	n := r.Uvarint()
	if n > uint64(r.Len())/beatShardBytesMin {
		return Beat{}, wire.ErrShort
	}
	b.Shards = make([]BeatShard, n)
	for i := range b.Shards {
		s := &b.Shards[i]
		s.Shard, s.Term = int(r.Uvarint()), r.Uvarint()
		m := r.Uvarint()
		if m > uint64(r.Len())/beatChainBytesMin {
			return Beat{}, wire.ErrShort
		}
		s.Chains = make([]BeatChain, m)
		for j := range s.Chains {
			s.Chains[j] = BeatChain{Partition: int(r.Uvarint()), Last: r.Uvarint()}
		}
	}
	return b, r.Err()
}
