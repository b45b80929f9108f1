package presence

import (
	"testing"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/subject"
)

func TestClockThatIsPutBack(t *testing.T) {
	const hour = 3_600_000
	var wall, even int64
	c := clock{read: func() (int64, int64) { return wall, even }}
	for _, step := range []struct {
		name             string
		wall, even, want int64
	}{
		{"start", 9 * hour, 9 * hour, 9 * hour},
		{"a second", 9*hour + 1000, 9*hour + 1000, 9*hour + 1000},
		{"put back an hour", 8*hour + 2000, 9*hour + 2000, 9*hour + 2000},
		{"goes on", 8*hour + 2100, 9*hour + 2100, 9*hour + 2100},
		{"put right", 9*hour + 2200, 9*hour + 2200, 9*hour + 2200},
		{"slept for a while", 10 * hour, 9*hour + 2300, 10 * hour},
		{"goes on", 10*hour + 50, 9*hour + 2350, 10*hour + 50},
	} {
		wall, even = step.wall, step.even
		if got := c.nowMs(); got != step.want {
			t.Errorf("%s: %d, want %d", step.name, got, step.want)
		}
		if got := c.nowMs() - c.behind; got != step.wall {
			t.Errorf("%s: tells others %d, the machine says %d", step.name, got, step.wall)
		}
	}
}

// Heartbeats go on when the machine's clock has been put back.
func TestBeatsWhenTheClockIsPutBack(t *testing.T) {
	apps, err := app.NewRegistry([]app.App{{ID: "1", Keys: []app.Key{{Key: "k"}}}})
	if err != nil {
		t.Fatal(err)
	}
	deps := natstest.Server(t).Deps(t, "p1", rolePresence)
	beats, err := deps.NATS.Req.SubscribeSync(subject.PresenceSync)
	if err != nil {
		t.Fatal(err)
	}
	svc, err := New(DefaultConfig(), deps, apps)
	if err != nil {
		t.Fatal(err)
	}
	w := svc.workers[0]
	w.announce = newAnnouncer(1, deps.NATS.Req.Publish)
	const start = int64(9_000_000)
	wall, even := start, start
	w.clock.read = func() (int64, int64) { return wall, even }
	w.view = newView(deps.Cluster)
	w.assign(w.seats[0], w.clock.nowMs())
	w.beat(w.clock.nowMs())
	wall -= 3_600_000
	for range 3 {
		wall, even = wall+beatEveryMs, even+beatEveryMs
		w.beat(w.clock.nowMs())
	}
	for i := range 4 {
		if _, err := beats.NextMsg(await.Patience); err != nil {
			t.Fatalf("%d heartbeats, want 4: %v", i, err)
		}
	}
}
