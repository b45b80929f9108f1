package state_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/presence/internal/state"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/presence"
)

func TestNumbers(t *testing.T) {
	for _, tc := range []struct {
		name     string
		delta    presence.Delta
		status   presence.Status
		announce []string
	}{
		{"the next one", presence.Delta{Incarnation: "2", Seq: 3, Ops: []presence.Op{join("c", "v")}}, presence.OK, []string{"live added c v"}},
		{"a repeat", presence.Delta{Incarnation: "2", Seq: 2, Ops: []presence.Op{join("c", "v")}}, presence.OK, nil},
		{"an old one", presence.Delta{Incarnation: "2", Seq: 1, Ops: []presence.Op{join("c", "v")}}, presence.Resync, nil},
		{"a gap", presence.Delta{Incarnation: "2", Seq: 4, Ops: []presence.Op{join("c", "v")}}, presence.Resync, nil},
		{"a snapshot behind a gap", presence.Delta{Incarnation: "2", Seq: 9, Snapshot: true, Ops: []presence.Op{known("c", "v")}}, presence.OK, []string{"live removed c u", "live added c v"}},
		{"an old snapshot", presence.Delta{Incarnation: "2", Seq: 1, Snapshot: true}, presence.Resync, nil},
		{"an earlier run", presence.Delta{Incarnation: "1", Seq: 3, Ops: []presence.Op{join("c", "v")}}, presence.Resync, nil},
		{"a later run's first", presence.Delta{Incarnation: "3", Seq: 1, Ops: []presence.Op{join("c", "v")}}, presence.OK, []string{"live removed c u", "live added c v"}},
		{"a later run's second", presence.Delta{Incarnation: "3", Seq: 2, Ops: []presence.Op{join("c", "v")}}, presence.Resync, nil},
		{"a later run's snapshot", presence.Delta{Incarnation: "3", Seq: 2, Snapshot: true, Ops: []presence.Op{known("c", "u")}}, presence.OK, nil},
		{"number zero", presence.Delta{Incarnation: "2", Seq: 0, Snapshot: true}, presence.Resync, nil},
		{"no run", presence.Delta{Seq: 3}, presence.Resync, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := newFixture(t, app.App{})
			f.apply(&presence.Delta{Node: "g", Incarnation: "2", Seq: 1})
			f.apply(&presence.Delta{Node: "g", Incarnation: "2", Seq: 2, Ops: []presence.Op{join("c", "u")}})
			f.want("live added c u")
			tc.delta.Node = "g"
			if reply := f.apply(&tc.delta); reply.Status != tc.status {
				t.Errorf("status %d, want %d", reply.Status, tc.status)
			}
			f.want(tc.announce...)
		})
	}
}

func TestUnknownGateway(t *testing.T) {
	f := newFixture(t, app.App{})
	f.seq["g"] = 4
	if reply := f.apply(f.deltaOf("g", false, join("c", "u"))); reply.Status != presence.Resync {
		t.Errorf("status %d", reply.Status)
	}
	f.want()
	f.snapshot("g", known("c", "u"))
	f.want("live added c u")
}

func TestMembersOverGateways(t *testing.T) {
	f := newFixture(t, app.App{})
	res := f.do("a", join("c", "u")).Results
	if f.ids(res[0]) != "u" || res[0].Version != f.shard.Version() {
		t.Errorf("roster %+v", res)
	}
	f.do("b", join("c", "u"), join("c", "v"))
	f.do("a", leave("c", "u"), leave("c", "nobody"), leave("nowhere", "u"))
	f.want("live added c u", "live added c v")
	f.do("b", leave("c", "u"))
	f.want("live removed c u")
	if !f.shard.Evict("b", "1", f.now, &f.out) || f.shard.Evict("b", "1", f.now, &f.out) {
		t.Error("Evict does not say whether the gateway was there")
	}
	f.want("live removed c v")
	if channels, members, _ := f.shard.Size(); channels != 0 || members != 0 {
		t.Errorf("%d channels and %d members are left", channels, members)
	}
}

func TestEvictOtherRun(t *testing.T) {
	f := newFixture(t, app.App{})
	f.do("a", join("c", "u"))
	if f.shard.Evict("a", "0", f.now, &f.out) {
		t.Error("another run was evicted")
	}
	f.want("live added c u")
}

func TestChangedInfo(t *testing.T) {
	f := newFixture(t, app.App{})
	f.do("a", join("c", "u"), join("c", "v"))
	f.do("b", join("c", "v"))
	f.want("live added c u", "live added c v")
	u, v := known("c", "u"), known("c", "v")
	u.Info, v.Info = `{"new":1}`, `{"new":1}`
	f.snapshot("a", u, v)
	f.want("live removed c u", "live added c u")
}

func TestLimit(t *testing.T) {
	f := newFixture(t, app.App{Limits: app.Limits{PresenceMembers: 2}})
	d := f.deltaOf("a", false, join("c", "u"), join("c", "v"), join("c", "w"), join("c", "u"))
	for range 2 { // the repeat gets the same answer
		res := f.apply(d).Results
		if res[0].Full || res[1].Full || !res[2].Full || res[2].Limit != 2 || res[3].Full || f.ids(res[3]) != "u,v" {
			t.Errorf("results %+v", res)
		}
	}
	f.want("live added c u", "live added c v")
	if m, _ := f.shard.Mark("a"); !slices.Equal(m.Refused, []int{2}) {
		t.Errorf("mark %+v", m)
	}
	// What was let in once stays in, whatever the limit; who waits is new.
	f.snapshot("b", known("c", "x"), join("c", "y"))
	f.want("live added c x")
}

func TestRosterBytes(t *testing.T) {
	f := newFixture(t, app.App{Limits: app.Limits{PresenceMembers: 100}})
	fat := func(ch, user string) presence.Op {
		op := join(ch, user)
		op.Info = strings.Repeat("x", 600)
		return op
	}
	if res := f.do("a", fat("c", "u"), fat("c", "v")).Results; res[0].Full || !res[1].Full || res[1].Limit != 1 {
		t.Errorf("a roster above the size of a reply: full %v %v, limit %d", res[0].Full, res[1].Full, res[1].Limit)
	}
	var ops []presence.Op
	for i := range 5 {
		ops = append(ops, fat(fmt.Sprintf("d%d", i), "u"))
	}
	deferred := 0
	for _, res := range f.do("a", ops...).Results {
		if res.Deferred {
			deferred++
		}
	}
	if deferred != 2 { // 3 x 605 bytes fit into 2000
		t.Errorf("%d rosters deferred", deferred)
	}
	f.out = nil
}

func TestConfirm(t *testing.T) {
	f := newFixture(t, app.App{Limits: app.Limits{PresenceMembers: 1}})
	if v := f.shard.Confirm(f.deltaOf("a", false, join("c", "u"), join("c", "v"), join("c", "w")), []int{0}, f.now, &f.out); v != state.Applied {
		t.Errorf("verdict %d", v)
	}
	f.want("live added c v", "live added c w")
}

func TestCounts(t *testing.T) {
	f := newFixture(t, app.App{SubscriptionCount: true})
	f.do("a", count("news", 1), count("news", 2), count("presence-x", 1), count("#server-to-user-1", 1))
	f.want("live count news 2")
	f.do("b", count("news", 98))
	f.want("live count news 100")
	f.do("b", count("news", 150))
	f.do("b", count("news", 160))
	f.want()
	f.pass(4999)
	f.want()
	f.pass(1)
	f.want("live count news 162")
	f.do("b", count("news", 0))
	f.want("live count news 2")
	f.do("a", count("news", 0))
	f.want() // nobody is there to be told
}

func TestOnline(t *testing.T) {
	f := newFixture(t, app.App{})
	op := func(kind presence.OpKind) presence.Op { return presence.Op{Kind: kind, App: "1", Channel: "#online-7"} }
	f.do("a", op(presence.Online))
	f.do("b", op(presence.Online))
	f.do("a", op(presence.Offline))
	f.want("live online #online-7 7")
	if q := f.shard.Query(&presence.Query{App: "1", Online: []string{"7", "8"}}, f.now); !slices.Equal(q.Online, []string{"7"}) {
		t.Errorf("answer %+v", q)
	}
	f.shard.Evict("b", "", f.now, &f.out)
	f.want("live offline #online-7 7")
}

func TestHookHold(t *testing.T) {
	f := newFixture(t, app.App{Webhooks: []app.Webhook{{URL: "http://x"}}})
	f.do("a", count("presence-c", 1), join("presence-c", "u"))
	f.want("hook occupied presence-c", "live added presence-c u", "hook added presence-c u")
	f.do("a", leave("presence-c", "u"), count("presence-c", 0))
	f.want("live removed presence-c u")
	f.pass(state.HoldMs - 1)
	f.do("b", count("presence-c", 1), join("presence-c", "u"))
	f.want("live added presence-c u") // undone in time: no hook either way
	f.pass(2 * state.HoldMs)
	f.want()
	f.do("b", leave("presence-c", "u"), count("presence-c", 0))
	f.want("live removed presence-c u")
	f.pass(state.HoldMs)
	f.want("hook removed presence-c u", "hook vacated presence-c")
	f.pass(state.HoldMs)
	f.want()
}

// Connections that are gone with their gateway were not told to end by anybody:
// apps that ask for it hear it of each user and gateway.
func TestHookLost(t *testing.T) {
	online := func(user string) presence.Op {
		return presence.Op{Kind: presence.Online, App: "1", Channel: "#online-" + user}
	}
	offline := presence.Op{Kind: presence.Offline, App: "1", Channel: "#online-3"}
	f := newFixture(t, app.App{Webhooks: []app.Webhook{{URL: "http://x", Events: []string{app.ClientDisconnected}, ChannelPrefix: "n"}}})
	f.do("a", online("1"), online("2"), online("3"), join("c", "4"))
	f.do("b", online("1"))
	f.do("a", offline)
	f.out = nil
	f.shard.Evict("a", "1", f.now, &f.out)
	f.want("hook lost #online-1 1", "hook lost #online-2 2", "live removed c 4", "live offline #online-2 2")
	f.shard.Evict("a", "1", f.now, &f.out)
	f.want()

	// It is back before it was missed: those of its earlier run are gone.
	f.apply(&presence.Delta{Node: "b", Incarnation: "2", Seq: 1, Snapshot: true, Ops: []presence.Op{online("1")}})
	f.want("hook lost #online-1 1")
	f.apply(&presence.Delta{Node: "b", Incarnation: "2", Seq: 2, Snapshot: true, Ops: []presence.Op{online("1")}})
	f.want() // the same run says once more what it has
	f.apply(&presence.Delta{Node: "b", Incarnation: "3", Seq: 1})
	f.want("hook lost #online-1 1", "live offline #online-1 1")

	f = newFixture(t, app.App{Webhooks: []app.Webhook{{URL: "http://x"}}})
	f.do("a", online("1"))
	f.out = nil
	f.shard.Evict("a", "1", f.now, &f.out)
	f.want("live offline #online-1 1")
}

func TestHookWanted(t *testing.T) {
	f := newFixture(t, app.App{Webhooks: []app.Webhook{{URL: "http://x", Events: []string{"channel_vacated"}, ChannelPrefix: "n"}}})
	f.do("a", count("news", 1), count("other", 1), count("#server-to-user-1", 1))
	f.do("a", count("news", 0), count("other", 0), count("#server-to-user-1", 0))
	f.pass(state.HoldMs)
	f.want("hook vacated news")
}

func TestVersionsRiseOverOwners(t *testing.T) {
	f := newFixture(t, app.App{})
	f.do("a", join("c", "u"))
	before := f.shard.Version()
	next := newFixture(t, app.App{})
	next.shard.Own(f.now + 1)
	if next.shard.Version() <= before {
		t.Errorf("version %d after %d", next.shard.Version(), before)
	}
	next.shard.RaiseVersion(1 << 62) // an owner whose clock was ahead
	if next.shard.Own(f.now + 2); next.shard.Version() != 1<<62 {
		t.Errorf("version %d", next.shard.Version())
	}
}

func TestList(t *testing.T) {
	f := newFixture(t, app.App{})
	var ops []presence.Op
	for i := range 60 {
		ops = append(ops, count(fmt.Sprintf("news-%02d", i), 1))
	}
	f.do("a", append(ops, count("other", 1), count("#server-to-user-1", 1))...)
	var got []string
	q := presence.Query{App: "1", All: true, Prefix: "news-"}
	for pages := 1; ; pages++ {
		a := f.shard.Query(&q, f.now)
		for _, c := range a.Channels {
			got = append(got, c.Name)
		}
		if !a.More {
			if pages < 2 {
				t.Error("60 channels in one page of 2000 bytes")
			}
			break
		}
		q.After = got[len(got)-1]
	}
	if len(got) != 60 || !slices.IsSorted(got) {
		t.Errorf("listed %d: %v", len(got), got)
	}
	if a := f.shard.Query(&presence.Query{App: "1", All: true, After: "news-59"}, f.now); len(a.Channels) != 1 || a.Channels[0].Name != "other" {
		t.Errorf("the rest: %+v", a)
	}
	a := f.shard.Query(&presence.Query{App: "1", All: true, Hash: true, Limit: 2}, f.now)
	if len(a.Channels) != 2 || !a.More || a.Channels[0].Name != "#server-to-user-1" || a.Channels[1].Name != "news-00" {
		t.Errorf("two of all: %+v", a)
	}
	for _, bad := range []presence.Query{{}, {App: "1"}, {Channel: "x"}} {
		if a := f.shard.Query(&bad, f.now); a.Error == "" {
			t.Errorf("query %+v is answered", bad)
		}
	}
}

// TestRosterInPages: no answer is longer than the limit, and together they
// have all members in order of joining.
func TestRosterInPages(t *testing.T) {
	f := newFixture(t, app.App{})
	var want, got []string
	for i := range 60 {
		f.do("a", join("c", fmt.Sprint("u", i)))
		want = append(want, fmt.Sprint("u", i))
	}
	q := presence.Query{App: "1", Channel: "c", Members: true}
	for pages := 1; ; pages++ {
		a := f.shard.Query(&q, f.now)
		if a.Version != f.shard.Version() || a.Channels[0].Users != 60 {
			t.Fatalf("answer %+v", a)
		}
		for _, m := range a.Channels[0].Members {
			got = append(got, m.ID)
		}
		if !a.More {
			if pages < 2 {
				t.Error("60 members in one page of 2000 bytes")
			}
			break
		}
		q.After = got[len(got)-1]
	}
	if !slices.Equal(got, want) {
		t.Errorf("members %v", got)
	}
	q.After = "gone"
	if a := f.shard.Query(&q, f.now); a.Error == "" || a.More {
		t.Errorf("after a member that has left: %+v", a)
	}
}

// TestNothingKept: a delta's bytes may change after Apply.
func TestNothingKept(t *testing.T) {
	f := newFixture(t, app.App{})
	buf := presence.AppendDelta(nil, f.deltaOf("a", false, join("c", "u"), count("c", 1), presence.Op{Kind: presence.Online, App: "1", Channel: "#online-7"}))
	d, err := presence.ParseDelta(buf)
	if err != nil {
		t.Fatal(err)
	}
	f.apply(&d)
	for i := range buf {
		buf[i] = 'x'
	}
	f.want("live added c u", "live online #online-7 7")
	f.shard.Evict("a", "1", f.now, &f.out)
	f.want("live removed c u", "live offline #online-7 7")
}

func BenchmarkJoinLeave(b *testing.B) {
	apps, err := app.NewRegistry([]app.App{{ID: "1", Keys: []app.Key{{Key: "k"}}}})
	if err != nil {
		b.Fatal(err)
	}
	s := state.New(state.Config{App: apps.ByID})
	var joins, leaves []presence.Op
	for i := range 64 {
		ch := fmt.Sprintf("presence-%d", i)
		joins, leaves = append(joins, known(ch, "u"), count(ch, 1)), append(leaves, leave(ch, "u"), count(ch, 0))
	}
	var out []state.Effect
	var seq uint64
	b.ReportAllocs()
	for b.Loop() {
		for _, ops := range [][]presence.Op{joins, leaves} {
			seq++
			out = out[:0]
			s.Apply(&presence.Delta{Node: "g", Incarnation: "1", Seq: seq, Ops: ops}, 1, &out)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/128, "ns/join-or-leave")
}

// A gateway that the membership shows only after the take-over is awaited like
// those that were there, for a while.
func TestAwaitNew(t *testing.T) {
	s := state.New(state.Config{App: func(string) *app.App { return nil }})
	s.Await(nil, 1000)
	if s.Waiting(1000) {
		t.Fatal("waits for nobody")
	}
	if fresh := s.AwaitNew([]string{"g1", "g2"}, 3500); !slices.Equal(fresh, []string{"g1", "g2"}) || !s.Waiting(3500) {
		t.Fatalf("awaits %v, waiting %v", fresh, s.Waiting(3500))
	}
	var out []state.Effect
	snapshot := &presence.Delta{
		Node: "g1", Incarnation: "1", Seq: 7, Snapshot: true,
		Ops: []presence.Op{{Kind: presence.Join, App: "a", Channel: "presence-c", User: "u", RawID: `"u"`}},
	}
	s.Apply(snapshot, 3600, &out)
	if len(out) != 0 {
		t.Fatalf("who was there before is announced: %v", out)
	}
	if fresh := s.AwaitNew([]string{"g1", "g2"}, 3700); fresh != nil {
		t.Fatalf("awaits %v once more", fresh)
	}
	if fresh := s.AwaitNew([]string{"g3"}, 60_000); fresh != nil {
		t.Fatalf("awaits %v long after the take-over", fresh)
	}
}

// A gateway that was evicted and comes back is new to everybody, also while
// the window after a take-over is open; nobody waits for it.
func TestEvictedGatewayComesBack(t *testing.T) {
	f := newFixture(t, app.App{})
	f.shard.Await([]string{"g1", "g2", "g3"}, f.now)
	for _, g := range []string{"g1", "g2", "g3"} {
		f.seq[g] = 10 // they have told the owner before
	}
	f.snapshot("g1", known("presence-a", "ada"))
	f.snapshot("g2", known("presence-a", "bela"))
	f.want()
	if !f.shard.Evict("g1", "1", f.now, &f.out) {
		t.Fatal("g1 was not there")
	}
	f.want("live removed presence-a ada")
	if fresh := f.shard.AwaitNew([]string{"g1", "g2", "g3"}, f.now); len(fresh) > 0 {
		t.Errorf("waits for %v", fresh)
	}
	if !f.shard.Waiting(f.now) {
		t.Fatal("the window is closed, g3 has not reported")
	}
	f.snapshot("g1", known("presence-a", "ada"))
	f.want("live added presence-a ada")
	f.snapshot("g3", known("presence-a", "chen"))
	f.want()
}
