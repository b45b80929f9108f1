package presence

import (
	"strconv"
	"strings"

	"github.com/carillon-rt/carillon/presence/internal/state"
	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/subject"
)

// announcer packs events into one batch per partition and turn, and chains
// them.
type announcer struct {
	publish    func(subject string, data []byte) error
	partitions int
	batches    []message.Batch
	dirty      []int           // partitions with something in their batch
	chains     map[int]*chains // by shard
	beats      int             // heartbeats so far
	beatMs     int64           // when the last one was
}

func newAnnouncer(partitions int, publish func(subject string, data []byte) error) *announcer {
	return &announcer{
		publish: publish, partitions: partitions, batches: make([]message.Batch, partitions), chains: make(map[int]*chains),
	}
}

func (a *announcer) chainsOf(shard int) *chains {
	c := a.chains[shard]
	if c == nil {
		c = &chains{last: make([]uint64, a.partitions), at: make([]int, a.partitions)}
		a.chains[shard] = c
	}
	return c
}

// endChains forgets those of a shard that is not owned any more: the next
// ownership begins new ones.
func (a *announcer) endChains(shard int) { delete(a.chains, shard) }

// add puts an event of a shard into its batch; err tells of a full one that could not be
// published, with the number of events lost.
func (a *announcer) add(shard int, e *state.Effect) (lost int, err error) {
	pub := publication(e)
	p := e.Key.Partition(a.partitions)
	pub.Seq, pub.Prev = e.Version, a.chainsOf(shard).next(p, e.Version, a.beats)
	b := &a.batches[p]
	if !b.Fits(&pub, message.BatchBytesLeast) {
		lost, err = a.send(p)
	}
	if b.Len() == 0 {
		a.dirty = append(a.dirty, p)
	}
	b.Add(&pub)
	return lost, err
}

// flush publishes what is left.
func (a *announcer) flush() (lost int, err error) {
	for _, p := range a.dirty {
		n, sendErr := a.send(p)
		if lost += n; sendErr != nil {
			err = sendErr
		}
	}
	a.dirty = a.dirty[:0]
	return lost, err
}

func (a *announcer) send(p int) (lost int, err error) {
	b := &a.batches[p]
	if b.Len() == 0 {
		return 0, nil
	}
	if err = a.publish(subject.Live(p), b.Bytes()); err != nil {
		lost = b.Len()
	}
	b.Reset()
	return lost, err
}

// publication is how subscribers' gateways are told of an effect.
func publication(e *state.Effect) message.Publication {
	pub := message.Publication{App: e.Key.App, Channel: e.Key.Name, Version: e.Version, TimeMs: uint64(max(e.AtMs, 0))}
	switch e.Kind {
	case state.MemberAdded:
		pub.Kind, pub.UserID, pub.Data = message.MemberAdded, e.Member.RawID, []byte(e.Member.Info)
	case state.MemberRemoved:
		pub.Kind, pub.UserID = message.MemberRemoved, e.Member.RawID
	case state.Count:
		pub.Kind, pub.Version = message.SubscriptionCount, e.Count
	case state.Online:
		pub.Kind, pub.UserID = message.UserOnline, e.Member.ID
	case state.Offline:
		pub.Kind, pub.UserID = message.UserOffline, e.Member.ID
	}
	return pub
}

// hookEvent is how the application is told of an effect.
func hookEvent(e *state.Effect) hook.Event {
	ev := hook.Event{Channel: e.Key.Name, TimeMs: e.AtMs}
	switch e.Kind {
	case state.MemberAdded:
		ev.Name, ev.UserID = hook.MemberAdded, e.Member.ID
	case state.MemberRemoved:
		ev.Name, ev.UserID = hook.MemberRemoved, e.Member.ID
	case state.Occupied:
		ev.Name = hook.ChannelOccupied
	case state.Vacated:
		ev.Name = hook.ChannelVacated
	case state.Count:
		n := int(e.Count)
		ev.Name, ev.SubscriptionCount = hook.SubscriptionCount, &n
	case state.Lost:
		ev.Name, ev.Channel, ev.UserID, ev.Reason = hook.Disconnected, "", e.Member.ID, hook.GatewayLost
	}
	return ev
}

// hookID names a webhook event for ever: versions are not given twice by the
// same node.
func hookID(node string, shard int, version uint64) string {
	return strings.Join([]string{"presence", node, strconv.Itoa(shard), strconv.FormatUint(version, 10)}, "/")
}
