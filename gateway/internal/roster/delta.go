package roster

import (
	"github.com/carillon-rt/carillon/proto/presence"
)

// Limits of a delta: NATS takes messages of 1 MiB unless it is told otherwise.
const (
	deltaBytesMax = 512 << 10
	opBytes       = 16 // of an operation, besides its strings
)

// flight is the delta that the owner has not answered yet.
type flight struct {
	seq      uint64
	snapshot bool
	data     []byte    // as it was sent: a repeat is exact
	wants    []*member // whom the results are about, in order
}

// builder collects the operations of a delta within the limits.
type builder struct {
	max   int  // bytes
	part  bool // of a snapshot that has begun before
	ops   []presence.Op
	wants []*member
	bytes int
}

func (b *builder) full() bool { return b.bytes >= b.max }

func (b *builder) add(op presence.Op, e *entry) {
	op.App, op.Channel = e.key.App, e.key.Name
	b.ops = append(b.ops, op)
	b.bytes += opBytes + len(op.App) + len(op.Channel) + len(op.User) + len(op.RawID) + len(op.Info)
}

func (b *builder) want(m *member) {
	b.wants = append(b.wants, m)
	m.flying = append(m.flying, m.waiters...)
	m.waiters = nil
}

// next makes the delta that is to be sent now. It returns nil while one is
// in flight and when there is nothing to tell.
func (s *shard) next(node, incarnation string) *flight {
	if s.flight != nil || !s.resync && len(s.dirty) == 0 {
		return nil
	}
	b := builder{max: s.bytesMax}
	snapshot := s.resync
	if snapshot {
		s.resync = false
		s.buildSnapshot(&b)
		s.parts = b.full() && len(s.dirty) > 0
	} else {
		b.part = s.parts
		s.buildChanges(&b)
		if len(b.ops) == 0 && !b.part {
			return nil
		}
		s.parts = b.part && len(s.dirty) > 0
	}
	s.seq++
	s.flight = &flight{seq: s.seq, snapshot: snapshot, wants: b.wants, data: presence.AppendDelta(nil, &presence.Delta{
		Node: node, Incarnation: incarnation, Shard: s.number, Seq: s.seq, Snapshot: snapshot, More: s.parts, Ops: b.ops,
	})}
	return s.flight
}

// buildChanges adds what has changed since the owner was told.
func (s *shard) buildChanges(b *builder) {
	queue := s.dirty
	s.dirty = nil
	for i, e := range queue {
		if b.full() {
			s.dirty = append(s.dirty, queue[i:]...)
			return
		}
		e.queued = false
		s.buildEntry(b, e)
	}
}

func (s *shard) buildEntry(b *builder, e *entry) {
	members := e.changed
	e.changed = nil
	for i, m := range members {
		if b.full() {
			e.changed = append(e.changed, members[i:]...)
			s.change(e)
			break
		}
		m.queued = false
		b.member(m)
		if m.conns == 0 {
			delete(e.members, m.user)
		}
	}
	if e.count != e.toldCount {
		e.toldCount = e.count
		b.add(presence.Op{Kind: presence.Count, Count: uint64(e.count)}, e)
	}
	if on := e.online > 0; on != e.toldOn {
		e.toldOn = on
		b.add(presence.Op{Kind: onlineKind(on), User: onlineUser(e)}, e)
	}
	s.forgetEmpty(e)
}

func (s *shard) forgetEmpty(e *entry) {
	if e.empty() {
		delete(s.entries, e.key)
	}
}

// needsRoster: its operation is answered with a result.
func (m *member) needsRoster() bool { return m.conns > 0 && (!m.told || m.renew || len(m.waiters) > 0) }

// member adds the operations that bring the owner's view of m up to date.
func (b *builder) member(m *member) {
	if m.conns == 0 {
		if m.told {
			m.told, m.present = false, false
			b.add(presence.Op{Kind: presence.Leave, User: m.user}, m.in)
		}
		return
	}
	if m.told && m.renew {
		m.told, m.present = false, false
		b.add(presence.Op{Kind: presence.Leave, User: m.user}, m.in)
	}
	m.renew = false
	switch {
	case !m.told && !(b.part && m.present):
		m.told = true
		b.add(presence.Op{Kind: presence.Join, User: m.user, RawID: m.rawID, Info: m.info, Want: true}, m.in)
		b.want(m)
		return
	case !m.told:
		m.told = true
		b.add(presence.Op{Kind: presence.Join, User: m.user, RawID: m.rawID, Info: m.info}, m.in)
	}
	if len(m.waiters) > 0 {
		b.add(presence.Op{Kind: presence.Read, Want: true}, m.in)
		b.want(m)
	}
}

// buildSnapshot adds everything. What does not fit stays behind as changes,
// which the next parts bring, and so does who only waits for a roster.
func (s *shard) buildSnapshot(b *builder) {
	s.dirty = nil
	for _, e := range s.entries {
		e.queued, e.changed = false, nil
		e.toldCount, e.toldOn = 0, false
		for _, m := range e.members {
			s.snapshotMember(b, m)
		}
		if !b.full() {
			s.snapshotEntry(b, e)
		}
		if len(e.changed) > 0 || e.count != e.toldCount || (e.online > 0) != e.toldOn {
			s.change(e)
		}
		s.forgetEmpty(e)
	}
}

func (s *shard) snapshotMember(b *builder, m *member) {
	m.queued, m.told, m.renew = false, false, false
	switch {
	case m.conns == 0:
		delete(m.in.members, m.user)
		return
	case b.full():
	case m.present:
		m.told = true
		b.add(presence.Op{Kind: presence.Join, User: m.user, RawID: m.rawID, Info: m.info}, m.in)
	default:
		m.told = true
		b.add(presence.Op{Kind: presence.Join, User: m.user, RawID: m.rawID, Info: m.info, Want: true}, m.in)
		b.want(m)
	}
	if m.needsRoster() {
		s.changeMember(m)
	}
}

func (s *shard) snapshotEntry(b *builder, e *entry) {
	if e.count > 0 {
		e.toldCount = e.count
		b.add(presence.Op{Kind: presence.Count, Count: uint64(e.count)}, e)
	}
	if e.online > 0 {
		e.toldOn = true
		b.add(presence.Op{Kind: presence.Online, User: onlineUser(e)}, e)
	}
}

// landed takes the owner's answer to the delta in flight. It returns false
// when the answer is not one: then the delta must be repeated.
func (s *shard) landed(reply *presence.Reply) bool {
	f := s.flight
	if reply.Status != presence.OK {
		s.startOver()
		return true
	}
	if len(reply.Results) != len(f.wants) {
		return false
	}
	s.flight = nil
	for i, m := range f.wants {
		s.result(m, &reply.Results[i])
	}
	return true
}

func (s *shard) result(m *member, res *presence.Result) {
	if res.Deferred { // the roster did not fit into the reply: ask for it alone
		m.present = m.told
		m.waiters, m.flying = append(m.flying, m.waiters...), nil
		s.changeMember(m)
		return
	}
	if !res.Full {
		m.present = m.told
		s.answer(m.flying, *res, nil)
		m.flying = nil
		s.settled(m)
		return
	}
	// By a new owner perhaps: those who were told that they joined stay
	// subscribed.
	m.told, m.present = false, false
	s.refuse(m, &m.flying, *res, nil)
	if m.joined() == 0 {
		s.refuse(m, &m.waiters, *res, nil)
	}
}

// startOver forgets what the owner was told: the next delta is a snapshot.
func (s *shard) startOver() {
	s.resync = true
	if s.flight == nil {
		return
	}
	for _, m := range s.flight.wants {
		m.waiters = append(m.flying, m.waiters...)
		m.flying = nil
	}
	s.flight = nil
}

func onlineKind(on bool) presence.OpKind {
	if on {
		return presence.Online
	}
	return presence.Offline
}
