package edge

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/hub"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

func TestPublicChannel(t *testing.T) {
	f := start(t)
	a, b := f.dial(), f.dial()
	a.subscribe("news")
	b.subscribe("news")
	f.publish("news", 0, func(p *message.Publication) { p.Exclude = a.id })
	f.publish("news", 0, func(p *message.Publication) { p.Data = []byte("second") })
	b.expect(`"data":"0"`)
	b.expect(`"data":"second"`)
	a.expect(`"data":"second"`)

	a.send(`{"event":"pusher:unsubscribe","data":{"channel":"news"}}`)
	key := channel.Key{App: "1", Name: "news"}
	f.until("unsubscribed", func() bool { return f.count(key) == 1 })
	b.conn.Close()
	f.until("all gone", func() bool { return f.count(key) == 0 && f.edge.Stats().Channels == 0 })
}

func TestPresenceHoldsUntilTheRosterCame(t *testing.T) {
	f := start(t)
	c := f.dial()
	c.send(`{"event":"pusher:subscribe","data":{"channel":"presence-room","auth":"ok","channel_data":"ann"}}`)
	j := <-f.cluster.joins
	if j.m.ID != "ann" {
		t.Fatalf("joined as %q", j.m.ID)
	}
	event := func(kind message.Kind, user string, version uint64) func(*message.Publication) {
		return func(p *message.Publication) { p.Kind, p.UserID, p.Version = kind, `"`+user+`"`, version }
	}
	f.publish("presence-room", 0, event(message.MemberAdded, "ann", 5))
	f.publish("presence-room", 0, event(message.MemberAdded, "ben", 6))
	f.publish("presence-room", 0)
	f.publish("presence-room", 0, event(message.MemberAdded, "cid", 7))
	j.answer(presence.Result{Version: 6, Members: []presence.Member{{ID: "ann", RawID: `"ann"`}, {ID: "ben", RawID: `"ben"`}}}, nil)
	c.expect(`\"ids\":[\"ann\",\"ben\",\"cid\"]`) // with what has come since
	c.expect(`"event":"e"`)
	f.publish("presence-room", 0, event(message.MemberAdded, "cid", 8))   // announced again
	f.publish("presence-room", 0, event(message.MemberRemoved, "ben", 6)) // late: the roster knew
	f.publish("presence-room", 0, event(message.MemberRemoved, "cid", 9))
	c.expect("member_removed")
	c.conn.Close()
	f.until("left", func() bool { return f.member("left ann") == 1 })
}

func TestPresenceRefusals(t *testing.T) {
	f := start(t)
	c := f.dial()
	key := channel.Key{App: "1", Name: "presence-room"}
	for _, answer := range []struct {
		res  presence.Result
		err  error
		want string
	}{
		{presence.Result{Full: true, Limit: 1}, nil, "LimitReached"},
		{presence.Result{}, errors.New("nobody"), "ServerError"},
	} {
		c.send(`{"event":"pusher:subscribe","data":{"channel":"presence-room","auth":"ok","channel_data":"ann"}}`)
		(<-f.cluster.joins).answer(answer.res, answer.err)
		c.expect("pusher:error")
		c.expect(answer.want)
		if f.count(key) != 0 || f.member("left ann") != 0 {
			t.Fatalf("a refused join left %d subscriptions and %d leaves", f.count(key), f.member("left ann"))
		}
	}
	// Gone before the answer: a join that counts is taken back, one that
	// failed is not, as it would take somebody else's.
	c.send(`{"event":"pusher:subscribe","data":{"channel":"presence-room","auth":"ok","channel_data":"ann"}}`)
	j := <-f.cluster.joins
	d := f.dial()
	d.send(`{"event":"pusher:subscribe","data":{"channel":"presence-room","auth":"ok","channel_data":"ann"}}`)
	failing := <-f.cluster.joins
	c.conn.Close()
	d.conn.Close()
	f.until("unsubscribed", func() bool { return f.count(key) == 0 })
	failing.answer(presence.Result{}, errors.New("nobody"))
	j.answer(presence.Result{}, nil)
	f.until("left", func() bool { return f.member("left ann") > 0 })
	if n := f.member("left ann"); n != 1 {
		t.Fatalf("left %d times, joined once", n)
	}
}

// The cached value can't be had, and the client goes before the roster comes:
// the join must be taken back all the same.
func TestUnansweredJoinIsTakenBackAfterAnotherFailure(t *testing.T) {
	f := start(t)
	c := f.dial()
	c.send(`{"event":"pusher:subscribe","data":{"channel":"presence-cache-room","auth":"ok","channel_data":"ann"}}`)
	j := <-f.cluster.joins
	(<-f.cluster.caches).answer(nil)
	c.conn.Close()
	f.until("gone", func() bool { s := f.edge.Stats(); return s.Opened == s.Closed })
	j.answer(presence.Result{}, nil)
	f.until("left", func() bool { return f.member("left ann") == 1 })
}

func TestCacheJoinsTheLastValueAndWhatFollows(t *testing.T) {
	f := start(t)
	f.publish("cache-price", 4)
	c := f.dial()
	c.send(`{"event":"pusher:subscribe","data":{"channel":"cache-price"}}`)
	asked := <-f.cluster.caches
	if asked.at != message.At(4, 0) {
		t.Fatalf("asked for the value at %d, want what was delivered last: %d", asked.at, message.At(4, 0))
	}
	f.publish("cache-price", 5)
	f.publish("cache-price", 6)
	last := &message.Publication{Kind: message.Event, App: "1", Channel: "cache-price", Event: "e", Data: []byte("5")}
	asked.answer(&history.Reply{Top: message.At(5, 0), Cached: &history.Entry{Position: message.At(5, 0), Publication: last.Append(nil)}})
	c.expect("subscription_succeeded")
	c.expect(`"data":"5"`)
	c.expect(`"data":"6"`)

	d := f.dial()
	d.send(`{"event":"pusher:subscribe","data":{"channel":"cache-price"}}`)
	(<-f.cluster.caches).answer(&history.Reply{})
	d.expect("subscription_succeeded")
	d.expect("cache_miss")

	e := f.dial()
	e.send(`{"event":"pusher:subscribe","data":{"channel":"cache-price"}}`)
	(<-f.cluster.caches).answer(nil)
	e.expect("pusher:error")
	e.expect("ServerError")
}

// A channel without a last value whose policy has a hook: the application is
// told before the subscription is made, and the value is read once more.
func TestEmptyCacheIsFilled(t *testing.T) {
	f := start(t, func(a *app.App) {
		a.Hooks = []app.Hook{{Name: "h"}}
		a.Policies = []app.Policy{{Match: "cache-price", CacheEmptyHook: "h"}}
	})
	f.publish("cache-price", 4)
	last := &message.Publication{Kind: message.Event, App: "1", Channel: "cache-price", Event: "e", Data: []byte("5")}
	value := &history.Reply{Top: message.At(5, 0), Cached: &history.Entry{Position: message.At(5, 0), Publication: last.Append(nil)}}

	c := f.dial()
	c.send(`{"event":"pusher:subscribe","data":{"channel":"cache-price"}}`)
	if first := <-f.cluster.caches; first.miss {
		t.Error("the miss is told while the application is being asked")
	} else {
		first.answer(&history.Reply{Top: message.At(4, 0)})
	}
	told := <-f.cluster.empty
	if told.key.Name != "cache-price" || told.within <= 0 || told.within > time.Second {
		t.Fatalf("told %+v", told)
	}
	f.publish("cache-price", 5) // is the value that is read then
	told.answer()
	second := <-f.cluster.caches
	if second.at != 0 || !second.miss {
		t.Errorf("read again: %+v", second)
	}
	second.answer(value)
	f.publish("cache-price", 6)
	c.expect("subscription_succeeded")
	c.expect(`"data":"5"`)
	c.expect(`"data":"6"`)

	// There is none even then; nobody is told twice.
	d := f.dial()
	d.send(`{"event":"pusher:subscribe","data":{"channel":"cache-price"}}`)
	(<-f.cluster.caches).answer(&history.Reply{})
	(<-f.cluster.empty).answer()
	(<-f.cluster.caches).answer(&history.Reply{})
	d.expect("subscription_succeeded")
	d.expect("cache_miss")

	// A value that is there, and one that can't be read, are nothing to tell of.
	e := f.dial()
	e.send(`{"event":"pusher:subscribe","data":{"channel":"cache-price"}}`)
	(<-f.cluster.caches).answer(value)
	e.expect("subscription_succeeded")
	e.expect(`"data":"5"`)
	e.send(`{"event":"pusher:unsubscribe","data":{"channel":"cache-price"}}`)
	e.send(`{"event":"pusher:subscribe","data":{"channel":"cache-price"}}`)
	(<-f.cluster.caches).answer(nil)
	e.expect("pusher:error")

	// Gone meanwhile.
	g := f.dial()
	g.send(`{"event":"pusher:subscribe","data":{"channel":"cache-price"}}`)
	(<-f.cluster.caches).answer(&history.Reply{})
	told = <-f.cluster.empty
	g.conn.Close()
	f.until("gone", func() bool { return f.edge.Stats().Closed > 0 })
	told.answer()
	if len(f.cluster.caches) != 0 || len(f.cluster.empty) != 0 {
		t.Error("something is asked for nobody")
	}
}

func TestSignInWatchAndTerminate(t *testing.T) {
	f := start(t)
	c := f.dial()
	c.send(`{"event":"pusher:signin","data":{"auth":"ok","user_data":"ann"}}`)
	c.expect("signin_success")
	answer := <-f.cluster.online
	f.publish(channel.OnlinePrefix+"w", 0, func(p *message.Publication) { p.Kind, p.UserID = message.UserOnline, "w" })
	answer(nil, nil)
	c.expect(`offline`)
	c.expect(`online`)
	f.until("online", func() bool { return f.member("online ann") == 1 })
	f.edge.Control(control.Command{App: "2", TerminateUser: "ann"})
	f.edge.Control(control.Command{App: "1", TerminateUser: "ann"})
	c.expectClose(4009)
	f.until("offline", func() bool { return f.member("online ann") == 0 })
}

func TestNobodyIsSaidToBeOfflineOnAGuess(t *testing.T) {
	f := start(t)
	c := f.dial()
	c.send(`{"event":"pusher:signin","data":{"auth":"ok","user_data":"ann"}}`)
	c.expect("signin_success")
	for range watchAttempts {
		(<-f.cluster.online)(nil, errors.New("nobody answers"))
	}
	f.publish(channel.OnlinePrefix+"w", 0, func(p *message.Publication) { p.Kind, p.UserID = message.UserOnline, "w" })
	c.expect(`\"online\"`)
}

func TestClientEventsGoToTheRouter(t *testing.T) {
	f := start(t)
	c := f.dial()
	c.send(`{"event":"pusher:subscribe","data":{"channel":"private-a","auth":"ok"}}`)
	c.expect("subscription_succeeded")
	c.send(`{"event":"client-x","channel":"private-a","data":{"a": 1}}`)
	f.until("published", func() bool {
		f.cluster.mu.Lock()
		defer f.cluster.mu.Unlock()
		return len(f.cluster.published) == 1
	})
	if p := f.cluster.published[0]; string(p.Data) != `{"a": 1}` || p.Exclude != c.id {
		t.Fatalf("published %+v", p)
	}
}

func TestQuotaAndUnknownApp(t *testing.T) {
	f := start(t, func(a *app.App) { a.Limits.Connections = 1 })
	first := f.dial()
	second := f.raw("/app/k?protocol=7")
	second.expect(`"code":4004`)
	second.expectClose(4004)
	first.conn.Close()
	f.until("the quota is free again", func() bool { return f.edge.Stats().Connections["1"] == 0 })
	f.dial()
	unknown := f.raw("/app/nokey?protocol=7")
	unknown.expectClose(4001)
}

func TestDrainAsksEveryoneToReconnect(t *testing.T) {
	f := start(t)
	clients := []*wsClient{f.dial(), f.dial(), f.dial()}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- f.edge.Drain(ctx, 30*time.Millisecond) }()
	for _, c := range clients {
		c.expectClose(4200)
	}
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
}

func TestBrokenPartitionsGiveAFreshStart(t *testing.T) {
	f := start(t)
	durable, other := f.dial(), f.dial()
	durable.send(`{"event":"pusher:subscribe","data":{"channel":"cache-a"}}`)
	(<-f.cluster.caches).answer(&history.Reply{})
	durable.expect("subscription_succeeded")
	durable.expect("cache_miss")
	other.subscribe("plain")
	for p := range partitions {
		f.edge.Broken(p)
	}
	durable.expectClose(4200)
	f.publish("plain", 0)
	other.expect(`"event":"e"`)
}

// Who subscribes while positions mean nothing may have missed something.
func TestWhoComesToABrokenPartitionIsSentAwayToo(t *testing.T) {
	f := start(t)
	p := channel.Key{App: "1", Name: "cache-a"}.Partition(partitions)
	f.edge.Start(p, message.At(5, 0))
	f.edge.Broken(p)
	c := f.dial()
	c.send(`{"event":"pusher:subscribe","data":{"channel":"cache-a"}}`)
	asked := <-f.cluster.caches
	if asked.at != 0 {
		t.Errorf("asked for what was there at %d, which means nothing now", asked.at)
	}
	asked.answer(&history.Reply{})
	c.expect("subscription_succeeded")
	c.expect("cache_miss")
	f.edge.Start(p, message.At(2, 0))
	c.expectClose(4200)
	later := f.dial()
	later.send(`{"event":"pusher:subscribe","data":{"channel":"cache-a"}}`)
	(<-f.cluster.caches).answer(&history.Reply{})
	later.expect("subscription_succeeded")
	later.expect("cache_miss")
	f.publish("cache-a", 3)
	later.expect(`"data":"3"`)
}

// More changes than are kept while the answer is on its way: the state is
// asked for again, for what was told would not be the last word.
func TestWatchedUsersThatChangeTooOftenAreAskedForAgain(t *testing.T) {
	f := start(t)
	c := f.dial()
	c.send(`{"event":"pusher:signin","data":{"auth":"ok","user_data":"ann"}}`)
	c.expect("signin_success")
	answer := <-f.cluster.online
	change := func(p *message.Publication) { p.Kind, p.UserID = message.UserOnline, "w" }
	for range hub.HeldMax + 1 {
		f.publish(channel.OnlinePrefix+"w", 0, change)
	}
	answer(nil, nil)
	again := <-f.cluster.online
	f.publish(channel.OnlinePrefix+"w", 0, func(p *message.Publication) { p.Kind, p.UserID = message.UserOffline, "w" })
	again([]string{"w"}, nil)
	c.expect(`\"name\":\"online\"`)
	c.expect(`\"name\":\"offline\"`)
}
