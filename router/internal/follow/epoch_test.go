package follow

import (
	"context"
	"encoding/json"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/subject"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// fakeJournal is a stream whose epoch is set by hand.
type fakeJournal struct {
	js    jetstream.JetStream
	epoch atomic.Pointer[string]
}

func (j *fakeJournal) begin(epoch string) { j.epoch.Store(&epoch) }
func (j *fakeJournal) Epoch() string      { return *j.epoch.Load() }
func (j *fakeJournal) Observe(uint64)     {}
func (j *fakeJournal) Highest() uint64    { return 0 }
func (j *fakeJournal) Now() uint64        { return 0 }

func (j *fakeJournal) Bounds(ctx context.Context) (first, last uint64, err error) {
	s, err := j.js.Stream(ctx, subject.JournalStream)
	if err != nil {
		return 0, 0, err
	}
	return 1, s.CachedInfo().State.LastSeq, nil
}

// A new epoch of a log that is still there is read from its beginning, however
// much is being published.
func TestNewEpochIsReadFromItsBeginning(t *testing.T) {
	srv := natstest.Server(t)
	conns := srv.Conns(t)
	js, err := jetstream.New(conns.Req)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.CreateStream(t.Context(), jetstream.StreamConfig{
		Name: subject.JournalStream, Subjects: []string{subject.AllLog}, AllowDirect: true,
	}); err != nil {
		t.Fatal(err)
	}
	var b message.Batch
	b.Add(&message.Publication{Kind: message.Event, App: "1", Channel: "c", Event: "e", Data: []byte("x")})
	publish := func() {
		if _, err := js.Publish(t.Context(), subject.Log(0), b.Bytes()); err != nil {
			t.Error(err)
		}
	}
	publish()

	apps, err := app.NewRegistry([]app.App{{ID: "1", Keys: []app.Key{{Key: "k"}}, Policies: []app.Policy{{
		Match: "*", History: app.History{Size: 1 << 20, TTL: time.Hour},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	j := &fakeJournal{js: js}
	j.begin("e1")
	f := &follower{
		nc: conns.Req, js: js, journal: j, apps: apps, ringBytes: 1 << 30, patience: time.Second, payloadMax: conns.Req.MaxPayload,
		log: natstest.Logger(t), metrics: NewMetrics(nil),
	}
	f.reset()
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { f.run(ctx) })
	defer running.Wait()
	defer stop()
	running.Go(func() {
		for ctx.Err() == nil {
			publish()
		}
	})
	await.True(t, "it follows", func() bool { return f.caughtUp.Load() && f.state().Last > 1 })
	j.begin("e2")
	await.True(t, "it follows anew", func() bool { return f.caughtUp.Load() && f.state().Epoch == "e2" })
	ask, err := json.Marshal(history.Request{App: "1", Channel: "c", Limit: 1, Oldest: true})
	if err != nil {
		t.Fatal(err)
	}
	msg, err := conns.Req.Request(subject.History(0), ask, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var got history.Reply
	if err := json.Unmarshal(msg.Data, &got); err != nil || len(got.Entries) != 1 {
		t.Fatalf("%+v (%v)", got, err)
	}
	if first := got.Entries[0].Position; first.Seq() != 1 && got.Floor == 0 {
		t.Errorf("the first publication is that of batch %d, and nothing is said to be missing", first.Seq())
	}
}
