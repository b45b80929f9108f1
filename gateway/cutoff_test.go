package gateway

import (
	"bytes"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/cluster"
)

// pair is a membership of this gateway and another one.
type pair struct {
	cluster.Membership
	otherAway atomic.Bool
}

func (p *pair) Members() []cluster.Member {
	other := cluster.Member{Node: "other", Incarnation: "1", Roles: []string{Role}, Away: p.otherAway.Load()}
	return append([]cluster.Member{p.Local()}, other)
}

// TestCutOff: a gateway that alone has lost NATS sends its clients elsewhere,
// and takes clients again when NATS is back. While others have none either
// clients stay.
func TestCutOff(t *testing.T) {
	cfg := testConfig()
	cfg.Drain.CutOff = 100 * time.Millisecond
	members := &pair{Membership: cluster.NewStatic(cluster.Member{Node: "gw", Incarnation: cluster.NewIncarnation(), Roles: []string{Role}})}
	members.otherAway.Store(true)
	w := newWorldWith(t, cfg, Options{}, members)
	w.makeJournal()
	clients := []*client{subscribed(w, "news"), subscribed(w, "other")}
	w.untilCount("news", 1)

	w.srv.Stop()
	await.True(t, "NATS is lost", func() bool { return w.deps.NATS.Connected() != nil })
	lost := time.Now()
	await.True(t, "the watch has looked more than once", func() bool { return time.Since(lost) > 3*cutOffCheck })
	if n := open(w.gw.edge.Stats()); n != 2 {
		t.Fatalf("%d clients are left with NATS gone everywhere, want 2", n)
	}
	members.otherAway.Store(false)
	for _, c := range clients {
		if code := c.closeCode(); code != 4200 {
			t.Errorf("closed with %d, want 4200: reconnect at once", code)
		}
	}
	late := w.dial(ws.Dialer{}, "ws")
	if code := late.closeCode(); code != 4200 {
		t.Errorf("a client that comes meanwhile is closed with %d, want 4200", code)
	}

	w.srv.Start()
	await.True(t, "clients may stay again", w.welcomes)
	subscribed(w, "news")
}

// welcomes says whether a new client is greeted, and not sent away.
func (w *world) welcomes() bool {
	c := w.dial(ws.Dialer{}, "ws")
	defer c.conn.Close()
	first, err := wsutil.ReadServerText(c.rw)
	return err == nil && bytes.Contains(first, []byte("pusher:connection_established"))
}
