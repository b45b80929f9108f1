// Package presence is the contract between gateways, presence nodes and api.
//
// A gateway is the truth about its own connections. It sums them up per
// channel and user and tells the owner of the channel's shard in numbered
// deltas; when a number is missing the owner asks for a snapshot.
package presence

import "github.com/carillon-rt/carillon/proto/wire"

// OpKind is what one operation of a delta says.
type OpKind uint8

// Kinds. Numbers are on the wire: append only.
const (
	// Join: the user has its first connection of this gateway in the channel.
	Join OpKind = 1
	// Leave: the user's last connection of this gateway has left the channel.
	Leave OpKind = 2
	// Count: the gateway now has Count subscriptions on the channel.
	Count OpKind = 3
	// Online: the signed-in user has its first connection of this gateway;
	// Channel is "#online-<id>".
	Online OpKind = 4
	// Offline: the signed-in user's last connection of this gateway is gone.
	Offline OpKind = 5
	// Read changes nothing and asks for the roster (Want).
	Read OpKind = 6
)

// Op is one operation.
type Op struct {
	Kind    OpKind
	App     string
	Channel string
	User    string // id in string form
	RawID   string // id as JSON; Join only
	Info    string // user info as JSON, or ""; Join only
	Count   uint64 // Count only
	// Want asks for the channel's roster as of after this operation.
	Want bool
}

// Delta is what a gateway tells the owner of a shard.
// Subject: subject.PresenceDelta(shard), as a request; the answer is a Reply.
type Delta struct {
	Node        string // the gateway
	Incarnation string // this run of the gateway
	Shard       int
	// Seq numbers the deltas of (Incarnation, Shard) from 1 without gaps. The
	// owner applies seq == last+1, answers a repeat of the last one like the
	// first time, and answers anything else with Resync.
	Seq uint64
	// Snapshot: Ops is the whole state of this gateway for the shard (Join,
	// Count and Online ops), replacing what the owner had of it.
	Snapshot bool
	// More: a snapshot that is too large for one message goes on in the next
	// delta, which has no Snapshot. What the owner had and no part lists is
	// replaced with the last part, the first one without More; until then the
	// gateway has not reported. In the later parts Join operations without Want
	// are of members that were let in before, as in a snapshot, and there may
	// be other changes among them.
	More bool
	Ops  []Op
}

// Status of a Reply.
type Status uint8

// Statuses.
const (
	OK       Status = 0
	Resync   Status = 1 // send a snapshot
	NotOwner Status = 2 // ask again: the shard has moved
)

// Reply answers a Delta.
type Reply struct {
	Status Status
	// Results has one entry for every Op with Want, in order.
	Results []Result
}

// Result is a roster, or the refusal of a Join.
type Result struct {
	// Full: the channel has reached its member limit and the Join was not
	// applied; Limit is that limit.
	Full  bool
	Limit uint64
	// Deferred: the operation was applied and the roster left out, because the
	// reply would have become too large for one message. Ask again with Read.
	Deferred bool
	// Incomplete: ownership has just moved and not every gateway has reported:
	// members may be missing.
	Incomplete bool
	// Version orders the member events of the channel: the roster includes
	// all events up to this version.
	Version uint64
	Members []Member
}

// Smallest encodings: they bound what a short, malformed message can make a
// reader allocate.
const (
	opBytesMin     = 8
	resultBytesMin = 4
	memberBytesMin = 3
)

// bits of a delta on the wire.
const (
	deltaSnapshot = 1 << 0
	deltaMore     = 1 << 1
)

// bits of a result on the wire.
const (
	resultFull       = 1 << 0
	resultDeferred   = 1 << 1
	resultIncomplete = 1 << 2
)

// Member is a user in a presence channel.
type Member struct {
	ID    string // string form
	RawID string // as JSON
	Info  string // as JSON, or ""
}

// AppendDelta appends the wire form of d.
func AppendDelta(dst []byte, d *Delta) []byte {
	dst = append(dst, version, boolByte(d.Snapshot)*deltaSnapshot|boolByte(d.More)*deltaMore)
	dst = wire.AppendString(dst, d.Node)
	dst = wire.AppendString(dst, d.Incarnation)
	dst = wire.AppendUvarint(dst, uint64(d.Shard))
	dst = wire.AppendUvarint(dst, d.Seq)
	dst = wire.AppendUvarint(dst, uint64(len(d.Ops)))
	for i := range d.Ops {
		op := &d.Ops[i]
		dst = append(dst, byte(op.Kind), boolByte(op.Want))
		for _, s := range [...]string{op.App, op.Channel, op.User, op.RawID, op.Info} {
			dst = wire.AppendString(dst, s)
		}
		dst = wire.AppendUvarint(dst, op.Count)
	}
	return dst
}

// ParseDelta reads what AppendDelta wrote. Its strings alias buf.
func ParseDelta(buf []byte) (Delta, error) {
	r := wire.NewReader(buf)
	if r.Byte() != version {
		return Delta{}, ErrVersion
	}
	bits := r.Byte()
	d := Delta{
		Snapshot: bits&deltaSnapshot != 0, More: bits&deltaMore != 0,
		Node: r.String(), Incarnation: r.String(), Shard: int(r.Uvarint()), Seq: r.Uvarint(),
	}
	n := r.Uvarint()
	if n > uint64(r.Len())/opBytesMin {
		return Delta{}, wire.ErrShort
	}
	d.Ops = make([]Op, n)
	for i := range d.Ops {
		op := &d.Ops[i]
		op.Kind, op.Want = OpKind(r.Byte()), r.Byte() != 0
		op.App, op.Channel, op.User, op.RawID, op.Info = r.String(), r.String(), r.String(), r.String(), r.String()
		op.Count = r.Uvarint()
	}
	return d, r.Err()
}

// AppendReply appends the wire form of p.
func AppendReply(dst []byte, p *Reply) []byte {
	dst = append(dst, version, byte(p.Status))
	dst = wire.AppendUvarint(dst, uint64(len(p.Results)))
	for i := range p.Results {
		res := &p.Results[i]
		dst = append(dst, boolByte(res.Full)*resultFull|boolByte(res.Deferred)*resultDeferred|boolByte(res.Incomplete)*resultIncomplete)
		dst = wire.AppendUvarint(dst, res.Limit)
		dst = wire.AppendUvarint(dst, res.Version)
		dst = wire.AppendUvarint(dst, uint64(len(res.Members)))
		for _, m := range res.Members {
			dst = wire.AppendString(dst, m.ID)
			dst = wire.AppendString(dst, m.RawID)
			dst = wire.AppendString(dst, m.Info)
		}
	}
	return dst
}

// ParseReply reads what AppendReply wrote. Its strings alias buf.
func ParseReply(buf []byte) (Reply, error) {
	r := wire.NewReader(buf)
	if r.Byte() != version {
		return Reply{}, ErrVersion
	}
	p := Reply{Status: Status(r.Byte())}
	n := r.Uvarint()
	if n > uint64(r.Len())/resultBytesMin {
		return Reply{}, wire.ErrShort
	}
	p.Results = make([]Result, n)
	for i := range p.Results {
		res := &p.Results[i]
		bits := r.Byte()
		res.Full, res.Deferred, res.Incomplete = bits&resultFull != 0, bits&resultDeferred != 0, bits&resultIncomplete != 0
		res.Limit, res.Version = r.Uvarint(), r.Uvarint()
		m := r.Uvarint()
		if m > uint64(r.Len())/memberBytesMin {
			return Reply{}, wire.ErrShort
		}
		res.Members = make([]Member, m)
		for j := range res.Members {
			res.Members[j] = Member{ID: r.String(), RawID: r.String(), Info: r.String()}
		}
	}
	return p, r.Err()
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}
