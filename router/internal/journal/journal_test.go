package journal

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/cluster"
	"github.com/carillon-rt/carillon/proto/subject"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func open(t *testing.T, srv *natstest.TestServer, retention func() time.Duration) *Journal {
	t.Helper()
	js, err := jetstream.New(srv.Conns(t).Req)
	if err != nil {
		t.Fatal(err)
	}
	j, err := Open(t.Context(), Config{
		Replicas: 1, LogBytes: 64 << 20, IngestBytes: 1 << 20, IngestAge: time.Hour, IdempotencyWindow: time.Minute,
		Retention: retention,
	}, js, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return j
}

// TestNobodyLeads: while the stream has no leader any server answers, with what
// its own copy has. That may be old, and proves nothing.
func TestNobodyLeads(t *testing.T) {
	srv := natstest.Server(t)
	j := open(t, srv, hour)
	epoch := j.Epoch()
	old := &jetstream.StreamInfo{State: jetstream.StreamState{LastSeq: 90}, Cluster: &jetstream.ClusterInfo{}}
	looks := func(info *jetstream.StreamInfo, n int) {
		t.Helper()
		for range n {
			if err := j.checkBackwards(t.Context(), info, 100); err != nil {
				t.Fatal(err)
			}
		}
	}
	looks(old, 2*backwardsChecks)
	if j.Epoch() != epoch {
		t.Fatal("the epoch changed while the stream had no leader")
	}
	led := *old
	led.Cluster = &jetstream.ClusterInfo{Leader: "n1"}
	looks(&led, backwardsChecks)
	if j.Epoch() == epoch {
		t.Error("the leader says that sequences are lost, and the epoch is still the same")
	}
}

func hour() time.Duration { return time.Hour }

// TestSequencesWentBackwards: what was acknowledged is not there any more, as
// after a power failure. Positions will be given again, so the epoch changes;
// for all routers, once.
func TestSequencesWentBackwards(t *testing.T) {
	srv := natstest.Server(t)
	a, b := open(t, srv, hour), open(t, srv, hour)
	epoch := a.Epoch()
	if b.Epoch() != epoch {
		t.Fatalf("epochs %s and %s of one journal", epoch, b.Epoch())
	}
	a.Observe(100)
	for i := range backwardsChecks {
		if a.Epoch() != epoch {
			t.Fatalf("the epoch changed after %d looks: a new leader may lag", i)
		}
		if err := a.check(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if a.Epoch() == epoch {
		t.Fatal("the epoch is still the same")
	}
	for range 2 * backwardsChecks {
		for _, j := range []*Journal{a, b} {
			if err := j.check(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if a.Epoch() != b.Epoch() || a.generation != 1 {
		t.Errorf("epochs %s and %s, generation %d, want the same and 1", a.Epoch(), b.Epoch(), a.generation)
	}
}

func TestRetentionIsRaised(t *testing.T) {
	srv := natstest.Server(t)
	retention := time.Hour
	j := open(t, srv, func() time.Duration { return retention })
	maxAge := func() time.Duration {
		s, err := j.js.Stream(t.Context(), subject.JournalStream)
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().Config.MaxAge
	}
	if got := maxAge(); got != time.Hour {
		t.Fatalf("the log keeps %s", got)
	}
	for _, want := range []time.Duration{3 * time.Hour, 3 * time.Hour} {
		if err := j.check(t.Context()); err != nil {
			t.Fatal(err)
		}
		retention = want
		if err := j.check(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := maxAge(); got != want {
			t.Fatalf("the log keeps %s, want %s", got, want)
		}
		retention = time.Hour
	}
}

// TestRetentionIsRaisedAgain: another router, which knows fewer apps, starts
// and lowers what this one needs.
func TestRetentionIsRaisedAgain(t *testing.T) {
	srv := natstest.Server(t)
	j := open(t, srv, func() time.Duration { return 3 * time.Hour })
	open(t, srv, hour)
	if err := j.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := j.js.Stream(t.Context(), subject.JournalStream)
	if err != nil {
		t.Fatal(err)
	}
	if got := s.CachedInfo().Config.MaxAge; got != 3*time.Hour {
		t.Fatalf("the log keeps %s, want 3h", got)
	}
}

// TestEverythingLost: the NATS server comes back with an empty disk. That is a
// new epoch, and nothing has to be restarted.
func TestEverythingLost(t *testing.T) {
	srv := natstest.Server(t)
	j := open(t, srv, hour)
	if _, err := j.Partitions(t.Context(), 7); err != nil {
		t.Fatal(err)
	}
	epoch := j.Epoch()
	for _, name := range []string{subject.JournalStream, subject.IngestStream, "KV_" + subject.ConfigBucket} {
		if err := j.js.DeleteStream(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := j.check(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if j.Epoch() == epoch {
		t.Error("the epoch is still the same")
	}
	if n, err := cluster.Partitions(t.Context(), j.js, 3, 1); err != nil || n != 7 {
		t.Errorf("%d partitions (%v), want 7 as before", n, err)
	}
}

// TestRePublish: what is stored comes on the live subject with the headers
// that gateways find gaps by.
func TestRePublish(t *testing.T) {
	srv := natstest.Server(t)
	open(t, srv, hour)
	conns := srv.Conns(t)
	live := make(chan *nats.Msg, 4)
	sub, err := conns.Live.ChanSubscribe(subject.Live(2), live)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	if err := conns.Live.Flush(); err != nil {
		t.Fatal(err)
	}
	js, err := jetstream.New(conns.Req)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for i, last := range []string{"0", "1"} {
		if _, err := js.Publish(ctx, subject.Log(2), []byte{1}); err != nil {
			t.Fatal(err)
		}
		select {
		case msg := <-live:
			if got := msg.Header.Get("Nats-Last-Sequence"); got != last {
				t.Errorf("message %d: predecessor %s, want %s", i, got, last)
			}
		case <-ctx.Done():
			t.Fatal("nothing was republished")
		}
	}
}

// A bucket that can be neither read nor made for a moment, as during an
// election of its leader, is looked for again.
func TestFactsAwayForAWhile(t *testing.T) {
	srv := natstest.Server(t)
	j := open(t, srv, hour)
	epoch := j.Epoch()
	if err := j.js.DeleteKeyValue(t.Context(), subject.ConfigBucket); err != nil {
		t.Fatal(err)
	}
	j.cfg.Replicas = 3 // more than there are servers: it can't be made
	for range 2 {
		if err := j.check(t.Context()); err == nil {
			t.Fatal("the bucket is there")
		}
	}
	j.cfg.Replicas = 1
	await.Success(t, "the bucket is there again", func() error { return j.check(t.Context()) })
	if j.Epoch() != epoch {
		t.Errorf("epoch %s, was %s: the log has lost nothing", j.Epoch(), epoch)
	}
}
