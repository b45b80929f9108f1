package state_test

import (
	"slices"
	"testing"

	"github.com/carillon-rt/carillon/presence/internal/state"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/presence"
)

func TestWindow(t *testing.T) {
	f := newFixture(t, app.App{SubscriptionCount: true})
	f.shard.Await([]string{"a", "b"}, f.now)
	f.seq["a"], f.seq["b"] = 7, 7
	f.snapshot("a", known("c", "u"), join("c", "v"), count("news", 3))
	f.want("live added c v") // v waits for its answer: nobody was told of it
	if q := f.shard.Query(&presence.Query{App: "1", Channel: "c"}, f.now); !q.Incomplete || q.Channels[0].Users != 2 {
		t.Errorf("answer %+v", q)
	}
	f.do("a", join("c", "w"), count("news", 4))
	f.want("live added c w") // the count waits for the other gateway
	if reply := f.do("a", presence.Op{Kind: presence.Read, App: "1", Channel: "c", Want: true}); !reply.Results[0].Incomplete {
		t.Errorf("roster %+v", reply)
	}
	late := f.now + state.WindowMs + 1
	if q := f.shard.Query(&presence.Query{App: "1", Channel: "c"}, late); q.Incomplete {
		t.Error("counts are incomplete for ever")
	}
	if q := f.shard.Query(&presence.Query{App: "1", Channel: "c", Members: true}, late); !q.Incomplete {
		t.Error("a roster without the members of b is said to be complete")
	}
	f.snapshot("b", known("c", "x"), count("news", 2))
	f.want()
	if q := f.shard.Query(&presence.Query{App: "1", Channel: "c"}, f.now); q.Incomplete {
		t.Error("incomplete after all have reported")
	}
	if reply := f.do("a", presence.Op{Kind: presence.Read, App: "1", Channel: "c", Want: true}); reply.Results[0].Incomplete {
		t.Errorf("roster %+v", reply)
	}
	f.pass(100)
	f.do("b", count("news", 1))
	f.want("live count news 5")
	f.snapshot("c", known("c", "y")) // nobody waited for this one
	f.want("live added c y")
}

// part is a delta that another part of the snapshot follows.
func (f *fixture) part(node string, snapshot bool, ops ...presence.Op) presence.Reply {
	f.t.Helper()
	d := f.deltaOf(node, snapshot, ops...)
	d.More = true
	reply := f.apply(d)
	if reply.Status != presence.OK {
		f.t.Fatalf("part of %s: status %d", node, reply.Status)
	}
	return reply
}

// TestSnapshotInParts: what a later part lists has never gone; what none
// lists goes with the last one.
func TestSnapshotInParts(t *testing.T) {
	f := newFixture(t, app.App{SubscriptionCount: true})
	f.do("a", join("c", "u"), join("c", "v"), join("d", "w"), join("d", "x"), count("news", 3), count("old", 1),
		presence.Op{Kind: presence.Online, App: "1", Channel: "#online-7"}, presence.Op{Kind: presence.Online, App: "1", Channel: "#online-8"})
	f.out = nil
	f.part("a", true, known("c", "u"), join("d", "y"))
	f.want("live added d y")
	f.part("a", false, known("d", "w"), leave("c", "u"), count("news", 3))
	f.want("live removed c u")
	changed := known("d", "x")
	changed.Info = `{"n":2}`
	f.do("a", changed, presence.Op{Kind: presence.Online, App: "1", Channel: "#online-8"})
	f.want("live removed d x", "live removed c v", "live offline #online-7 7", "live added d x")
	if q := f.shard.Query(&presence.Query{App: "1", All: true}, f.now); len(q.Channels) != 2 || q.Channels[0].Users != 3 || q.Channels[1].Subscriptions != 3 {
		t.Errorf("answer %+v", q)
	}
	f.do("a", join("c", "z")) // an ordinary delta again
	f.want("live added c z")
}

// TestSnapshotInPartsToNewOwner: until the last part the gateway has not
// reported, and what it had is announced to nobody.
func TestSnapshotInPartsToNewOwner(t *testing.T) {
	f := newFixture(t, app.App{Limits: app.Limits{PresenceMembers: 2}})
	f.shard.Await([]string{"a"}, f.now)
	f.seq["a"] = 7
	f.part("a", true, known("c", "u"))
	if q := f.shard.Query(&presence.Query{App: "1", Channel: "c"}, f.now); !q.Incomplete {
		t.Error("complete after the first of three parts")
	}
	f.part("a", false, known("c", "v"))
	f.do("a", known("c", "w"), join("d", "new"))
	f.want("live added d new")
	if q := f.shard.Query(&presence.Query{App: "1", Channel: "c"}, f.now); q.Incomplete || q.Channels[0].Users != 3 {
		t.Errorf("answer %+v", q)
	}
}

// TestSnapshotAgain: a new snapshot makes the parts of the last one void.
func TestSnapshotAgain(t *testing.T) {
	f := newFixture(t, app.App{})
	f.do("a", join("c", "u"), join("c", "v"))
	f.part("a", true, known("c", "u"))
	f.out = nil
	f.part("a", true, known("c", "v"))
	f.do("a")
	f.want("live removed c u")
}

// TestWindowOfAnother: the window that opens for a gateway that is shown late
// silences nobody whose state was known before.
func TestWindowOfAnother(t *testing.T) {
	f := newFixture(t, app.App{})
	f.do("a", join("c", "u"))
	f.shard.Await(nil, f.now)
	f.out = nil
	if fresh := f.shard.AwaitNew([]string{"a", "late"}, f.now); !slices.Equal(fresh, []string{"late"}) {
		t.Fatalf("awaits %v", fresh)
	}
	f.snapshot("a", known("c", "u"), known("c", "v"))
	f.want("live added c v")
	f.snapshot("late", known("c", "w")) // its first delta: nobody else has heard of w
	f.want("live added c w")
}

func TestWindowDeadline(t *testing.T) {
	f := newFixture(t, app.App{})
	f.shard.Await([]string{"a"}, f.now)
	f.now += state.WindowMs
	f.seq["a"] = 3
	f.snapshot("a", known("c", "u"))
	f.want("live added c u")
}
