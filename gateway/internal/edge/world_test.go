package edge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/dialect/pusher"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

// second is another encoding of the same protocol, on another path.
type second struct{ *pusher.Pusher }

func (s second) Name() string { return "second" }

func (s second) Hello(head *httphead.Head) (dialect.Hello, bool) {
	rest, ok := strings.CutPrefix(head.Path, "/second")
	if !ok {
		return dialect.Hello{}, false
	}
	other := *head
	other.Path = rest
	return s.Pusher.Hello(&other)
}

// Views implements dialect.Protocol, with the publications below.
func (s second) Views() []dialect.View {
	plain := func(dst []byte, _ message.Position, pub *message.Publication) []byte {
		return s.AppendPublication(dst, pub)
	}
	return []dialect.View{{Append: plain}, s.Pusher.Views()[1]}
}

func (s second) AppendPublication(dst []byte, pub *message.Publication) []byte {
	other := *pub
	if other.Event != "" {
		other.Event = "second-" + other.Event
	}
	return s.Pusher.AppendPublication(dst, &other)
}

// topic is a channel of the model: items are numbered from 0, and each is
// published (the services know it) before it is delivered (the edge has it).
type topic struct {
	name      string
	key       channel.Key
	items     []item
	delivered int
}

type item struct {
	pub message.Publication
	pos message.Position
}

// world is everything behind the edge, and the truth that clients' logs are
// compared with. Questions of the edge wait in pending for the test to answer
// them, in any order.
type world struct {
	t     *testing.T
	r     *rand.Rand
	f     *fixture
	seq   uint64               // of the journal
	away  [partitions][]*topic // published, not delivered: one entry for each item
	ids   []string             // socket ids of all clients, gone ones too
	epoch string               // of the journal
	kind  bool                 // routers know all and answer all
	long  bool                 // publications may be

	mu sync.Mutex
	// guarded by mu
	topics  map[string]*topic
	pending []func()
	counts  map[string]int // of the roster: what must be 0 in the end
}

func newWorld(t *testing.T, seed uint64) *world {
	w := &world{t: t, r: rand.New(rand.NewPCG(seed, 7)), epoch: "e1", topics: map[string]*topic{}, counts: map[string]int{}}
	apps, err := app.NewRegistry([]app.App{{
		ID: "1", Keys: []app.Key{{Key: "k"}}, Watchlist: true, Centrifugo: app.Centrifugo{Enabled: true},
		Webhooks: []app.Webhook{{URL: "http://x", Events: []string{app.ClientConnected, app.ClientDisconnected, app.ClientUnsubscribed}}},
		Hooks:    []app.Hook{{Name: "h"}},
		Policies: []app.Policy{{Match: "cache-b", CacheEmptyHook: "h"}, {Match: "durable-*", History: app.History{Size: 1000, TTL: time.Hour, Recover: true}, Delta: true}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	e, err := New(Config{
		Apps: apps, Protocols: []Protocol{Pusher(second{pusher.New("")}), Pusher(pusher.New("")), Centrifugo(codec.New(codec.JSON))}, Loops: 2, Partitions: partitions,
		NodeNumber: 7, Backbone: w, Answers: &answers{forgets: true}, History: w, Roster: w, Watcher: w, Events: w, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	addr, err := e.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	w.f = &fixture{T: t, edge: e, addr: addr.String()}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, name := range []string{
		"plain-a", "plain-b", "private-a", "cache-a", "cache-b", "private-cache-a", "presence-a", "presence-b", "durable-a", "durable-b",
		channel.OnlinePrefix + "w0", channel.OnlinePrefix + "w1",
	} {
		w.topics[name] = &topic{name: name, key: channel.Key{App: "1", Name: name}}
	}
	return w
}

func (w *world) later(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pending = append(w.pending, f)
}

// pendingNow takes the questions that wait.
func (w *world) pendingNow() []func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := w.pending
	w.pending = nil
	return all
}

// answerOne answers one question; it returns false if there is none.
func (w *world) answerOne() bool {
	w.mu.Lock()
	n := len(w.pending)
	if n == 0 {
		w.mu.Unlock()
		return false
	}
	i := w.r.IntN(n)
	f := w.pending[i]
	w.pending = append(w.pending[:i], w.pending[i+1:]...)
	w.mu.Unlock()
	f()
	return true
}

func (w *world) count(what string, n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.counts[what] += n
	if w.counts[what] < 0 {
		w.t.Errorf("%s fell to %d", what, w.counts[what])
	}
}

// Authorize implements Backbone.
func (w *world) Authorize(req *authz.Subscribe, answer func(authz.Decision)) {
	w.later(func() {
		d := authz.Decision{Allow: w.r.IntN(8) > 0}
		if !d.Allow {
			d = authz.Refuse(authz.Unavailable, "not now")
		} else if strings.HasPrefix(req.Channel, "presence-") {
			d.User = &authz.User{ID: req.ChannelData, RawID: `"` + req.ChannelData + `"`}
		}
		answer(d)
	})
}

// SignIn implements Backbone.
func (w *world) SignIn(req *authz.SignIn, answer func(authz.Decision)) {
	w.later(func() {
		answer(authz.Decision{Allow: true, User: &authz.User{ID: req.UserData, RawID: `"` + req.UserData + `"`, Watchlist: []string{"w0", "w1"}}})
	})
}

// Publish implements Backbone.
func (w *world) Publish(*message.Publication) {}

// Cached implements Backbone.
func (w *world) Cached(req history.Request, answer func(*history.Reply)) {
	key, at := channel.Key{App: req.App, Name: req.Channel}, req.AtLeast
	if at == 0 {
		at = w.reached(key)
	}
	w.later(func() {
		if w.r.IntN(8) == 0 {
			answer(nil)
			return
		}
		w.mu.Lock()
		reply := w.cached(w.topics[key.Name], at)
		w.mu.Unlock()
		answer(reply)
	})
}

// reached is how far the partition of a channel has been delivered.
func (w *world) reached(key channel.Key) (at message.Position) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, tp := range w.topics {
		if tp.key.Partition(partitions) == key.Partition(partitions) && tp.delivered > 0 {
			at = max(at, tp.items[tp.delivered-1].pos)
		}
	}
	return at
}

// CacheEmpty implements Backbone: the application publishes, or does not.
func (w *world) CacheEmpty(key channel.Key, _ time.Duration, answer func()) {
	w.later(func() {
		if w.r.IntN(2) == 0 {
			w.publish(w.topics[key.Name], "")
		}
		answer()
	})
}

// cached is the value of a topic at a position that the services had reached
// at some time between the question and now.
func (w *world) cached(tp *topic, at message.Position) *history.Reply {
	top := at
	if p := message.At(w.seq, 0); w.r.IntN(2) == 0 {
		top = max(p, at)
	}
	reply := &history.Reply{Top: top}
	for i := range tp.items {
		if it := &tp.items[i]; it.pos <= top {
			reply.Cached = &history.Entry{Position: it.pos, Publication: it.pub.Append(nil)}
		}
	}
	return reply
}

// Tell implements Events: who was connected is disconnected once.
func (w *world) Tell(_ string, ev Event) {
	switch ev.Kind {
	case app.ClientConnected:
		w.count("client "+ev.SocketID, 1)
	case app.ClientDisconnected:
		w.count("client "+ev.SocketID, -1)
	}
}

// Subscribed implements Roster.
func (w *world) Subscribed(key channel.Key) { w.count("subscriptions of "+key.Name, 1) }

// Unsubscribed implements Roster.
func (w *world) Unsubscribed(key channel.Key) { w.count("subscriptions of "+key.Name, -1) }

// Online implements Roster.
func (w *world) Online(_, user string) { w.count("online "+user, 1) }

// Offline implements Roster.
func (w *world) Offline(_, user string) { w.count("online "+user, -1) }

// Join implements Roster: all that were added up to a version are there.
func (w *world) Join(key channel.Key, m presence.Member, answer func(presence.Result, error)) {
	w.mu.Lock()
	least := w.topics[key.Name].delivered
	w.mu.Unlock()
	w.later(func() {
		switch w.r.IntN(10) {
		case 0:
			answer(presence.Result{}, errors.New("nobody answers"))
			return
		case 1:
			answer(presence.Result{Full: true, Limit: 1}, nil)
			return
		}
		w.mu.Lock()
		v := least + w.r.IntN(len(w.topics[key.Name].items)-least+1)
		w.mu.Unlock()
		w.count("member "+m.ID+" of "+key.Name, 1)
		res := presence.Result{Version: uint64(v)}
		for i := range v {
			id := fmt.Sprint(i)
			res.Members = append(res.Members, presence.Member{ID: id, RawID: `"` + id + `"`})
		}
		answer(res, nil)
	})
}

// Leave implements Roster.
func (w *world) Leave(key channel.Key, user string) { w.count("member "+user+" of "+key.Name, -1) }

// WhoIsOnline implements Watcher.
func (w *world) WhoIsOnline(_ string, _ []string, answer func([]string, error)) {
	w.later(func() {
		if w.r.IntN(3) == 0 {
			answer(nil, errors.New("nobody answers"))
			return
		}
		answer([]string{"w0"}, nil)
	})
}

// publish adds an item to a topic; exclude is a socket id or "".
func (w *world) publish(tp *topic, exclude string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := len(tp.items)
	it := item{pub: message.Publication{Kind: message.Event, App: "1", Channel: tp.name, Event: "e", Data: fmt.Appendf(nil, "%d", n)}}
	switch {
	case strings.HasPrefix(tp.name, "presence-"):
		it.pub = message.Publication{Kind: message.MemberAdded, App: "1", Channel: tp.name, UserID: fmt.Sprintf(`"%d"`, n), Version: uint64(n + 1)}
	case strings.HasPrefix(tp.name, channel.OnlinePrefix):
		it.pub = message.Publication{Kind: message.UserOnline, App: "1", Channel: tp.name, UserID: fmt.Sprintf("%s:%d", tp.name, n)}
	case strings.Contains(tp.name, "cache-"), strings.HasPrefix(tp.name, "durable-"):
		w.seq++
		it.pos = message.At(w.seq, 0)
		if w.long && w.r.IntN(2) == 0 {
			it.pub.Data = fmt.Appendf(nil, "%0*d", portionBytes*3/4, n)
		}
	default:
		it.pub.Exclude = exclude
	}
	tp.items = append(tp.items, it)
	p := tp.key.Partition(partitions)
	w.away[p] = append(w.away[p], tp)
}

// deliver gives the next item of a partition to the edge, if there is one.
func (w *world) deliver(p int) bool {
	if len(w.away[p]) == 0 {
		return false
	}
	tp := w.away[p][0]
	w.away[p] = w.away[p][1:]
	w.mu.Lock()
	it := tp.items[tp.delivered]
	tp.delivered++ // counts before the edge has it: a roster may know more, never less
	w.mu.Unlock()
	w.f.edge.Deliver(p, it.pos, &it.pub)
	return true
}

// heard is one message as a client of the model understands it.
type heard struct {
	Event   string
	Channel string
	Data    json.RawMessage
}

// text is the data when it is a JSON string.
func (m *heard) text() string {
	var s string
	_ = json.Unmarshal(m.Data, &s) // not a string: ""
	return s
}
