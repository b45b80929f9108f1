package router_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/natsconn"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/proto/subject"
	"github.com/carillon-rt/carillon/router"
)

// twoRouters starts r1 and r2, and gives connections to their NATS server.
func twoRouters(t *testing.T) *natsconn.Conns {
	t.Helper()
	srv := natstest.Server(t)
	all := &roster{}
	all.set("r1", "r2")
	for _, node := range []string{"r1", "r2"} {
		start(t, srv.DepsWith(t, group{cluster.Member{Node: node, Roles: []string{router.Role}}, all}))
	}
	return srv.Conns(t)
}

// TestKeyOfAnotherPublication: a key that was used for something else is
// refused, through any router; what it was used for keeps its answer. Durable
// or not makes no difference.
func TestKeyOfAnotherPublication(t *testing.T) {
	conns := twoRouters(t)
	tp := listen(t, conns.Live)
	one, two := newPublisher(t, conns.Req, "r1"), newPublisher(t, conns.Req, "r2")
	for _, ch := range []string{"cache-x", "plain-x"} {
		keyed := func(change func(*message.Publication)) *message.Publication {
			pub := event(ch, "first")
			pub.IdempotencyKey = "k"
			change(pub)
			return pub
		}
		same := func(*message.Publication) {}
		first := publishOne(t, one, keyed(same))
		if first.Err != nil {
			t.Fatal(first.Err)
		}
		for what, change := range map[string]func(*message.Publication){
			"data":    func(p *message.Publication) { p.Data = []byte("second") },
			"event":   func(p *message.Publication) { p.Event = "other" },
			"exclude": func(p *message.Publication) { p.Exclude = "1.1" },
		} {
			if r := publishOne(t, two, keyed(change)); !errors.Is(r.Err, publisher.ErrConflict) || r.Position != 0 {
				t.Errorf("other %s on %s: %+v, want a conflict", what, ch, r)
			}
		}
		if r := publishOne(t, two, keyed(same)); r.Err != nil || !r.Duplicate || r.Position != first.Position || r.Epoch != first.Epoch {
			t.Errorf("the same on %s: %+v, want the answer %+v", ch, r, first)
		}
		// The app's key is nothing to another channel.
		if r := publishOne(t, two, &message.Publication{
			Kind: message.Event, App: appID, Channel: ch + "2", Event: "e", Data: []byte("x"), IdempotencyKey: "k",
		}); r.Err != nil || r.Duplicate {
			t.Errorf("the key on another channel: %+v", r)
		}
		if r := publishOne(t, one, event(ch, "end")); r.Err != nil {
			t.Fatal(r.Err)
		}
		eventually(t, "delivered", func() bool { return slices.Contains(tp.of(ch), "end") })
		if got := tp.of(ch); !slices.Equal(got, []string{"first", "end"}) {
			t.Errorf("delivered on %s: %v", ch, got)
		}
	}
}

// TestOneOfTwoWins: two publications with one key come to two routers at once:
// one is stored and answered, the other is refused.
func TestOneOfTwoWins(t *testing.T) {
	conns := twoRouters(t)
	tp := listen(t, conns.Live)
	const n = 200
	var receipts [2][]publisher.Receipt
	var both sync.WaitGroup
	for i, node := range []string{"r1", "r2"} {
		p := newPublisher(t, conns.Req, node)
		both.Go(func() {
			var pubs []*message.Publication
			for k := range n {
				pub := event("cache-k", fmt.Sprint(node, "-", k))
				pub.IdempotencyKey = fmt.Sprint(k)
				pubs = append(pubs, pub)
			}
			receipts[i] = p.PublishWait(t.Context(), pubs)
		})
	}
	both.Wait()
	want := map[string]bool{}
	for k := range n {
		a, b := receipts[0][k], receipts[1][k]
		switch {
		case a.Err == nil && errors.Is(b.Err, publisher.ErrConflict):
			want[fmt.Sprint("r1-", k)] = true
		case b.Err == nil && errors.Is(a.Err, publisher.ErrConflict):
			want[fmt.Sprint("r2-", k)] = true
		default:
			t.Fatalf("key %d: %+v and %+v, want one of them stored", k, a, b)
		}
	}
	eventually(t, "delivered", func() bool { return len(tp.of("cache-k")) >= n })
	for _, data := range tp.of("cache-k") {
		if !want[data] {
			t.Errorf("%s was delivered, and not acknowledged or twice", data)
		}
		delete(want, data)
	}
}

// A window that is longer than what the policies keep is kept for the keys' sake.
func TestKeysAreRememberedForAsLongAsConfigured(t *testing.T) {
	const window = 3 * time.Hour
	srv := natstest.Server(t)
	start(t, srv.Deps(t, "r1", router.Role), func(c *router.Config) { c.IdempotencyWindow = window })
	js, err := jetstream.New(srv.Conns(t).Req)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.Stream(t.Context(), subject.JournalStream)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.CachedInfo().Config; got.Duplicates != window || got.MaxAge < window {
		t.Errorf("keys are remembered for %s of %s", got.Duplicates, got.MaxAge)
	}
}
