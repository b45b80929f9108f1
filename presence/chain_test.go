package presence_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

// link is one chain: the events of a shard in a partition.
type link struct{ shard, partition int }

func linkOf(p *message.Publication) link {
	key := channel.Key{App: p.App, Name: p.Channel}
	return link{key.Shard(subject.PresenceShards), key.Partition(partitions)}
}

// broken lists the places where an event does not name the one before it.
func (l *liveLog) broken() (ends map[link]uint64, breaks []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ends = map[link]uint64{}
	for i := range l.pubs {
		p := &l.pubs[i]
		at := linkOf(p)
		if p.Prev != ends[at] || p.Seq <= p.Prev {
			breaks = append(breaks, fmt.Sprintf("%s is %d after %d, want after %d", describe(*p), p.Seq, p.Prev, ends[at]))
		}
		ends[at] = p.Seq
	}
	return ends, breaks
}

// beats collects heartbeats.
type beats struct {
	mu sync.Mutex
	// guarded by mu
	terms map[int]uint64  // by shard
	ends  map[link]uint64 // newest
}

func (e *env) beats() *beats {
	b := &beats{terms: map[int]uint64{}, ends: map[link]uint64{}}
	_, err := e.nc.Subscribe(subject.PresenceSync, func(m *nats.Msg) {
		beat, err := presence.ParseBeat(m.Data)
		if err != nil {
			e.t.Errorf("heartbeat: %v", err)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, s := range beat.Shards {
			if s.Term == 0 || s.Term < b.terms[s.Shard] {
				e.t.Errorf("term %d of shard %d after %d", s.Term, s.Shard, b.terms[s.Shard])
			}
			b.terms[s.Shard] = s.Term
			for _, c := range s.Chains {
				b.ends[link{s.Shard, c.Partition}] = c.Last
			}
		}
	})
	if err != nil {
		e.t.Fatal(err)
	}
	return b
}

func (b *beats) term(shard int) uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.terms[shard]
}

func (b *beats) have(ends map[link]uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for at, seq := range ends {
		if b.ends[at] != seq {
			return false
		}
	}
	return true
}

// TestEventsAreChained: each event names the one before it in its shard and
// partition, whatever its kind, and heartbeats tell of the newest. The next
// owner begins new chains with a higher term.
func TestEventsAreChained(t *testing.T) {
	e := newEnv(t, app.App{SubscriptionCount: true, Watchlist: true})
	b := e.beats()
	first := e.start("p1")
	g := e.gateway("ga")
	for i := range 40 {
		g.join(fmt.Sprint("presence-", i%20), fmt.Sprint("u", i))
		g.subscribers(fmt.Sprint("news-", i), uint64(1+i%3))
		g.online(fmt.Sprint("#online-", i), true)
	}
	for i := range 20 {
		g.leave(fmt.Sprint("presence-", i), fmt.Sprint("u", i))
	}
	e.eventually("all events", func() bool { return len(e.live.all()) >= 40+40+40+20 })
	ends, breaks := e.live.broken()
	if len(breaks) > 0 {
		t.Errorf("broken: %v", breaks)
	}
	e.eventually("heartbeats with all chains", func() bool { return b.have(ends) })

	at := linkOf(&message.Publication{App: "1", Channel: "presence-0"})
	term := b.term(at.shard)
	first.stop()
	e.start("p2")
	e.eventually("a higher term", func() bool { return b.term(at.shard) > term })
	g.join("presence-0", "another")
	e.eventually("an event of the new owner", func() bool { return e.live.after(at, ends[at]) != nil })
	if p := e.live.after(at, ends[at]); p.Prev != 0 {
		t.Errorf("the new owner goes on with a chain that it does not know: %+v", p)
	}
}

// after gives the first event of a chain behind seq, nil if there is none.
func (l *liveLog) after(at link, seq uint64) *message.Publication {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.pubs {
		if p := &l.pubs[i]; linkOf(p) == at && p.Seq > seq {
			return p
		}
	}
	return nil
}
