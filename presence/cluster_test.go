package presence_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/kit/service"
	node "github.com/carillon-rt/carillon/presence"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const (
	partitions = 3
	patience   = 15 * time.Second
)

// env is a cluster of presence nodes and fake gateways on one NATS server.
type env struct {
	t    *testing.T
	srv  *natstest.TestServer
	apps *app.Registry
	nc   *nats.Conn
	live *liveLog

	mu sync.Mutex
	// guarded by mu
	members  []cluster.Member
	watchers map[chan struct{}]struct{}
}

func newEnv(t *testing.T, settings app.App) *env {
	leaktest.Check(t)
	settings.ID, settings.Keys = "1", []app.Key{{Key: "k", Secret: "s"}}
	apps, err := app.NewRegistry([]app.App{settings})
	if err != nil {
		t.Fatal(err)
	}
	e := &env{t: t, srv: natstest.Server(t), apps: apps, watchers: map[chan struct{}]struct{}{}}
	e.nc = e.srv.Conns(t).Req
	e.live = listen(t, e.nc)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("events: %v", e.live.all())
		}
	})
	return e
}

// membership is the view of one node: all see the same at once, except a node
// that sees no other presence node.
type membership struct {
	*env
	local   cluster.Member
	blinded *atomic.Bool
}

func (m membership) Members() []cluster.Member {
	all := m.env.Members()
	if !m.blinded.Load() {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(o cluster.Member) bool { return o.HasRole("presence") && o.Node != m.local.Node })
}

func (m membership) Local() cluster.Member { return m.local }

func (e *env) Members() []cluster.Member {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.members
}

func (e *env) Watch() (<-chan struct{}, func()) {
	signal := make(chan struct{}, 1)
	signal <- struct{}{}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.watchers[signal] = struct{}{}
	return signal, func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.watchers, signal)
	}
}

// change replaces the members and tells everybody.
func (e *env) change(f func([]cluster.Member) []cluster.Member) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.members = f(slices.Clone(e.members))
	slices.SortFunc(e.members, func(a, b cluster.Member) int { return cmp.Compare(a.Node, b.Node) })
	for w := range e.watchers {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

func (e *env) add(m cluster.Member) {
	e.change(func(ms []cluster.Member) []cluster.Member {
		return append(slices.DeleteFunc(ms, func(o cluster.Member) bool { return o.Node == m.Node }), m)
	})
}

func (e *env) remove(name string) {
	e.change(func(ms []cluster.Member) []cluster.Member {
		return slices.DeleteFunc(ms, func(o cluster.Member) bool { return o.Node == name })
	})
}

// presenceNode is a running node.
type presenceNode struct {
	svc     *node.Service
	deps    service.Deps
	stop    func()
	blinded atomic.Bool // it sees no other presence node, from the next change on
}

// start runs a presence node and announces it.
func (e *env) start(name string) *presenceNode {
	e.t.Helper()
	return e.startNode(name, &presenceNode{})
}

func (e *env) startNode(name string, n *presenceNode) *presenceNode {
	e.t.Helper()
	local := cluster.Member{Node: name, Incarnation: cluster.NewIncarnation(), Roles: []string{"presence"}}
	deps := e.srv.DepsWith(e.t, membership{e, local, &n.blinded})
	cfg := node.DefaultConfig()
	cfg.Partitions = partitions
	svc, err := node.New(cfg, deps, e.apps)
	if err != nil {
		e.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- svc.Run(ctx) }()
	n.svc, n.deps = svc, deps
	n.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			e.t.Errorf("Run of %s: %v", name, err)
		}
	})
	e.t.Cleanup(n.stop)
	e.add(local)
	return n
}

// crash cuts a node off from NATS, as a kill would.
func (n *presenceNode) crash() {
	n.deps.NATS.Req.Close()
	n.deps.NATS.Live.Close()
}

// query asks the owner of a channel's shard until one answers completely.
func (e *env) query(q presence.Query) presence.Answer {
	e.t.Helper()
	q.App = "1"
	name := q.Channel
	if len(q.Online) > 0 {
		name = channel.OnlinePrefix + q.Online[0]
	}
	return e.queryShard(channel.Key{App: "1", Name: name}.Shard(subject.PresenceShards), q)
}

func (e *env) queryShard(shard int, q presence.Query) presence.Answer {
	e.t.Helper()
	data, err := json.Marshal(q)
	if err != nil {
		e.t.Fatal(err)
	}
	var answer presence.Answer
	e.eventually("a complete answer", func() bool {
		msg, err := e.nc.Request(subject.PresenceQuery(shard), data, time.Second)
		if err != nil {
			return false
		}
		answer = presence.Answer{}
		if err := json.Unmarshal(msg.Data, &answer); err != nil {
			e.t.Fatalf("answer %q: %v", msg.Data, err)
		}
		return !answer.Incomplete && answer.Error == ""
	})
	return answer
}

func (e *env) eventually(what string, ok func() bool) {
	e.t.Helper()
	await.True(e.t, what, ok)
}

// gateway is a fake one that keeps to the protocol, one request at a time.
type gateway struct {
	e    *env
	name string
	inc  string
	nc   *nats.Conn

	mu sync.Mutex
	// guarded by mu
	seq   map[int]uint64
	users map[string][]string // channel -> users
	count map[string]uint64
	here  map[string]bool // online channels
	pings int
}

func (e *env) gateway(name string) *gateway {
	e.t.Helper()
	g := &gateway{
		e: e, name: name, inc: cluster.NewIncarnation(), nc: e.srv.Conns(e.t).Req,
		seq: map[int]uint64{}, users: map[string][]string{}, count: map[string]uint64{}, here: map[string]bool{},
	}
	for subj, handle := range map[string]nats.MsgHandler{
		subject.GatewayPing(name): func(m *nats.Msg) {
			g.mu.Lock()
			defer g.mu.Unlock()
			g.pings++
			m.Respond([]byte(g.inc))
		},
		subject.GatewaySnapshot(name): func(m *nats.Msg) {
			var req presence.SnapshotRequest
			if json.Unmarshal(m.Data, &req) == nil {
				g.snapshot(req.Shard)
			}
		},
	} {
		if _, err := g.nc.Subscribe(subj, handle); err != nil {
			e.t.Fatal(err)
		}
	}
	if err := g.nc.Flush(); err != nil {
		e.t.Fatal(err)
	}
	e.add(cluster.Member{Node: name, Incarnation: g.inc, Roles: []string{"gateway"}})
	return g
}

// die takes the gateway off NATS and out of the membership.
func (g *gateway) die() {
	g.nc.Close()
	g.e.remove(g.name)
}

// restart is a new run of the gateway, with no connections.
func (g *gateway) restart() {
	g.mu.Lock()
	g.inc = cluster.NewIncarnation()
	g.seq, g.users, g.count = map[int]uint64{}, map[string][]string{}, map[string]uint64{}
	g.mu.Unlock()
	g.e.add(cluster.Member{Node: g.name, Incarnation: g.inc, Roles: []string{"gateway"}})
}

func (g *gateway) join(ch, user string) presence.Result {
	g.e.t.Helper()
	op := presence.Op{
		Kind: presence.Join, App: "1", Channel: ch, User: user, RawID: `"` + user + `"`, Info: `{"n":"<` + user + `>"}`, Want: true,
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count[ch]++
	res := g.send(ch, op, presence.Op{Kind: presence.Count, App: "1", Channel: ch, Count: g.count[ch]})
	if len(res) != 1 {
		g.e.t.Fatalf("join: %d results", len(res))
	}
	if !res[0].Full {
		g.users[ch] = append(g.users[ch], user)
	}
	return res[0]
}

func (g *gateway) leave(ch, user string) {
	g.e.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.users[ch] = slices.DeleteFunc(g.users[ch], func(u string) bool { return u == user })
	g.count[ch]--
	g.send(ch,
		presence.Op{Kind: presence.Leave, App: "1", Channel: ch, User: user},
		presence.Op{Kind: presence.Count, App: "1", Channel: ch, Count: g.count[ch]})
}

// online says whether the user of an online channel is signed in here.
func (g *gateway) online(ch string, is bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	kind := presence.Offline
	if is {
		kind = presence.Online
		g.here[ch] = true
	} else {
		delete(g.here, ch)
	}
	g.send(ch, presence.Op{Kind: kind, App: "1", Channel: ch})
}

func (g *gateway) subscribers(ch string, n uint64) {
	g.e.t.Helper()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count[ch] = n
	g.send(ch, presence.Op{Kind: presence.Count, App: "1", Channel: ch, Count: n})
}

// send sends operations on one channel until they are applied. mu is held.
func (g *gateway) send(ch string, ops ...presence.Op) []presence.Result {
	g.e.t.Helper()
	shard := channel.Key{App: "1", Name: ch}.Shard(subject.PresenceShards)
	g.seq[shard]++
	d := presence.Delta{Node: g.name, Incarnation: g.inc, Shard: shard, Seq: g.seq[shard], Ops: ops}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		reply, err := g.request(&d)
		switch {
		case err != nil || reply.Status == presence.NotOwner:
			continue
		case reply.Status == presence.OK:
			return reply.Results
		}
		g.snapshotLocked(shard)
		g.seq[shard]++
		d.Seq = g.seq[shard]
	}
	g.e.t.Errorf("gateway %s: nobody takes a delta of shard %d", g.name, shard)
	return nil
}

func (g *gateway) request(d *presence.Delta) (presence.Reply, error) {
	msg, err := g.nc.Request(subject.PresenceDelta(d.Shard), presence.AppendDelta(nil, d), time.Second)
	if errors.Is(err, nats.ErrNoResponders) {
		time.Sleep(5 * time.Millisecond) // pace of a retry, not a wait
	}
	if err != nil {
		return presence.Reply{}, err
	}
	return presence.ParseReply(msg.Data)
}

func (g *gateway) snapshot(shard int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.snapshotLocked(shard)
}

func (g *gateway) snapshotLocked(shard int) {
	g.seq[shard]++
	d := presence.Delta{Node: g.name, Incarnation: g.inc, Shard: shard, Seq: g.seq[shard], Snapshot: true}
	mine := func(ch string) bool { return channel.Key{App: "1", Name: ch}.Shard(subject.PresenceShards) == shard }
	for ch, users := range g.users {
		for _, u := range users {
			if mine(ch) {
				d.Ops = append(d.Ops, presence.Op{
					Kind: presence.Join, App: "1", Channel: ch, User: u, RawID: `"` + u + `"`, Info: `{"n":"<` + u + `>"}`,
				})
			}
		}
	}
	for ch, n := range g.count {
		if mine(ch) && n > 0 {
			d.Ops = append(d.Ops, presence.Op{Kind: presence.Count, App: "1", Channel: ch, Count: n})
		}
	}
	for ch := range g.here {
		if mine(ch) {
			d.Ops = append(d.Ops, presence.Op{Kind: presence.Online, App: "1", Channel: ch})
		}
	}
	for range 3 {
		if _, err := g.request(&d); err == nil || g.nc.IsClosed() {
			return
		}
	}
}

// liveLog collects what is published on the live subjects.
type liveLog struct {
	mu sync.Mutex
	// guarded by mu
	pubs []message.Publication
}

func listen(t *testing.T, nc *nats.Conn) *liveLog {
	t.Helper()
	l := &liveLog{}
	for p := range partitions {
		_, err := nc.Subscribe(subject.Live(p), func(m *nats.Msg) {
			r := message.NewReader(m.Data)
			var pub message.Publication
			for r.Next(&pub) {
				if (channel.Key{App: pub.App, Name: pub.Channel}).Partition(partitions) != p {
					t.Errorf("%s travels on partition %d", pub.Channel, p)
				}
				l.mu.Lock()
				l.pubs = append(l.pubs, pub)
				l.mu.Unlock()
			}
			if r.Err() != nil {
				t.Errorf("batch: %v", r.Err())
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	return l
}

// of lists the events of a channel: +"u" -"u" =count ^user online vuser offline.
func (l *liveLog) of(ch string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := []string{}
	for _, p := range l.pubs {
		if p.Channel == ch || ch == "" {
			out = append(out, describe(p))
		}
	}
	return out
}

func (l *liveLog) all() []string { return l.of("") }

func describe(p message.Publication) string {
	switch p.Kind {
	case message.MemberAdded:
		return "+" + p.UserID + string(p.Data)
	case message.MemberRemoved:
		return "-" + p.UserID
	case message.SubscriptionCount:
		return fmt.Sprintf("=%d", p.Version)
	case message.UserOnline:
		return "^" + p.UserID
	case message.UserOffline:
		return "v" + p.UserID
	}
	return fmt.Sprintf("?%d", p.Kind)
}
