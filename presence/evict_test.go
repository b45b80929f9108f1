package presence

import (
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/presence"
)

// alone is a worker of the only presence node, and the first of its shards, at
// a time in Unix milliseconds. Nobody but the test runs it.
func alone(t *testing.T) (w *worker, of *seat, now int64) {
	t.Helper()
	apps, err := app.NewRegistry([]app.App{{ID: "1", Keys: []app.Key{{Key: "k"}}}})
	if err != nil {
		t.Fatal(err)
	}
	svc, err := New(DefaultConfig(), natstest.Server(t).Deps(t, "p1"), apps)
	if err != nil {
		t.Fatal(err)
	}
	w = svc.workers[0]
	of, now = w.seats[0], time.Now().UnixMilli()
	w.view = newView(cluster.NewStatic(cluster.Member{Node: "p1", Incarnation: "1", Roles: []string{rolePresence}}))
	w.assign(of, now)
	return w, of, now
}

// A gateway that did not answer is taken out only if the membership still
// shows it, or that run of it, to be gone.
func TestSeenAgainWhileItWasAsked(t *testing.T) {
	w, seat, now := alone(t)
	gateway := presence.Mark{Node: "g", Incarnation: "5"}
	known := func() bool {
		_, ok := seat.replica.Shard().Mark(gateway.Node)
		return ok
	}
	seat.replica.Delta(presence.Delta{Node: "g", Incarnation: "5", Seq: 1, Shard: seat.shard}, "", now, &w.out)
	for _, step := range []struct {
		name  string
		live  map[string]string
		known bool
	}{
		{"it is seen again", map[string]string{"g": "5"}, true},
		{"another one is seen", map[string]string{"h": "5"}, false},
	} {
		w.view.live = step.live
		w.obey(command{evict: &gateway}, now)
		if known() != step.known {
			t.Errorf("%s: known %v, want %v", step.name, known(), step.known)
		}
	}
	seat.replica.Delta(presence.Delta{Node: "g", Incarnation: "5", Seq: 1, Shard: seat.shard}, "", now, &w.out)
	w.view.live = map[string]string{"g": "6"}
	if w.obey(command{evict: &gateway}, now); known() {
		t.Error("the run before the present one is kept")
	}
}

// A gateway's machine may have its clock put back: then its next run has a name
// that sorts before that of the run that was killed. The members of that one go
// all the same, and those of the next one come.
func TestRunOfAGatewayWhoseClockWasPutBack(t *testing.T) {
	w, seat, now := alone(t)
	delta := func(incarnation string) string {
		seat.replica.Delta(presence.Delta{Node: "g", Incarnation: incarnation, Seq: 1, Snapshot: true, Shard: seat.shard}, "", now, &w.out)
		m, _ := seat.replica.Shard().Mark("g")
		return m.Incarnation
	}
	if got := delta("5"); got != "5" {
		t.Fatalf("known is %q", got)
	}
	w.view.live = map[string]string{"g": "4"}
	for _, m := range seat.replica.Suspects(w.view.incarnation) {
		w.obey(command{evict: &m}, now) // the gateway was asked, and said that it is another run
	}
	if got := delta("4"); got != "4" {
		t.Errorf("known is %q, want the run that lives", got)
	}
}
