package backbone

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/subject"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// recorder is a Sink that keeps what it gets.
type recorder struct {
	mu      sync.Mutex
	got     []string // "data@sequence"
	flushes int
	broken  int
	starts  []message.Position
	epochs  []string
	changed chan struct{}
	last    func(partition int) message.Position // Feed.Last, where there is one
}

func newRecorder() *recorder {
	return &recorder{changed: make(chan struct{}, 1), last: func(int) message.Position { return message.Infinite }}
}

func (r *recorder) note(f func()) {
	r.mu.Lock()
	f()
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *recorder) Deliver(partition int, pos message.Position, pub *message.Publication) {
	entry := fmt.Sprintf("%s@%d", pub.Data, pos.Seq())
	if r.last(partition) < pos {
		entry += " which Last does not include"
	}
	r.note(func() { r.got = append(r.got, entry) })
}
func (r *recorder) Flush(int)  { r.note(func() { r.flushes++ }) }
func (r *recorder) Broken(int) { r.note(func() { r.broken++ }) }
func (r *recorder) Epoch(_ int, epoch string) {
	r.note(func() { r.epochs = append(r.epochs, epoch) })
}

func (r *recorder) Start(_ int, last message.Position) {
	r.note(func() { r.starts = append(r.starts, last) })
}

// until waits for a condition on what was recorded.
func (r *recorder) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		r.mu.Lock()
		done := ok()
		state := fmt.Sprintf("%v, broken %d, starts %v", r.got, r.broken, r.starts)
		r.mu.Unlock()
		if done {
			return
		}
		select {
		case <-r.changed:
		case <-timeout:
			t.Fatalf("never: %s; have %s", what, state)
		}
	}
}

func (r *recorder) untilGot(t *testing.T, want ...string) {
	t.Helper()
	r.until(t, fmt.Sprintf("delivered %v", want), func() bool { return fmt.Sprint(r.got) == fmt.Sprint(want) })
}

// bench is one partition's journal, a feed on it and what the feed delivers.
type bench struct {
	t    *testing.T
	srv  *natstest.TestServer
	nc   *nats.Conn
	js   jetstream.JetStream
	feed *Feed
	sink *recorder
	prev uint64
}

type benchOptions struct {
	republish bool
	before    int // batches in the journal before the feed starts
	cfg       FeedConfig
	tracer    trace.TracerProvider
}

func newBench(t *testing.T, opt benchOptions) *bench {
	b := &bench{t: t, srv: natstest.Server(t), sink: newRecorder()}
	b.nc = b.srv.Conns(t).Req
	b.js = ok(jetstream.New(b.nc))(t)
	b.createStream(opt.republish)
	for i := range opt.before {
		b.store(fmt.Sprintf("old%d", i))
	}
	opt.cfg.Partitions = 1
	conns := b.srv.Conns(t)
	b.feed = ok(NewFeed(opt.cfg, FeedDeps{Conns: conns, Log: natstest.Logger(t), Tracer: opt.tracer}))(t)
	b.sink.last = b.feed.Last
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- b.feed.Run(ctx, b.sink) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("feed: %v", err)
		}
	})
	select {
	case <-b.feed.Started():
	case <-time.After(20 * time.Second):
		t.Fatal("the feed does not start")
	}
	return b
}

func ok[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (b *bench) createStream(republish bool) {
	cfg := jetstream.StreamConfig{Name: subject.JournalStream, Subjects: []string{subject.AllLog}, AllowDirect: true, MaxAge: time.Hour}
	if republish {
		cfg.RePublish = &jetstream.RePublish{Source: subject.AllLog, Destination: subject.RePublish}
	}
	// The server may still be removing the files of one that was just deleted.
	await.Success(b.t, "create the journal", func() error {
		_, err := b.js.CreateStream(b.t.Context(), cfg)
		return err
	})
}

func batch(data ...string) []byte {
	var b message.Batch
	for _, d := range data {
		b.Add(&message.Publication{Kind: message.Event, App: "1", Channel: "news", Event: "e", Data: []byte(d)})
	}
	return b.Bytes()
}

// store appends a batch to the journal and returns the live message that a
// republishing server would send.
func (b *bench) store(data ...string) *nats.Msg {
	b.t.Helper()
	body := batch(data...)
	ack := ok(b.js.Publish(b.t.Context(), subject.Log(0), body))(b.t)
	m := &nats.Msg{Subject: subject.Live(0), Data: body, Header: nats.Header{
		headerSeq: {strconv.FormatUint(ack.Sequence, 10)}, headerPrev: {strconv.FormatUint(b.prev, 10)},
	}}
	b.prev = ack.Sequence
	return m
}

func (b *bench) send(msgs ...*nats.Msg) {
	b.t.Helper()
	for _, m := range msgs {
		if err := b.nc.PublishMsg(m); err != nil {
			b.t.Fatal(err)
		}
	}
}

func (b *bench) beat(seq uint64, epoch string) {
	b.t.Helper()
	body := ok(json.Marshal(history.Heartbeat{LastSeq: seq, Epoch: epoch}))(b.t)
	b.send(&nats.Msg{Subject: subject.Sync(0), Data: body})
}

func TestDeliver(t *testing.T) {
	b := newBench(t, benchOptions{republish: true})
	b.store("a", "b")
	b.sink.untilGot(t, "a@1", "b@1")
	if last := b.feed.Last(0); last != message.At(1, 1) {
		t.Errorf("the last position is %d, want that of b", last)
	}
	b.send(&nats.Msg{Subject: subject.Live(0), Data: batch("live")})
	b.sink.untilGot(t, "a@1", "b@1", "live@0")
	b.send(&nats.Msg{Subject: subject.Live(0), Data: []byte("not a batch")})
	b.send(&nats.Msg{Subject: subject.Live(0), Data: batch("x"), Header: nats.Header{headerSeq: {"many"}}})
	b.store("c")
	b.sink.untilGot(t, "a@1", "b@1", "live@0", "c@2")
	if err := b.feed.Ready(); err != nil {
		t.Error(err)
	}
}

func TestStartsAtTheTail(t *testing.T) {
	b := newBench(t, benchOptions{before: 3})
	b.sink.until(t, "start", func() bool { return fmt.Sprint(b.sink.starts) == fmt.Sprint([]message.Position{message.At(3, 0)}) })
	b.send(b.store("new"))
	b.sink.untilGot(t, "new@4")
}

func TestRepair(t *testing.T) {
	for name, tc := range map[string]struct {
		send func(b *bench, m []*nats.Msg)
	}{
		"in order":             {func(b *bench, m []*nats.Msg) { b.send(m...) }},
		"one lost":             {func(b *bench, m []*nats.Msg) { b.send(m[0], m[2], m[3]) }},
		"first lost":           {func(b *bench, m []*nats.Msg) { b.send(m[1:]...) }},
		"all but the last":     {func(b *bench, m []*nats.Msg) { b.send(m[3]) }},
		"repeats":              {func(b *bench, m []*nats.Msg) { b.send(m[0], m[0], m[1], m[0], m[1], m[2], m[2], m[3], m[3]) }},
		"backwards":            {func(b *bench, m []*nats.Msg) { b.send(m[3], m[2], m[1], m[0]) }},
		"last lost, heartbeat": {func(b *bench, m []*nats.Msg) { b.send(m[0], m[1], m[2]); b.beat(b.prev, "e1") }},
		"all lost, heartbeat":  {func(b *bench, _ []*nats.Msg) { b.beat(b.prev, "e1") }},
		"all lost, doubt":      {func(b *bench, _ []*nats.Msg) { b.feed.doubt() }},
		"all lost, slow":       {func(b *bench, _ []*nats.Msg) { b.feed.slow(subject.Live(0)) }},
	} {
		for _, before := range []int{0, 2} {
			t.Run(fmt.Sprintf("%s, %d before", name, before), func(t *testing.T) {
				b := newBench(t, benchOptions{before: before, cfg: FeedConfig{Patience: 20 * time.Millisecond}})
				var want []string
				var msgs []*nats.Msg
				for i := range 4 {
					msgs = append(msgs, b.store(fmt.Sprint(i)))
					want = append(want, fmt.Sprintf("%d@%d", i, b.prev))
				}
				tc.send(b, msgs)
				b.sink.untilGot(t, want...)
				b.send(b.store("end"))
				b.sink.untilGot(t, append(want, fmt.Sprintf("end@%d", b.prev))...)
				if b.sink.broken != 0 {
					t.Error("nothing was lost, yet the partition was called broken")
				}
			})
		}
	}
}

// A gap of more than one read, and more than what is held back meanwhile.
func TestRepairLong(t *testing.T) {
	const n = 3*readBatches + 10
	b := newBench(t, benchOptions{before: 1})
	var want []string
	var last *nats.Msg
	for i := range n {
		last = b.store(fmt.Sprint(i))
		want = append(want, fmt.Sprintf("%d@%d", i, b.prev))
	}
	b.send(last)
	b.sink.untilGot(t, want...)
}

func TestTrimmedGapIsTold(t *testing.T) {
	b := newBench(t, benchOptions{before: 1})
	b.send(b.store("seen"))
	b.sink.untilGot(t, "seen@2")
	stream := ok(b.js.Stream(t.Context(), subject.JournalStream))(t)
	b.store("lost")
	if err := stream.Purge(t.Context()); err != nil {
		t.Fatal(err)
	}
	b.send(b.store("after"))
	b.sink.until(t, "broken", func() bool { return b.sink.broken == 1 && len(b.sink.starts) == 2 })
	b.send(b.store("next"))
	b.sink.until(t, "goes on", func() bool { n := len(b.sink.got); return n > 0 && b.sink.got[n-1] == fmt.Sprintf("next@%d", b.prev) })
	for _, got := range b.sink.got {
		if got == "lost@3" {
			t.Error("what was trimmed can't have been delivered")
		}
	}
}

func TestNewStreamIsTold(t *testing.T) {
	for name, tell := range map[string]func(b *bench){
		"by the epoch of a heartbeat": func(b *bench) { b.beat(1, "e2") },
		"by a check of the tail":      func(b *bench) { b.feed.doubt() },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, benchOptions{republish: true, before: 5})
			b.beat(5, "e1")
			b.store("old")
			b.sink.untilGot(t, "old@6")
			if err := b.js.DeleteStream(t.Context(), subject.JournalStream); err != nil {
				t.Fatal(err)
			}
			b.createStream(true)
			b.prev = 0
			b.store("first")
			tell(b)
			b.sink.until(t, "broken", func() bool { return b.sink.broken == 1 && len(b.sink.starts) == 2 })
			b.store("second")
			b.sink.until(t, "goes on", func() bool { n := len(b.sink.got); return b.sink.got[n-1] == "second@2" })
		})
	}
}

func TestServerRestart(t *testing.T) {
	b := newBench(t, benchOptions{republish: true, before: 2})
	b.store("a")
	b.sink.untilGot(t, "a@3")
	want := []string{"a@3"}
	for round := range 3 {
		b.srv.Stop()
		b.srv.Start()
		for i := range 5 {
			data := fmt.Sprintf("%d-%d", round, i)
			for {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				// The id makes a retry after a lost answer harmless.
				ack, err := b.js.Publish(ctx, subject.Log(0), batch(data), jetstream.WithMsgID(data))
				cancel()
				if err == nil {
					want = append(want, fmt.Sprintf("%s@%d", data, ack.Sequence))
					break
				}
				if t.Context().Err() != nil {
					t.Fatal(err)
				}
			}
		}
		b.sink.untilGot(t, want...)
	}
	if b.sink.broken != 0 {
		t.Error("nothing was lost, yet the partition was called broken")
	}
}

func TestStartsWhenTheStreamComes(t *testing.T) {
	srv := natstest.Server(t)
	b := &bench{t: t, srv: srv, nc: srv.Conns(t).Req, sink: newRecorder()}
	b.js = ok(jetstream.New(b.nc))(t)
	feed := ok(NewFeed(FeedConfig{Partitions: 2}, FeedDeps{Conns: srv.Conns(t), Log: natstest.Logger(t)}))(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- feed.Run(ctx, b.sink) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	if feed.Ready() == nil {
		t.Error("ready without a journal")
	}
	b.send(&nats.Msg{Subject: subject.Live(0), Data: batch("live")})
	b.createStream(true)
	select {
	case <-feed.Started():
	case <-time.After(20 * time.Second):
		t.Fatal("does not start when the stream is there")
	}
	if err := feed.Ready(); err != nil {
		t.Error(err)
	}
}

func TestControl(t *testing.T) {
	got := make(chan control.Command, 1)
	b := newBench(t, benchOptions{cfg: FeedConfig{Control: func(c control.Command) { got <- c }}})
	b.send(&nats.Msg{Subject: subject.GatewayControl, Data: []byte("{")})
	b.send(&nats.Msg{Subject: subject.GatewayControl, Data: []byte(`{"app":"1","terminate_user":"7"}`)})
	select {
	case c := <-got:
		if c != (control.Command{App: "1", TerminateUser: "7"}) {
			t.Errorf("got %+v", c)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the command does not arrive")
	}
}

func TestOneSpanForASampledPublication(t *testing.T) {
	spans := tracetest.NewInMemoryExporter()
	tp := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	b := newBench(t, benchOptions{republish: true, tracer: tp})
	var batch message.Batch
	for _, parent := range []string{
		"", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "nonsense",
	} {
		batch.Add(&message.Publication{Kind: message.Event, App: "1", Channel: "news", Data: []byte("x"), Trace: parent})
	}
	ok(b.js.Publish(t.Context(), subject.Log(0), batch.Bytes()))(t)
	b.sink.until(t, "flushed", func() bool { return b.sink.flushes == 1 })
	got := spans.GetSpans()
	if len(got) != 1 || got[0].SpanKind != trace.SpanKindConsumer || got[0].Parent.SpanID().String() != "00f067aa0ba902b7" {
		t.Fatalf("spans %+v, want one consumer span below the publisher's", got)
	}
}

// A reply of a batched read that got lost on the way is a hole in what was
// read: it must be read again, not skipped.
func TestReadWithAHoleIsReadAgain(t *testing.T) {
	srv := natstest.Server(t)
	feed := ok(NewFeed(FeedConfig{Partitions: 1}, FeedDeps{Conns: srv.Conns(t), Log: natstest.Logger(t)}))(t)
	p, sink := feed.parts[0], newRecorder()
	p.sink, p.timer = sink, time.NewTimer(time.Hour)
	p.started(1, nil)
	reply := func(seq, prev uint64) {
		p.takeReply(&nats.Msg{
			Subject: p.inbox + "." + strconv.FormatUint(p.read.round, 10), Data: batch(fmt.Sprint(seq)),
			Header: nats.Header{headerSeq: {fmt.Sprint(seq)}, headerPrev: {fmt.Sprint(prev)}},
		})
	}
	end := func() {
		p.takeReply(&nats.Msg{Subject: p.inbox + "." + strconv.FormatUint(p.read.round, 10), Header: nats.Header{headerStatus: {"204"}}})
	}
	p.takeLive(&nats.Msg{Data: batch("5"), Header: nats.Header{headerSeq: {"5"}, headerPrev: {"4"}}})
	p.step(time.Now())
	reply(1, 0)
	reply(2, 1)
	reply(4, 3) // 3 is lost
	end()
	if last := p.chain.Last(); last > 2 {
		t.Fatalf("delivered up to %d over a hole: %v", last, sink.got)
	}
	p.step(time.Now().Add(time.Minute))
	first := p.chain.Last()
	reply(first, 0)
	for seq := first + 1; seq <= 4; seq++ {
		reply(seq, seq-1)
	}
	end()
	sink.untilGot(t, "2@2", "3@3", "4@4", "5@5")
}
