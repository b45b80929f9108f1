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

// fixture is a shard and a clock.
type fixture struct {
	t     *testing.T
	shard *state.Shard
	now   int64
	seq   map[string]uint64
	out   []state.Effect
}

func newFixture(t *testing.T, settings app.App) *fixture {
	settings.ID, settings.Keys = "1", []app.Key{{Key: "k"}}
	apps, err := app.NewRegistry([]app.App{settings})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{t: t, now: 1_000_000, seq: map[string]uint64{}}
	f.shard = state.New(state.Config{App: apps.ByID, RosterBytes: 1000})
	f.shard.Own(f.now)
	return f
}

func join(ch, user string) presence.Op {
	return presence.Op{Kind: presence.Join, App: "1", Channel: ch, User: user, RawID: `"` + user + `"`, Info: "{}", Want: true}
}

func known(ch, user string) presence.Op {
	op := join(ch, user)
	op.Want = false
	return op
}

func leave(ch, user string) presence.Op {
	return presence.Op{Kind: presence.Leave, App: "1", Channel: ch, User: user}
}

func count(ch string, n uint64) presence.Op {
	return presence.Op{Kind: presence.Count, App: "1", Channel: ch, Count: n}
}

// deltaOf makes the next delta of a gateway's first run.
func (f *fixture) deltaOf(node string, snapshot bool, ops ...presence.Op) *presence.Delta {
	f.seq[node]++
	return &presence.Delta{Node: node, Incarnation: "1", Seq: f.seq[node], Snapshot: snapshot, Ops: ops}
}

func (f *fixture) apply(d *presence.Delta) presence.Reply {
	reply, _ := f.shard.Apply(d, f.now, &f.out)
	return reply
}

func (f *fixture) do(node string, ops ...presence.Op) presence.Reply {
	f.t.Helper()
	reply := f.apply(f.deltaOf(node, false, ops...))
	if reply.Status != presence.OK {
		f.t.Fatalf("delta of %s: status %d", node, reply.Status)
	}
	return reply
}

func (f *fixture) snapshot(node string, ops ...presence.Op) presence.Reply {
	f.t.Helper()
	reply := f.apply(f.deltaOf(node, true, ops...))
	if reply.Status != presence.OK {
		f.t.Fatalf("snapshot of %s: status %d", node, reply.Status)
	}
	return reply
}

func (f *fixture) pass(ms int64) {
	f.now += ms
	f.shard.Tick(f.now, &f.out)
}

// want compares what was announced since the last call: "live ..." and "hook ...".
func (f *fixture) want(lines ...string) {
	f.t.Helper()
	var got []string
	var last uint64
	for _, e := range f.out {
		if e.Version <= last {
			f.t.Errorf("version %d after %d", e.Version, last)
		}
		last = e.Version
		text := fmt.Sprintf("%s %s", name(e.Kind), e.Key.Name)
		if e.Member.ID != "" {
			text += " " + e.Member.ID
		}
		if e.Kind == state.Count {
			text += fmt.Sprintf(" %d", e.Count)
		}
		if e.Live {
			got = append(got, "live "+text)
		}
		if e.Hook {
			got = append(got, "hook "+text)
		}
	}
	f.out = nil
	if !slices.Equal(got, lines) {
		f.t.Errorf("announced\n  %s\nwant\n  %s", strings.Join(got, "\n  "), strings.Join(lines, "\n  "))
	}
}

func name(k state.Kind) string {
	return [...]string{"?", "added", "removed", "occupied", "vacated", "count", "online", "offline", "lost"}[k]
}

func (f *fixture) ids(res presence.Result) string {
	var ids []string
	for _, m := range res.Members {
		ids = append(ids, m.ID)
	}
	return strings.Join(ids, ",")
}
