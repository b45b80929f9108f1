package router_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/kit/config"
	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/kit/natsembed"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/proto/subject"
	"github.com/carillon-rt/carillon/router"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

const (
	appID      = "1001"
	partitions = 4
	patience   = 20 * time.Second

	// slowID is an app that may publish so much a second.
	slowID   = "1003"
	slowRate = 4
)

func TestPublishedInOrderAndAcknowledged(t *testing.T) {
	for _, tt := range []struct {
		name, channel string
		durable       bool
	}{
		{"durable", "cache-a", true},
		{"history", "log-a", true},
		{"live only", "plain-a", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			srv := natstest.Server(t)
			start(t, srv.Deps(t, "r1", router.Role))
			conns := srv.Conns(t)
			tp := listen(t, conns.Live)
			p := newPublisher(t, conns.Req, "r1")
			const n = 3000
			var mu sync.Mutex
			var receipts []publisher.Receipt
			for i := range n {
				p.Publish(event(tt.channel, fmt.Sprint(i)), func(r publisher.Receipt) {
					mu.Lock()
					defer mu.Unlock()
					receipts = append(receipts, r)
				})
			}
			eventually(t, "all receipts", func() bool { mu.Lock(); defer mu.Unlock(); return len(receipts) == n })
			last := message.Position(0)
			for i, r := range receipts {
				if r.Err != nil {
					t.Fatalf("publication %d: %v", i, r.Err)
				}
				if tt.durable && (r.Position <= last || r.Epoch == "") {
					t.Fatalf("publication %d at %d %q after %d", i, r.Position, r.Epoch, last)
				}
				if !tt.durable && r.Position != 0 {
					t.Fatalf("publication %d of a channel without journal has position %d", i, r.Position)
				}
				last = r.Position
			}
			eventually(t, "all delivered", func() bool { return len(tp.of(tt.channel)) >= n })
			if got := tp.of(tt.channel); !slices.Equal(got, numbers(n)) {
				t.Fatalf("delivered %d publications, not the %d in order", len(got), n)
			}
		})
	}
}

// TestSmallDisk: a server with little room gets smaller streams, and a router
// that comes again takes them as they are.
func TestSmallDisk(t *testing.T) {
	for _, room := range []config.Bytes{1 << 30, 300 << 20, 64 << 20} {
		t.Run(room.String(), func(t *testing.T) {
			srv := natstest.Server(t, func(c *natsembed.Config) { c.MaxStore = room })
			for range 2 {
				_, stop := start(t, srv.Deps(t, "r1", router.Role))
				if r := publishOne(t, newPublisher(t, srv.Conns(t).Req), event("cache-s", "x")); r.Err != nil {
					t.Fatal(r.Err)
				}
				stop()
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	srv := natstest.Server(t)
	start(t, srv.Deps(t, "r1", router.Role))
	p := newPublisher(t, srv.Conns(t).Req, "r1")
	with := func(change func(*message.Publication)) *message.Publication {
		pub := event("c", "x")
		change(pub)
		return pub
	}
	for _, tt := range []struct {
		name string
		pub  *message.Publication
		code publisher.Code
		text string
	}{
		{"unknown app", with(func(p *message.Publication) { p.App = "9" }), publisher.UnknownApp, `"9"`},
		{"disabled app", with(func(p *message.Publication) { p.App = "1002" }), publisher.AppDisabled, "1002"},
		{"no channel", with(func(p *message.Publication) { p.Channel = "" }), publisher.BadChannel, "empty"},
		{"control character", with(func(p *message.Publication) { p.Channel = "a\nb" }), publisher.BadChannel, "U+000A"},
		{"reserved event", with(func(p *message.Publication) { p.Event = "pusher:x" }), publisher.BadEvent, "pusher:"},
		{"reserved internal event", with(func(p *message.Publication) { p.Event = "pusher_internal:x" }), publisher.BadEvent, "pusher_internal:"},
		{"long event name", with(func(p *message.Publication) { p.Event = strings.Repeat("e", 201) }), publisher.BadEvent, "200"},
		{"large data", with(func(p *message.Publication) { p.Data = make([]byte, 10241) }), publisher.TooLarge, "10240"},
		{"member event", with(func(p *message.Publication) { p.Kind = message.MemberAdded }), publisher.BadPublication, "kind 3"},
		{"long key", with(func(p *message.Publication) { p.IdempotencyKey = strings.Repeat("k", 133) }), publisher.BadPublication, "at most 128"},
		{"larger than the broker", with(func(p *message.Publication) { p.Data = make([]byte, 2<<20) }), publisher.TooLarge, "broker"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := publishOne(t, p, tt.pub)
			var e *publisher.Error
			if !errors.As(r.Err, &e) || e.Code != tt.code || !strings.Contains(e.Message, tt.text) {
				t.Fatalf("error is %v, want code %d with %q", r.Err, tt.code, tt.text)
			}
		})
	}
	if r := publishOne(t, p, event("c", "x")); r.Err != nil {
		t.Fatalf("a good one after the bad: %v", r.Err)
	}
}

func TestIdempotencyKey(t *testing.T) {
	srv := natstest.Server(t)
	start(t, srv.Deps(t, "r1", router.Role))
	conns := srv.Conns(t)
	tp := listen(t, conns.Live)
	p := newPublisher(t, conns.Req, "r1")
	for _, ch := range []string{"cache-a", "plain-a"} {
		keyed := func(key string) *message.Publication {
			pub := event(ch, key)
			pub.IdempotencyKey = key
			return pub
		}
		first := publishOne(t, p, keyed("k1"))
		again := publishOne(t, p, keyed("k1"))
		other := publishOne(t, p, keyed("k2"))
		if first.Err != nil || first.Duplicate || first.Position == 0 {
			t.Fatalf("first on %s: %+v", ch, first)
		}
		if again.Err != nil || !again.Duplicate || again.Position != first.Position || again.Epoch != first.Epoch {
			t.Fatalf("repeat on %s: %+v, want a duplicate of %+v", ch, again, first)
		}
		if other.Err != nil || other.Duplicate || other.Position <= first.Position {
			t.Fatalf("other key on %s: %+v", ch, other)
		}
		if r := publishOne(t, p, event(ch, "end")); r.Err != nil {
			t.Fatal(r.Err)
		}
		eventually(t, "delivered", func() bool { return slices.Contains(tp.of(ch), "end") })
		if got := tp.of(ch); !slices.Equal(got, []string{"k1", "k2", "end"}) {
			t.Fatalf("delivered on %s: %v", ch, got)
		}
		if pub := tp.pubs[ch]; pub.IdempotencyKey != "" {
			t.Fatal("the idempotency key travels to the gateways")
		}
	}
}

func TestKeyedAndPlainKeepTheirOrder(t *testing.T) {
	srv := natstest.Server(t)
	start(t, srv.Deps(t, "r1", router.Role))
	conns := srv.Conns(t)
	tp := listen(t, conns.Live)
	p := newPublisher(t, conns.Req, "r1")
	const n = 300
	for _, ch := range []string{"cache-o", "plain-o"} {
		var left sync.WaitGroup
		left.Add(n)
		for i := range n {
			pub := event(ch, fmt.Sprint(i))
			if i%3 == 0 {
				pub.IdempotencyKey = fmt.Sprint("key", i)
			}
			p.Publish(pub, func(r publisher.Receipt) {
				defer left.Done()
				if r.Err != nil {
					t.Errorf("publication %d: %v", i, r.Err)
				}
			})
		}
		left.Wait()
		eventually(t, "delivered", func() bool { return len(tp.of(ch)) >= n })
		if got := tp.of(ch); !slices.Equal(got, numbers(n)) {
			t.Fatalf("order on %s is %v", ch, got)
		}
	}
}

func ask(t testing.TB, nc *nats.Conn, req history.Request) history.Reply {
	t.Helper()
	body, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	p := channel.Key{App: req.App, Name: req.Channel}.Partition(partitions)
	msg, err := nc.Request(subject.History(p), body, patience)
	if err != nil {
		t.Fatalf("history request: %v", err)
	}
	var reply history.Reply
	if err := json.Unmarshal(msg.Data, &reply); err != nil {
		t.Fatal(err)
	}
	return reply
}

func dataOf(t testing.TB, e *history.Entry) string {
	t.Helper()
	if e == nil {
		return "(none)"
	}
	// An entry is a publication without the batch's version byte.
	r := message.NewReader(append([]byte{1}, e.Publication...))
	var pub message.Publication
	if !r.Next(&pub) {
		t.Fatalf("entry can't be read: %v", r.Err())
	}
	return string(pub.Data)
}

func TestCacheSurvivesARestart(t *testing.T) {
	srv := natstest.Server(t)
	_, stop := start(t, srv.Deps(t, "r1", router.Role))
	conns := srv.Conns(t)
	p := newPublisher(t, conns.Req)
	var last publisher.Receipt
	for i := range 7 {
		last = publishOne(t, p, event("cache-c", fmt.Sprint("v", i)))
		if r := publishOne(t, p, event("log-c", fmt.Sprint("h", i))); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	if r := publishOne(t, p, &message.Publication{Kind: message.ClientEvent, App: appID, Channel: "cache-c", Event: "client-e", Data: []byte("no")}); r.Err != nil {
		t.Fatal(r.Err)
	}
	check := func(when string) {
		t.Helper()
		got := ask(t, conns.Req, history.Request{App: appID, Channel: "cache-c", Cache: true, AtLeast: last.Position})
		if got.Error != "" || dataOf(t, got.Cached) != "v6" || got.Cached.Position != last.Position || got.Epoch != last.Epoch {
			t.Fatalf("%s: cached value is %+v (%s), want v6 at %d", when, got, dataOf(t, got.Cached), last.Position)
		}
		if got.CachedTTL < 1700 || got.CachedTTL > 1800 {
			t.Errorf("%s: %d s are left of 30 minutes", when, got.CachedTTL)
		}
		hist := ask(t, conns.Req, history.Request{App: appID, Channel: "log-c", Limit: 3})
		if len(hist.Entries) != 3 || dataOf(t, &hist.Entries[0]) != "h4" || hist.Floor == 0 || hist.Floor >= hist.Entries[0].Position {
			t.Fatalf("%s: history is %+v", when, hist)
		}
		if since := ask(t, conns.Req, history.Request{App: appID, Channel: "log-c", Limit: 10, Since: hist.Entries[1].Position}); len(since.Entries) != 1 {
			t.Fatalf("%s: history since is %+v", when, since)
		}
	}
	check("before")
	stop()
	if _, err := conns.Req.Request(subject.History(0), []byte("{}"), time.Second); !errors.Is(err, nats.ErrNoResponders) {
		t.Fatalf("without routers the answer is %v, want no responders", err)
	}
	start(t, srv.Deps(t, "r2", router.Role))
	check("after")
}

func TestCacheAtLeast(t *testing.T) {
	srv := natstest.Server(t)
	start(t, srv.Deps(t, "r1", router.Role), func(c *router.Config) { c.HistoryWait = 300 * time.Millisecond })
	conns := srv.Conns(t)
	p := newPublisher(t, conns.Req)
	for i := range 200 {
		// The receipt may come before the follower has the batch.
		r := publishOne(t, p, event("cache-l", fmt.Sprint(i)))
		got := ask(t, conns.Req, history.Request{App: appID, Channel: "cache-l", Cache: true, AtLeast: r.Position})
		if dataOf(t, got.Cached) != fmt.Sprint(i) {
			t.Fatalf("value %d is asked for, %s answered", i, dataOf(t, got.Cached))
		}
	}
	r := publishOne(t, p, event("cache-l", "x"))
	got := ask(t, conns.Req, history.Request{App: appID, Channel: "cache-l", Cache: true, AtLeast: message.At(r.Position.Seq()+1000, 0)})
	if got.Error == "" || got.Cached != nil {
		t.Fatalf("a position that never comes is answered with %+v", got)
	}
	done := make(chan history.Reply, 1)
	go func() {
		body, _ := json.Marshal(history.Request{App: appID, Channel: "cache-l", Cache: true, AtLeast: message.At(r.Position.Seq()+1, 0)})
		k := channel.Key{App: appID, Name: "cache-l"}
		msg, err := conns.Req.Request(subject.History(k.Partition(partitions)), body, patience)
		var reply history.Reply
		if err == nil {
			_ = json.Unmarshal(msg.Data, &reply)
		}
		done <- reply
	}()
	publishOne(t, p, event("cache-l", "y"))
	if reply := <-done; dataOf(t, reply.Cached) != "y" && reply.Error == "" {
		t.Fatalf("the next value is waited for, got %+v", reply)
	}
}

func TestHooks(t *testing.T) {
	srv := natstest.Server(t)
	start(t, srv.Deps(t, "r1", router.Role))
	conns := srv.Conns(t)
	p := newPublisher(t, conns.Req)
	publishOne(t, p, &message.Publication{
		Kind: message.ClientEvent, App: appID, Channel: "presence-h", Event: "client-x", Data: []byte(`{"a":"<b>"}`),
		UserID: `"u7"`, Exclude: "1.2",
	})
	for range 3 {
		ask(t, conns.Req, history.Request{App: appID, Channel: "cache-h", Cache: true, Miss: true})
	}
	js, err := jetstream.New(conns.Req)
	if err != nil {
		t.Fatal(err)
	}
	get := func(seq uint64) (ev hook.Event) {
		t.Helper()
		eventually(t, fmt.Sprint("hook event ", seq), func() bool {
			s, err := js.Stream(t.Context(), subject.HookStream)
			if err != nil {
				return false
			}
			msg, err := s.GetMsg(t.Context(), seq)
			return err == nil && json.Unmarshal(msg.Data, &ev) == nil
		})
		return ev
	}
	if ev := get(1); ev.Name != hook.ClientEvent || ev.Channel != "presence-h" || ev.Event != "client-x" ||
		ev.Data != `{"a":"<b>"}` || ev.UserID != "u7" || ev.SocketID != "1.2" || ev.TimeMs == 0 {
		t.Errorf("client event hook is %+v", ev)
	}
	if ev := get(2); ev.Name != hook.CacheMiss || ev.Channel != "cache-h" {
		t.Errorf("cache miss hook is %+v", ev)
	}
	publishOne(t, p, event("cache-h", "v"))
	s, err := js.Stream(t.Context(), subject.HookStream)
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().State.Msgs; n != 2 {
		t.Errorf("%d hook events are queued, want 2", n)
	}
}
