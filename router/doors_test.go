package router_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/proto/subject"
	"github.com/carillon-rt/carillon/router"
)

type receiptDoc struct {
	Error    string `json:"error"`
	Receipts []struct {
		Position  uint64 `json:"position"`
		Epoch     string `json:"epoch"`
		Duplicate bool   `json:"duplicate"`
		Error     string `json:"error"`
		Code      int    `json:"code"`
		Retry     bool   `json:"retry"`
	} `json:"receipts"`
}

func requestDoc(t testing.TB, nc *nats.Conn, app, body string) receiptDoc {
	t.Helper()
	msg, err := nc.Request(subject.Publish(app), []byte(body), patience)
	if err != nil {
		t.Fatal(err)
	}
	var doc receiptDoc
	if err := json.Unmarshal(msg.Data, &doc); err != nil {
		t.Fatalf("reply %s: %v", msg.Data, err)
	}
	return doc
}

func TestDocuments(t *testing.T) {
	srv := natstest.Server(t)
	start(t, srv.Deps(t, "r1", router.Role))
	conns := srv.Conns(t)
	tp := listen(t, conns.Live)

	t.Run("string data is its content", func(t *testing.T) {
		doc := requestDoc(t, conns.Req, appID, `{"channel":"s","event":"e","data":"{\"a\":\"<\u00e9>\"}","exclude":"1.1","id":"i"}`)
		if len(doc.Receipts) != 1 || doc.Receipts[0].Error != "" {
			t.Fatalf("reply is %+v", doc)
		}
		eventually(t, "delivered", func() bool { return len(tp.of("s")) == 1 })
		pub := tp.pubs["s"]
		if got := string(pub.Data); got != `{"a":"<é>"}` || pub.Exclude != "1.1" || pub.ID != "i" || pub.Event != "e" || pub.TimeMs == 0 {
			t.Fatalf("delivered %q %+v", got, pub)
		}
	})
	t.Run("other data keeps its bytes", func(t *testing.T) {
		const raw = `{ "b" : 1.0e2,"a":"\u003c" }`
		requestDoc(t, conns.Req, appID, `{"channel":"raw","data":`+raw+`}`)
		eventually(t, "delivered", func() bool { return len(tp.of("raw")) == 1 })
		if got := tp.of("raw")[0]; got != raw {
			t.Fatalf("delivered %s, want %s", got, raw)
		}
	})
	t.Run("batch and channels with errors of their own", func(t *testing.T) {
		doc := requestDoc(t, conns.Req, appID, `{"batch":[
			{"channels":["cache-1","cache-2"],"event":"e","data":1,"idempotency_key":"k"},
			{"channel":"","event":"e","data":1}, {"channel":"x","event":"pusher:e","data":1}, {"channel":"x"},
			{"channel":"cache-1","event":"e","data":1,"idempotency_key":"k"}]}`)
		if len(doc.Receipts) != 6 {
			t.Fatalf("reply is %+v", doc)
		}
		for i, want := range []string{"", "", "channel name is empty", "reserved", "data is missing", ""} {
			if got := doc.Receipts[i].Error; (want == "") != (got == "") || !strings.Contains(got, want) {
				t.Errorf("receipt %d says %q, want %q", i, got, want)
			}
		}
		if a, b := doc.Receipts[0], doc.Receipts[5]; a.Position == 0 || a.Epoch == "" || !b.Duplicate || b.Position != a.Position {
			t.Errorf("the repeat %+v is no duplicate of %+v", b, a)
		}
	})
	t.Run("nonsense", func(t *testing.T) {
		for _, body := range []string{``, `[]`, `{"batch":[]}`, `{"channel":7}`, `{"channel":"x","data":1,"tags":{"a":1}}`} {
			if doc := requestDoc(t, conns.Req, appID, body); doc.Error == "" || len(doc.Receipts) != 0 {
				t.Errorf("%s is answered with %+v", body, doc)
			}
		}
		if doc := requestDoc(t, conns.Req, "77", `{"channel":"x","data":1}`); !strings.Contains(doc.Receipts[0].Error, `"77"`) {
			t.Errorf("unknown app is answered with %+v", doc)
		}
	})
}

func plainMsg(channel, data string, headers ...string) *nats.Msg {
	msg := &nats.Msg{Subject: "car.in." + appID + "." + channel, Data: []byte(data), Header: nats.Header{}}
	for i := 0; i < len(headers); i += 2 {
		msg.Header.Set(headers[i], headers[i+1])
	}
	return msg
}

func ingestState(t testing.TB, js jetstream.JetStream) (waiting uint64) {
	t.Helper()
	s, err := js.Stream(t.Context(), subject.IngestStream)
	if err != nil {
		t.Fatal(err)
	}
	return s.CachedInfo().State.Msgs
}

func TestPlainIngestOverRestarts(t *testing.T) {
	srv := natstest.Server(t)
	_, stop := start(t, srv.Deps(t, "r1", router.Role))
	conns := srv.Conns(t)
	tp := listen(t, conns.Live)
	js, err := jetstream.New(conns.Req)
	if err != nil {
		t.Fatal(err)
	}
	const n = 400
	send := func(from, to int) {
		for i := from; i < to; i++ {
			for _, ch := range []string{"cache-in", "plain.in.dots"} {
				if err := conns.Req.PublishMsg(plainMsg(ch, fmt.Sprint(i), subject.HeaderEvent, "ev", subject.HeaderID, "id1")); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := conns.Req.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	send(0, n/2)
	stop() // in the middle of it
	send(n/2, n)
	if err := conns.Req.PublishMsg(&nats.Msg{Subject: "car.in.nobody.x", Data: []byte("?")}); err != nil {
		t.Fatal(err)
	}
	start(t, srv.Deps(t, "r2", router.Role))
	for _, ch := range []string{"cache-in", "plain.in.dots"} {
		eventually(t, "all delivered on "+ch, func() bool { return len(tp.of(ch)) >= n })
		if got := tp.of(ch); !slices.Equal(got, numbers(n)) {
			t.Fatalf("%d delivered on %s, want %d once and in order: %v", len(got), ch, n, got)
		}
		if pub := tp.pubs[ch]; pub.Event != "ev" || pub.ID != "id1" {
			t.Errorf("headers are lost: %+v", pub)
		}
	}
	eventually(t, "queue empty, the unknown app's message removed", func() bool { return ingestState(t, js) == 0 })
}

// TestPlainIngestOverACrash cuts a router off in the middle: what it wrote and
// could not acknowledge any more comes again to the next one.
func TestPlainIngestOverACrash(t *testing.T) {
	srv := natstest.Server(t)
	dying := srv.Deps(t, "r1", router.Role)
	start(t, dying, func(c *router.Config) { c.Drain = 0 })
	conns := srv.Conns(t)
	tp := listen(t, conns.Live)
	js, err := jetstream.New(conns.Req)
	if err != nil {
		t.Fatal(err)
	}
	const n = 600
	for i := range n {
		if err := conns.Req.PublishMsg(plainMsg("cache-x", fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
		if i == n/2 {
			eventually(t, "some delivered", func() bool { return len(tp.of("cache-x")) > n/10 })
			dying.NATS.Req.Close()
			dying.NATS.Live.Close()
		}
	}
	if err := conns.Req.Flush(); err != nil {
		t.Fatal(err)
	}
	start(t, srv.Deps(t, "r2", router.Role))
	eventually(t, "queue empty", func() bool { return ingestState(t, js) == 0 })
	eventually(t, "all delivered", func() bool { return len(tp.of("cache-x")) >= n })
	if got := tp.of("cache-x"); !slices.Equal(got, numbers(n)) {
		t.Fatalf("%d delivered, want %d once and in order: %v", len(got), n, got)
	}
}

func TestNATSRestart(t *testing.T) {
	srv := natstest.Server(t)
	r, _ := start(t, srv.Deps(t, "r1", router.Role))
	conns := srv.Conns(t)
	tp := listen(t, conns.Live)
	p := newPublisher(t, conns.Req, "r1")
	first := publishOne(t, p, event("cache-n", "before"))
	if first.Err != nil {
		t.Fatal(first.Err)
	}
	srv.Stop()
	for _, ch := range []string{"cache-n", "plain-n"} {
		if r := publishOne(t, p, event(ch, "while away")); r.Err == nil || !asPublisherError(r.Err).Code.Retryable() {
			t.Fatalf("while NATS is away %s is answered with %v", ch, r.Err)
		}
	}
	srv.Start()
	eventually(t, "the test's connections are back", func() bool { return conns.Connected() == nil })
	after := publishUntil(t, p, event("cache-n", "after"))
	if after.Epoch != first.Epoch || after.Position <= first.Position {
		t.Fatalf("after the restart %+v, before %+v", after, first)
	}
	eventually(t, "delivered", func() bool { return slices.Contains(tp.of("cache-n"), "after") })
	eventually(t, "cached", func() bool {
		body, _ := json.Marshal(history.Request{App: appID, Channel: "cache-n", Cache: true, AtLeast: after.Position})
		for q := range partitions {
			msg, err := conns.Req.Request(subject.History(q), body, 3*time.Second)
			var reply history.Reply
			if err == nil && json.Unmarshal(msg.Data, &reply) == nil && reply.Cached != nil {
				return dataOf(t, reply.Cached) == "after"
			}
		}
		return false
	})
	publishUntil(t, p, event("plain-n", "live again"))
	eventually(t, "live lane delivers", func() bool { return slices.Contains(tp.of("plain-n"), "live again") })
	eventually(t, "ready", func() bool { return r.Ready() == nil })
}

func asPublisherError(err error) *publisher.Error {
	e, _ := err.(*publisher.Error)
	if e == nil {
		return &publisher.Error{}
	}
	return e
}

// group is a membership whose members the test changes.
type group struct {
	local cluster.Member
	all   *roster
}

type roster struct {
	mu      sync.Mutex
	members []cluster.Member
	signals []chan struct{}
}

func (g group) Local() cluster.Member { return g.local }

func (g group) Members() []cluster.Member {
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	return g.all.members
}

func (g group) Watch() (<-chan struct{}, func()) {
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	signal := make(chan struct{}, 1)
	signal <- struct{}{}
	g.all.signals = append(g.all.signals, signal)
	return signal, func() {}
}

func (r *roster) set(nodes ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.members = nil
	for _, n := range nodes {
		r.members = append(r.members, cluster.Member{Node: n, Roles: []string{router.Role}})
	}
	for _, s := range r.signals {
		select {
		case s <- struct{}{}:
		default:
		}
	}
}

func TestRouterGoesAway(t *testing.T) {
	srv := natstest.Server(t)
	all := &roster{}
	all.set("r1", "r2", "r3")
	stops := map[string]func(){}
	for _, node := range []string{"r1", "r2", "r3"} {
		_, stops[node] = start(t, srv.DepsWith(t, group{cluster.Member{Node: node, Roles: []string{router.Role}}, all}))
	}
	conns := srv.Conns(t)
	tp := listen(t, conns.Live)
	p := newPublisher(t, conns.Req, "r1", "r2", "r3")
	const n = 3000
	var mu sync.Mutex
	var acked []string
	var left sync.WaitGroup
	left.Add(n)
	for i := range n {
		if i == n/2 {
			// The publisher still believes in them.
			stops["r1"]()
			stops["r2"]()
			all.set("r3")
		}
		p.Publish(event("cache-g", fmt.Sprint(i)), func(r publisher.Receipt) {
			defer left.Done()
			mu.Lock()
			defer mu.Unlock()
			if r.Err == nil {
				acked = append(acked, fmt.Sprint(i))
			}
		})
	}
	left.Wait()
	if len(acked) != n {
		t.Errorf("%d of %d acknowledged, though one router was always there", len(acked), n)
	}
	eventually(t, "all acknowledged are delivered", func() bool { return len(tp.of("cache-g")) >= len(acked) })
	if got := tp.of("cache-g"); !slices.Equal(got, acked) {
		t.Fatalf("%d delivered, %d acknowledged, or not in order", len(got), len(acked))
	}
	last := publishOne(t, p, event("cache-g", "end"))
	key := channel.Key{App: appID, Name: "cache-g"}
	body, err := json.Marshal(history.Request{App: appID, Channel: "cache-g", Cache: true, AtLeast: last.Position})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the remaining router answers for the others", func() bool {
		msg, err := conns.Req.Request(subject.History(key.Partition(partitions)), body, patience)
		var reply history.Reply
		return err == nil && json.Unmarshal(msg.Data, &reply) == nil && dataOf(t, reply.Cached) == "end"
	})
}

func TestNoRouter(t *testing.T) {
	srv := natstest.Server(t)
	p := newPublisher(t, srv.Conns(t).Req, "gone")
	if r := publishOne(t, p, event("c", "x")); r.Err != publisher.ErrUnavailable {
		t.Fatalf("without routers: %v", r.Err)
	}
}

func TestEpochChangesWithTheStream(t *testing.T) {
	srv := natstest.Server(t)
	start(t, srv.Deps(t, "r1", router.Role))
	conns := srv.Conns(t)
	p := newPublisher(t, conns.Req)
	first := publishOne(t, p, event("cache-e", "old"))
	js, err := jetstream.New(conns.Req)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), subject.JournalStream); err != nil {
		t.Fatal(err)
	}
	var next publisher.Receipt
	eventually(t, "a new epoch", func() bool {
		next = publishOne(t, p, event("cache-e", "new"))
		return next.Err == nil && next.Epoch != first.Epoch
	})
	eventually(t, "the old value forgotten, the new one cached", func() bool {
		body, _ := json.Marshal(history.Request{App: appID, Channel: "cache-e", Cache: true, AtLeast: next.Position})
		for q := range partitions {
			msg, err := conns.Req.Request(subject.History(q), body, 3*time.Second)
			var reply history.Reply
			if err == nil && json.Unmarshal(msg.Data, &reply) == nil && reply.Cached != nil {
				return reply.Epoch == next.Epoch && dataOf(t, reply.Cached) == "new"
			}
		}
		return false
	})
}

func TestHeartbeatAndDebugPage(t *testing.T) {
	srv := natstest.Server(t)
	deps := srv.Deps(t, "r1", router.Role)
	start(t, deps)
	conns := srv.Conns(t)
	beats := make(chan *nats.Msg, 64)
	sub, err := conns.Req.ChanSubscribe("car.sync.*", beats)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	p := newPublisher(t, conns.Req)
	r := publishOne(t, p, event("cache-b", "x"))
	eventually(t, "a heartbeat at the last sequence", func() bool {
		var beat history.Heartbeat
		msg := <-beats
		return json.Unmarshal(msg.Data, &beat) == nil && beat.LastSeq == r.Position.Seq() && beat.Epoch == r.Epoch
	})
	resp, err := http.Get("http://" + deps.Ops.Addr() + "/debug/partitions")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	page, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(page), r.Epoch) {
		t.Fatalf("page is %s (%v)", page, err)
	}
}

func TestPartitionsAreForGood(t *testing.T) {
	srv := natstest.Server(t)
	_, stop := start(t, srv.Deps(t, "r1", router.Role))
	stop()
	start(t, srv.Deps(t, "r1", router.Role), func(c *router.Config) { c.Partitions = 7 })
	conns := srv.Conns(t)
	r := publishOne(t, newPublisher(t, conns.Req), event("cache-p", "x"))
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	got := ask(t, conns.Req, history.Request{App: appID, Channel: "cache-p", Cache: true, AtLeast: r.Position})
	if dataOf(t, got.Cached) != "x" {
		t.Fatalf("the partition count has changed: %+v", got)
	}
}

func TestStoppedBeforeNATSIsUsable(t *testing.T) {
	srv := natstest.Server(t)
	deps := srv.Deps(t, "r1", router.Role)
	srv.Stop()
	r, err := router.New(router.DefaultConfig(), deps, testApps(t))
	if err != nil {
		t.Fatal(err)
	}
	if r.Ready() == nil {
		t.Error("ready without streams")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.Run(ctx); err != nil {
		t.Fatalf("stopped while starting: %v", err)
	}
	srv.Start()
}
