package roster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/kit/natsconn"
	"github.com/carillon-rt/carillon/kit/natsembed"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// owners owns all shards, by the model.
type owners struct {
	t   *testing.T
	nc  *nats.Conn
	sub *nats.Subscription

	mu sync.Mutex
	// guarded by mu
	shards  map[string]*model
	deltas  int
	snaps   int
	changed chan struct{}
}

func newOwners(t *testing.T, nc *nats.Conn) *owners {
	o := &owners{t: t, nc: nc, shards: map[string]*model{}, changed: make(chan struct{}, 1)}
	o.sub = must(nc.Subscribe("car.pres.*.*", o.handle))(t)
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return o
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (o *owners) stop() {
	if err := errors.Join(o.sub.Unsubscribe(), o.nc.Flush()); err != nil {
		o.t.Error(err)
	}
}

func (o *owners) shard(name string) *model {
	if o.shards[name] == nil {
		o.shards[name] = newModel(3)
	}
	return o.shards[name]
}

func (o *owners) handle(m *nats.Msg) {
	o.mu.Lock()
	defer o.mu.Unlock()
	tokens := strings.Split(m.Subject, ".")
	var reply []byte
	if shard := o.shard(tokens[2]); tokens[3] == "delta" {
		d, err := presence.ParseDelta(m.Data)
		if err != nil {
			o.t.Errorf("delta: %v", err)
			return
		}
		o.deltas++
		if d.Snapshot {
			o.snaps++
		}
		r := shard.apply(o.t, m.Data)
		reply = presence.AppendReply(nil, &r)
	} else {
		reply = o.query(shard, m.Data)
	}
	if err := m.Respond(reply); err != nil {
		o.t.Errorf("respond: %v", err)
	}
	select {
	case o.changed <- struct{}{}:
	default:
	}
}

func (o *owners) query(shard *model, body []byte) []byte {
	var q presence.Query
	if err := json.Unmarshal(body, &q); err != nil {
		o.t.Errorf("query: %v", err)
	}
	var a presence.Answer
	for _, u := range q.Online {
		if shard.online[onlineKey(q.App, u)] {
			a.Online = append(a.Online, u)
		}
	}
	return must(json.Marshal(a))(o.t)
}

func (o *owners) until(what string, ok func() bool) {
	o.t.Helper()
	timeout := time.After(15 * time.Second)
	for {
		o.mu.Lock()
		done := ok()
		o.mu.Unlock()
		if done {
			return
		}
		select {
		case <-o.changed:
		case <-timeout:
			o.t.Fatalf("never: %s", what)
		}
	}
}

// members of a channel, as its owner knows them. mu is held.
func (o *owners) members(key channel.Key) []string {
	var out []string
	for u := range o.shard(fmt.Sprint(key.Shard(subject.PresenceShards))).members[key] {
		out = append(out, u)
	}
	slices.Sort(out)
	return out
}

// fakeCluster is a membership that the test changes.
type fakeCluster struct {
	mu      sync.Mutex
	members []cluster.Member
	changed chan struct{}
}

func newFakeCluster(nodes ...string) *fakeCluster {
	c := &fakeCluster{changed: make(chan struct{}, 1)}
	c.set(nodes...)
	return c
}

func (c *fakeCluster) set(nodes ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.members = nil
	for _, n := range nodes {
		c.members = append(c.members, cluster.Member{Node: n, Incarnation: "1", Roles: []string{presenceRole}})
	}
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *fakeCluster) Local() cluster.Member { return cluster.Member{Node: "gw", Incarnation: "run"} }

func (c *fakeCluster) Members() []cluster.Member {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.members
}

func (c *fakeCluster) Watch() (<-chan struct{}, func()) { return c.changed, func() {} }

// start runs a roster on srv.
func start(t *testing.T, srv *natstest.TestServer, members cluster.Membership, cfg Config) *Roster {
	t.Helper()
	nc := srv.Conns(t).Req
	ask := must(natsconn.NewRequester(nc, 1000))(t)
	cfg.Node, cfg.Incarnation = "gw", "run"
	r := must(New(cfg, Deps{Ask: ask, NATS: nc, Members: members, Log: natstest.Logger(t)}))(t)
	for _, run := range []func(context.Context) error{ask.Run, r.Run} {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- run(ctx) }()
		t.Cleanup(func() {
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
	return r
}

type joined struct {
	res presence.Result
	err error
}

func join(t *testing.T, r *Roster, key channel.Key, user string) joined {
	t.Helper()
	got := make(chan joined, 2)
	r.Join(key, presence.Member{ID: user, RawID: user}, func(res presence.Result, err error) { got <- joined{res, err} })
	select {
	case j := <-got:
		return j
	case <-time.After(15 * time.Second):
		t.Fatal("a join is never answered")
		panic("unreachable")
	}
}

var room = channel.Key{App: "1", Name: "presence-room"}

func TestRosterTellsOwners(t *testing.T) {
	srv := natstest.Server(t)
	o := newOwners(t, srv.Conns(t).Req)
	r := start(t, srv, newFakeCluster("p1"), Config{})
	for i, user := range []string{"1", "2", "2", "3"} {
		j := join(t, r, room, user)
		if j.err != nil || j.res.Full || !slices.ContainsFunc(j.res.Members, func(m presence.Member) bool { return m.ID == user }) {
			t.Fatalf("join %d: %+v", i, j)
		}
	}
	if j := join(t, r, room, "4"); !j.res.Full || j.res.Limit != 3 {
		t.Fatalf("the fourth user of three: %+v", j)
	}
	r.Leave(room, "2")
	r.Leave(room, "1")
	for range 5 {
		r.Subscribed(room)
	}
	r.Unsubscribed(room)
	r.Online("1", "9")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := r.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if got := o.members(room); !slices.Equal(got, []string{"2", "3"}) {
		t.Errorf("members are %v, want 2 (its other connection) and 3", got)
	}
	shard := o.shard(fmt.Sprint(room.Shard(subject.PresenceShards)))
	if got := shard.counts[room]; got != 4 {
		t.Errorf("count is %d, want 4", got)
	}
	if key := onlineKey("1", "9"); !o.shard(fmt.Sprint(key.Shard(subject.PresenceShards))).online[key] {
		t.Error("user 9 is not online")
	}
}

func TestOwnerComesLate(t *testing.T) {
	srv := natstest.Server(t)
	nc := srv.Conns(t).Req
	r := start(t, srv, newFakeCluster("p1"), Config{JoinTimeout: 300 * time.Millisecond, RequestTimeout: 100 * time.Millisecond})
	if j := join(t, r, room, "1"); !errors.Is(j.err, ErrUnavailable) {
		t.Fatalf("without an owner: %+v, want ErrUnavailable", j)
	}
	r.Subscribed(room)
	o := newOwners(t, nc)
	o.until("count arrives", func() bool { return o.shard(fmt.Sprint(room.Shard(subject.PresenceShards))).counts[room] == 1 })
	o.mu.Lock()
	if got := o.members(room); len(got) != 0 {
		t.Errorf("members are %v, though the join has failed", got)
	}
	o.mu.Unlock()
	if j := join(t, r, room, "1"); j.err != nil || len(j.res.Members) != 1 {
		t.Fatalf("with an owner: %+v", j)
	}
}

func TestOwnerChanges(t *testing.T) {
	srv := natstest.Server(t)
	nc := srv.Conns(t).Req
	members := newFakeCluster("p1")
	first := newOwners(t, nc)
	r := start(t, srv, members, Config{})
	if j := join(t, r, room, "1"); j.err != nil {
		t.Fatal(j.err)
	}
	first.until("a first snapshot of every shard", func() bool { return first.snaps == subject.PresenceShards })
	first.stop()
	second := newOwners(t, nc)
	members.set("p2")
	second.until("a snapshot of every shard for the new owner", func() bool {
		return second.snaps == subject.PresenceShards && slices.Equal(second.members(room), []string{"1"})
	})
	body := must(json.Marshal(presence.SnapshotRequest{Shard: room.Shard(subject.PresenceShards)}))(t)
	if err := nc.Publish(subject.GatewaySnapshot("gw"), body); err != nil {
		t.Fatal(err)
	}
	second.until("the snapshot that was asked for", func() bool { return second.snaps == subject.PresenceShards+1 })
}

func TestWhoIsOnline(t *testing.T) {
	srv := natstest.Server(t)
	o := newOwners(t, srv.Conns(t).Req)
	r := start(t, srv, newFakeCluster("p1"), Config{RequestTimeout: 500 * time.Millisecond})
	var users []string
	for i := range 40 {
		users = append(users, fmt.Sprint(i))
		if i%3 == 0 {
			r.Online("1", fmt.Sprint(i))
		}
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	ask := func(users []string) (online []string, err error) {
		done := make(chan struct{})
		r.WhoIsOnline("1", users, func(o []string, e error) {
			online, err = o, e
			close(done)
		})
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("never answered")
		}
		return online, err
	}
	if online, err := ask(users); err != nil || len(online) != 14 {
		t.Fatalf("online are %v (%v), want 14", online, err)
	}
	if online, err := ask(nil); err != nil || len(online) != 0 {
		t.Fatalf("nobody asked for: %v, %v", online, err)
	}
	o.stop()
	if _, err := ask(users); err == nil {
		t.Fatal("without owners the answer must be an error")
	}
}

func TestPing(t *testing.T) {
	srv := natstest.Server(t)
	nc := srv.Conns(t).Req
	o := newOwners(t, nc)
	start(t, srv, newFakeCluster("p1"), Config{})
	o.until("it runs", func() bool { return o.deltas > 0 })
	if m := must(nc.Request(subject.GatewayPing("gw"), nil, 10*time.Second))(t); string(m.Data) != "run" {
		t.Errorf("the ping is answered with %q, want the incarnation", m.Data)
	}
}

func TestClose(t *testing.T) {
	srv := natstest.Server(t)
	nc := srv.Conns(t).Req
	ask := must(natsconn.NewRequester(nc, 10))(t)
	r := must(New(Config{Node: "gw", Incarnation: "run"}, Deps{Ask: ask, NATS: nc, Members: newFakeCluster(), Log: natstest.Logger(t)}))(t)
	answers := make(chan error, 3)
	note := func(_ presence.Result, err error) { answers <- err }
	r.Join(room, presence.Member{ID: "1"}, note)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Run(ctx); err != nil {
		t.Fatal(err)
	}
	r.Join(room, presence.Member{ID: "2"}, note)
	for range 2 {
		if err := <-answers; !errors.Is(err, ErrUnavailable) {
			t.Errorf("answered with %v", err)
		}
	}
	if err := r.Flush(t.Context()); err != nil {
		t.Errorf("flush after the end: %v", err)
	}
	ask.Run(ctx)
}

// TestCountsWaitUnlessSomethingIsUrgent: replies, of which one comes for each
// delta, must not make the next delta of what has been counted meanwhile.
func TestCountsWaitUnlessSomethingIsUrgent(t *testing.T) {
	r := must(New(Config{Node: "gw", Incarnation: "run"}, Deps{}))(t)
	r.Subscribed(room)
	r.put(event{kind: evReply})
	if queue, counts := r.next(false); len(queue) != 1 || len(counts) != 0 {
		t.Errorf("with a reply: %d events and %d counts, want 1 and 0", len(queue), len(counts))
	}
	r.Leave(room, "1")
	r.Unsubscribed(room)
	if queue, counts := r.next(false); len(queue) != 1 || len(counts) != 2 || counts[0].by+counts[1].by != 0 {
		t.Errorf("with a leave: %d events and %+v", len(queue), counts)
	}
	r.Subscribed(room)
	if queue, counts := r.next(true); len(queue) != 0 || len(counts) != 1 {
		t.Errorf("when it is time: %d events and %d counts, want 0 and 1", len(queue), len(counts))
	}
}

// What there is to tell is told in messages that the broker carries.
func TestDeltasOfASmallBroker(t *testing.T) {
	srv := natstest.Server(t, func(c *natsembed.Config) { c.MaxPayload = 64 << 10 })
	o := newOwners(t, srv.Conns(t).Req)
	r := start(t, srv, newFakeCluster("p1"), Config{})
	const n = 2000
	var keys []channel.Key
	for i := 0; len(keys) < n; i++ {
		key := channel.Key{App: "1", Name: fmt.Sprintf("%s-%d", strings.Repeat("n", 40), i)}
		if key.Shard(subject.PresenceShards) == 0 {
			keys = append(keys, key)
			r.Subscribed(key)
		}
	}
	o.until("all are counted", func() bool {
		counts := o.shard("0").counts
		return !slices.ContainsFunc(keys, func(key channel.Key) bool { return counts[key] != 1 })
	})
}
