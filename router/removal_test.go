package router_test

import (
	"slices"
	"testing"

	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/router"
)

func dataOfAll(t testing.TB, reply history.Reply) (data []string) {
	t.Helper()
	for i := range reply.Entries {
		data = append(data, dataOf(t, &reply.Entries[i]))
	}
	return data
}

// TestTransient: who is there gets it; history and cached value do not, with
// an idempotency key, which takes it through the journal, as little as without.
func TestTransient(t *testing.T) {
	srv := natstest.Server(t)
	conns := srv.Conns(t)
	start(t, srv.Deps(t, "r1", router.Role))
	tp := listen(t, conns.Live)
	p := newPublisher(t, conns.Req)
	for _, ch := range []string{"log-a", "cache-a"} {
		publishOne(t, p, event(ch, "kept"))
		passing, keyed := event(ch, "passing"), event(ch, "keyed")
		passing.Transient, keyed.Transient, keyed.IdempotencyKey = true, true, "k"
		if r := publishOne(t, p, passing); r.Err != nil || r.Position != 0 {
			t.Errorf("%s: %+v, want neither position nor error", ch, r)
		}
		if r := publishOne(t, p, keyed); r.Err != nil {
			t.Errorf("%s with a key: %+v", ch, r)
		}
		last := publishOne(t, p, keyed)
		if last.Err != nil || !last.Duplicate {
			t.Errorf("%s with the key again: %+v, want a duplicate", ch, last)
		}
		eventually(t, "all of them to come", func() bool {
			return slices.Equal(tp.of(ch), []string{"kept", "passing", "keyed"})
		})
		reply := ask(t, conns.Req, history.Request{App: appID, Channel: ch, Limit: 10, Cache: true, AtLeast: last.Position})
		if got := dataOfAll(t, reply); ch == "log-a" && !slices.Equal(got, []string{"kept"}) {
			t.Errorf("history of %s is %q, want only what is kept", ch, got)
		}
		if ch == "cache-a" && (reply.Cached == nil || dataOf(t, reply.Cached) != "kept") {
			t.Errorf("cached value of %s is %+v, want what is kept", ch, reply.Cached)
		}
	}
}

// TestHistoryRemoved: what was published before a removal is gone, and a
// reader that had seen all of it misses nothing.
func TestHistoryRemoved(t *testing.T) {
	srv := natstest.Server(t)
	conns := srv.Conns(t)
	_, stop := start(t, srv.Deps(t, "r1", router.Role))
	p := newPublisher(t, conns.Req)
	removal := func(ch string) publisher.Receipt {
		return publishOne(t, p, &message.Publication{Kind: message.HistoryRemoved, App: appID, Channel: ch, Transient: true})
	}
	publishOne(t, p, event("log-a", "1"))
	before := publishOne(t, p, event("log-a", "2"))
	publishOne(t, p, event("cache-a", "1"))
	for _, ch := range []string{"log-a", "cache-a"} {
		if r := removal(ch); r.Err != nil || r.Position == 0 {
			t.Fatalf("removal from %s: %+v", ch, r)
		}
	}
	after := publishOne(t, p, event("log-a", "3"))
	check := func(when string) {
		t.Helper()
		reply := ask(t, conns.Req, history.Request{App: appID, Channel: "log-a", Limit: 10, AtLeast: after.Position})
		if got := dataOfAll(t, reply); !slices.Equal(got, []string{"3"}) || reply.Floor != before.Position || reply.Top != after.Position {
			t.Errorf("%s: history %q above %d up to %d, want only 3 above %d up to %d", when, got, reply.Floor, reply.Top, before.Position, after.Position)
		}
		if reply = ask(t, conns.Req, history.Request{App: appID, Channel: "cache-a", Cache: true}); reply.Cached != nil {
			t.Errorf("%s: the cached value is still there", when)
		}
	}
	check("after the removal")
	if r := removal("other"); asPublisherError(r.Err) == nil || asPublisherError(r.Err).Code != publisher.BadPublication {
		t.Errorf("removal from a channel without history: %+v, want it refused", r)
	}
	stop()
	start(t, srv.Deps(t, "r2", router.Role))
	check("after a restart")
}

// TestHistoryPages: a channel can be read in pages from either end.
func TestHistoryPages(t *testing.T) {
	srv := natstest.Server(t)
	conns := srv.Conns(t)
	start(t, srv.Deps(t, "r1", router.Role))
	p := newPublisher(t, conns.Req)
	var at []message.Position
	for _, data := range numbers(5) {
		r := publishOne(t, p, event("log-a", data))
		if r.Err != nil {
			t.Fatal(r.Err)
		}
		at = append(at, r.Position)
	}
	want := numbers(5)
	for _, tc := range []struct {
		name string
		req  history.Request
		want []string
		more bool
	}{
		{"oldest", history.Request{Limit: 2, Oldest: true}, want[:2], true},
		{"the next", history.Request{Limit: 3, Oldest: true, Since: at[1]}, want[2:], false},
		{"newest", history.Request{Limit: 2}, want[3:], true},
		{"those before", history.Request{Limit: 3, Before: at[3]}, want[:3], false},
		{"between", history.Request{Limit: 1, Oldest: true, Since: at[0], Before: at[3]}, want[1:2], true},
	} {
		tc.req.App, tc.req.Channel, tc.req.AtLeast = appID, "log-a", at[4]
		reply := ask(t, conns.Req, tc.req)
		if got := dataOfAll(t, reply); !slices.Equal(got, tc.want) || reply.More != tc.more {
			t.Errorf("%s: %q, more %v; want %q, %v", tc.name, got, reply.More, tc.want, tc.more)
		}
	}
}
