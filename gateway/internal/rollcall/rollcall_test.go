package rollcall

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/carillon-rt/carillon/gateway/internal/hub"
	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/natsconn"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

// node is the subscribers of a gateway, and the owners that it asks.
type node struct {
	t     *testing.T
	calls *RollCall
	conns *natsconn.Conns

	mu sync.Mutex
	// guarded by mu
	keys    []channel.Key
	rosters map[channel.Key][]hub.State
	unsure  int              // so many corrections are not enough
	asked   []presence.Query // in order
	answers []presence.Answer
}

func (n *node) Told(partition int, matches func(channel.Key) bool) (keys []channel.Key) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, k := range n.keys {
		if k.Partition(2) == partition && matches(k) {
			keys = append(keys, k)
		}
	}
	return keys
}

func (n *node) Correct(k channel.Key, state *hub.State) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.rosters[k] = append(n.rosters[k], *state)
	n.unsure--
	return n.unsure < 0
}

func (n *node) corrections(k channel.Key) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.rosters[k])
}

// answer is what owners say, in order; the last one stays.
func (n *node) answer(m *nats.Msg) {
	var q presence.Query
	if err := json.Unmarshal(m.Data, &q); err != nil {
		n.t.Errorf("query: %v", err)
	}
	n.mu.Lock()
	n.asked = append(n.asked, q)
	a := n.answers[0]
	if len(n.answers) > 1 {
		n.answers = n.answers[1:]
	}
	n.mu.Unlock()
	a.Channels = slices.Clone(a.Channels)
	for i := range a.Channels {
		a.Channels[i].Name = q.Channel
	}
	body, err := json.Marshal(a)
	if err == nil {
		err = m.Respond(body)
	}
	if err != nil {
		n.t.Errorf("answer: %v", err)
	}
}

func start(t *testing.T, keys int, answers ...presence.Answer) (*node, *natstest.TestServer) {
	srv := natstest.Server(t)
	n := &node{t: t, conns: srv.Conns(t), rosters: map[channel.Key][]hub.State{}, answers: answers}
	for i := range keys {
		n.keys = append(n.keys, key(i))
	}
	ask, err := natsconn.NewRequester(n.conns.Req, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for shard := range subject.PresenceShards {
		if _, err := n.conns.Req.Subscribe(subject.PresenceQuery(shard), n.answer); err != nil {
			t.Fatal(err)
		}
	}
	n.calls = New(2, Deps{Conns: n.conns, Ask: ask, Log: natstest.Logger(t)})
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() {
		if err := ask.Run(ctx); err != nil {
			t.Errorf("requester: %v", err)
		}
	})
	running.Go(func() {
		if err := n.calls.Run(ctx, n); err != nil {
			t.Errorf("roll call: %v", err)
		}
	})
	t.Cleanup(func() {
		stop()
		running.Wait()
	})
	return n, srv
}

func (n *node) event(k channel.Key, seq, prev uint64) {
	n.calls.Event(k.Partition(2), &message.Publication{Kind: message.MemberAdded, App: k.App, Channel: k.Name, Seq: seq, Prev: prev})
}

func (n *node) until(what string, ok func() bool) {
	n.t.Helper()
	await.Within(n.t, 15*time.Second, what, ok)
}

func roster(version uint64, ids ...string) presence.Answer {
	a := presence.Answer{Version: version, Channels: []presence.ChannelInfo{{Users: len(ids)}}}
	for _, id := range ids {
		a.Channels[0].Members = append(a.Channels[0].Members, presence.MemberInfo{ID: id, RawID: `"` + id + `"`})
	}
	return a
}

// TestOnlyDoubtfulChannelsAreAskedFor: a gap in a chain concerns the channels
// of its shard and partition.
func TestOnlyDoubtfulChannelsAreAskedFor(t *testing.T) {
	n, _ := start(t, 30, roster(7, "a"))
	k := n.keys[0]
	n.event(k, 5, 0)
	n.event(k, 6, 5)
	n.event(k, 9, 8)
	n.until("the channel was asked for", func() bool { return n.corrections(k) == 1 })
	n.mu.Lock()
	defer n.mu.Unlock()
	for other, got := range n.rosters {
		if other.Partition(2) != k.Partition(2) || other.Shard(subject.PresenceShards) != k.Shard(subject.PresenceShards) {
			t.Errorf("%v was corrected with %v", other, got)
		}
	}
	if got := n.rosters[k][0]; got.Version != 7 || fmt.Sprint(got.Members) != `[{a "a" }]` {
		t.Errorf("corrected with %+v", got)
	}
	if gaps := testutil.ToFloat64(n.calls.metrics.doubts[Gap]); gaps != 1 {
		t.Errorf("%v gaps", gaps)
	}
}

func TestRostersInParts(t *testing.T) {
	first := roster(7, "a", "b")
	first.More = true
	n, _ := start(t, 1, first, roster(9, "c"))
	n.calls.Unsure(key(0))
	n.until("the channel was asked for", func() bool { return n.corrections(key(0)) == 1 })
	got := n.rosters[key(0)][0]
	if got.Version != 7 || len(got.Members) != 3 || got.Members[2].ID != "c" || n.asked[1].After != "b" {
		t.Errorf("corrected with %+v after %+v", got, n.asked)
	}
}

// TestAsksForWhatWasTold: members of presence channels, the number of
// subscriptions of others, and whether a watched user is online.
func TestAsksForWhatWasTold(t *testing.T) {
	a := roster(7)
	a.Channels[0].Subscriptions, a.Online = 5, []string{"u"}
	n, _ := start(t, 0, a)
	for name, want := range map[string]presence.Query{
		"presence-a": {App: "1", Channel: "presence-a", Members: true},
		"news":       {App: "1", Channel: "news"},
		"#online-u":  {App: "1", Online: []string{"u"}},
	} {
		k := channel.Key{App: "1", Name: name}
		n.calls.Unsure(k)
		n.until(name+" was asked for", func() bool { return n.corrections(k) == 1 })
		n.mu.Lock()
		if got := n.asked[len(n.asked)-1]; !reflect.DeepEqual(got, want) {
			t.Errorf("asked %+v, want %+v", got, want)
		}
		if got := n.rosters[k][0]; !got.Online || name == "news" && got.Subscriptions != 5 {
			t.Errorf("corrected with %+v", got)
		}
		n.mu.Unlock()
	}
}

// TestAsksUntilItIsSure: errors, old releases and incomplete rosters are not
// the last word.
func TestAsksUntilItIsSure(t *testing.T) {
	incomplete := roster(6, "a")
	incomplete.Incomplete = true
	n, _ := start(t, 1, presence.Answer{Error: "not now"}, roster(0), incomplete, roster(7, "a"))
	n.mu.Lock()
	n.unsure = 1
	n.mu.Unlock()
	n.calls.Unsure(key(0))
	n.until("a good roster came", func() bool { return n.corrections(key(0)) == 2 })
	if got := n.rosters[key(0)]; !got[0].Incomplete || got[1].Incomplete {
		t.Errorf("corrected with %+v", got)
	}
	n.until("two attempts are counted as failed", func() bool { return testutil.ToFloat64(n.calls.metrics.failed) == 2 })
}

// TestHeartbeatsTellWhatIsMissing, and what can't be read is counted.
func TestHeartbeatsTellWhatIsMissing(t *testing.T) {
	n, _ := start(t, 4, roster(7, "a"))
	k := n.keys[1]
	send := func(data []byte) {
		if err := n.conns.Req.Publish(subject.PresenceSync, data); err != nil {
			t.Fatal(err)
		}
	}
	n.event(k, 5, 0)
	shard, chains := k.Shard(subject.PresenceShards), presence.BeatChain{Partition: k.Partition(2), Last: 5}
	n.until("a heartbeat is read", func() bool { // sent again: the subscription may be new
		send([]byte("no heartbeat"))
		send(presence.AppendBeat(nil, beat(shard, 1, chains)))
		return testutil.ToFloat64(n.calls.metrics.malformed) > 0
	})
	if n.corrections(k) > 0 {
		t.Error("doubt without a reason")
	}
	chains.Last = 6
	n.until("the channel was asked for", func() bool {
		send(presence.AppendBeat(nil, beat(shard, 1, chains)))
		return n.corrections(k) > 0
	})
}

// TestReconnect: after it, everything is asked for.
func TestReconnect(t *testing.T) {
	n, srv := start(t, 200, roster(7, "a"))
	n.calls.Unsure(key(0))
	n.until("it runs", func() bool { return n.corrections(key(0)) == 1 })
	srv.Stop()
	srv.Start()
	n.until("all were asked for", func() bool {
		for _, k := range n.keys {
			if n.corrections(k) == 0 {
				return false
			}
		}
		return true
	})
	n.until("none is left in the queue", func() bool { return testutil.ToFloat64(n.calls.metrics.waiting) == 0 })
}

func TestSlowConsumer(t *testing.T) {
	n, _ := start(t, 200, roster(7, "a"))
	n.calls.slow(subject.Sync(1))
	n.calls.slow(subject.Live(2)) // there is none
	n.calls.slow(subject.Live(1))
	n.until("the partition was asked for", func() bool {
		for _, k := range n.keys {
			if k.Partition(2) == 1 && n.corrections(k) == 0 {
				return false
			}
		}
		return true
	})
	for _, k := range n.keys {
		if k.Partition(2) == 0 && n.corrections(k) > 0 {
			t.Errorf("%v was asked for", k)
		}
	}
}
