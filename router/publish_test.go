package router_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/carillon-rt/carillon/kit/natstest"
	protocluster "github.com/carillon-rt/carillon/proto/cluster"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/proto/subject"
	"github.com/carillon-rt/carillon/router"
)

// TestEveryReceiptOnce stops a publisher while many publish: each of them is
// told exactly once.
func TestEveryReceiptOnce(t *testing.T) {
	srv := natstest.Server(t)
	start(t, srv.Deps(t, "r1", router.Role))
	conns := srv.Conns(t)
	for round := range 5 {
		p := publisher.New(publisher.Config{Partitions: partitions, QueueMax: 50}, conns.Req, nil, nil)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- p.Run(ctx) }()
		const n = 2000
		told := make([]atomic.Int32, n)
		var publishing sync.WaitGroup
		for w := range 4 {
			publishing.Go(func() {
				for i := w; i < n; i += 4 {
					p.Publish(event(fmt.Sprint("c", i%20), "x"), func(publisher.Receipt) { told[i].Add(1) })
					if i == n/2+round {
						cancel()
					}
				}
			})
		}
		publishing.Wait()
		cancel()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		for i := range told {
			if c := told[i].Load(); c != 1 {
				t.Fatalf("round %d: publication %d is told %d times", round, i, c)
			}
		}
	}
}

// TestSameKeyAtTwoRouters has two routers take the same publications at once:
// each is stored once, and both publishers learn the same position.
func TestSameKeyAtTwoRouters(t *testing.T) {
	conns := twoRouters(t)
	tp := listen(t, conns.Live)
	const n = 100
	var receipts [2][]publisher.Receipt
	var both sync.WaitGroup
	for i, node := range []string{"r1", "r2"} {
		p := newPublisher(t, conns.Req, node)
		both.Go(func() {
			var pubs []*message.Publication
			for k := range n {
				pub := event("cache-k", fmt.Sprint(k))
				pub.IdempotencyKey = fmt.Sprint(k)
				pubs = append(pubs, pub)
			}
			receipts[i] = p.PublishWait(t.Context(), pubs)
		})
	}
	both.Wait()
	for k := range n {
		a, b := receipts[0][k], receipts[1][k]
		if a.Err != nil || b.Err != nil || a.Position != b.Position || a.Duplicate == b.Duplicate {
			t.Fatalf("key %d: %+v and %+v", k, a, b)
		}
	}
	eventually(t, "delivered", func() bool { return len(tp.of("cache-k")) >= n })
	if got := tp.of("cache-k"); !slices.Equal(got, numbers(n)) {
		t.Fatalf("delivered %v", got)
	}
}

// TestLiveGoesOnWithoutJournal takes the stream away from under the router.
func TestLiveGoesOnWithoutJournal(t *testing.T) {
	srv := natstest.Server(t)
	start(t, srv.Deps(t, "r1", router.Role), func(c *router.Config) { c.AcceptTimeout = 150 * time.Millisecond })
	conns := srv.Conns(t)
	tp := listen(t, conns.Live)
	apps := testApps(t)
	p := publisher.New(publisher.Config{
		Partitions: partitions,
		Durable:    func(app, channel string) bool { return apps.ByID(app).Effective(channel).Durable() },
	}, conns.Req, nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	if r := publishOne(t, p, event("cache-w", "0")); r.Err != nil {
		t.Fatal(r.Err)
	}
	js, err := jetstream.New(conns.Req)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), subject.JournalStream); err != nil {
		t.Fatal(err)
	}
	refused := publishOne(t, p, event("cache-w", "1"))
	if refused.Err == nil { // the stream is made again within seconds, which may have been quicker
		t.Log("the journal was back at once")
	} else if !asPublisherError(refused.Err).Code.Retryable() {
		t.Fatalf("without a journal: %v, want a retryable error", refused.Err)
	}
	for i := range 20 {
		if r := publishOne(t, p, event("plain-w", fmt.Sprint(i))); r.Err != nil {
			t.Fatalf("a live channel is refused: %v", r.Err)
		}
	}
	eventually(t, "live publications delivered", func() bool { return len(tp.of("plain-w")) == 20 })
	publishUntil(t, p, event("cache-w", "2"))
}

// TestQueueFull has more publications come than the router takes.
func TestQueueFull(t *testing.T) {
	srv := natstest.Server(t)
	start(t, srv.Deps(t, "r1", router.Role), func(c *router.Config) { c.QueuePublications = 5 })
	conns := srv.Conns(t)
	var b message.Batch
	for range 50 {
		b.Add(event("cache-q", "x"))
	}
	msg, err := conns.Req.Request(subject.AnyRouterPublish, b.Bytes(), patience)
	if err != nil {
		t.Fatal(err)
	}
	receipts, err := publisher.ParseReply(nil, msg.Data)
	if err != nil || len(receipts) != 50 {
		t.Fatalf("%d receipts, %v", len(receipts), err)
	}
	stored := 0
	for i, r := range receipts {
		switch {
		case r.Err == nil && i < 5:
			stored++
		case r.Err != nil && r.Err != publisher.ErrBusy:
			t.Fatalf("receipt %d: %v", i, r.Err)
		}
	}
	if stored != 5 {
		t.Errorf("%d of the first 5 are stored", stored)
	}
}

func TestMalformedRequest(t *testing.T) {
	srv := natstest.Server(t)
	start(t, srv.Deps(t, "r1", router.Role))
	conns := srv.Conns(t)
	for _, body := range [][]byte{nil, {1}, {9, 9, 9}, {1, 200, 1, 2, 3}} {
		msg, err := conns.Req.Request(subject.RouterPublish("r1"), body, patience)
		if err != nil {
			t.Fatal(err)
		}
		receipts, err := publisher.ParseReply(nil, msg.Data)
		if err != nil || len(receipts) != 1 || asPublisherError(receipts[0].Err).Code != publisher.BadPublication {
			t.Errorf("request %x is answered with %+v (%v)", body, receipts, err)
		}
	}
	msg, err := conns.Req.Request(subject.History(0), []byte("{"), patience)
	if err != nil || !json.Valid(msg.Data) {
		t.Errorf("a malformed history request: %v %v", msg, err)
	}
}

func TestSpansOnlyForSampledTraces(t *testing.T) {
	srv := natstest.Server(t)
	deps := srv.Deps(t, "r1", router.Role)
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	deps.Tracer = provider
	start(t, deps)
	p := newPublisher(t, srv.Conns(t).Req)
	traced := func(channel, flags string) *message.Publication {
		pub := event(channel, "x")
		pub.Trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-" + flags
		return pub
	}
	for _, pub := range []*message.Publication{event("cache-t", "x"), traced("cache-t", "00"), traced("cache-t", "01"), traced("plain-t", "01")} {
		if r := publishOne(t, p, pub); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	eventually(t, "two spans", func() bool { return len(spans.GetSpans()) >= 2 })
	got := spans.GetSpans()
	slices.SortFunc(got, func(a, b tracetest.SpanStub) int { return strings.Compare(a.Name, b.Name) }) // a span may end after its receipt
	if len(got) != 2 || got[0].Name != "router.append" || got[1].Name != "router.publish_live" ||
		got[0].SpanContext.TraceID().String() != "0af7651916cd43dd8448eb211c80319c" {
		t.Errorf("spans are %+v", got)
	}
	if err := provider.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestClusterFacts covers proto/cluster, which has no server to test with.
func TestClusterFacts(t *testing.T) {
	srv := natstest.Server(t)
	js, err := jetstream.New(srv.Conns(t).Req)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	if n, err := protocluster.Partitions(ctx, js, 0, 0); err == nil {
		t.Fatalf("before anybody decided there are %d partitions", n)
	}
	waited := make(chan int, 1)
	go func() {
		n, _ := protocluster.Partitions(t.Context(), js, 0, 0)
		waited <- n
	}()
	for _, want := range []int{6, 9} {
		if n, err := protocluster.Partitions(t.Context(), js, want, 1); err != nil || n != 6 {
			t.Fatalf("%d partitions, %v, want the 6 that the first decided", n, err)
		}
	}
	n := 6
	if got := <-waited; got != n {
		t.Errorf("who waited got %d, want %d", got, n)
	}
	if _, err := protocluster.Partitions(t.Context(), js, 5000, 1); err == nil {
		t.Error("5000 partitions are accepted")
	}
	kv, err := protocluster.Bucket(t.Context(), js, 1)
	if err != nil {
		t.Fatal(err)
	}
	for want := uint64(1); want <= 3; want++ {
		// Two notice the same loss: one generation.
		for range 2 {
			if g, err := protocluster.BumpGeneration(t.Context(), kv, want-1); err != nil || g != want {
				t.Fatalf("generation %d, %v, want %d", g, err, want)
			}
		}
	}
	if g, err := protocluster.Generation(t.Context(), kv); err != nil || g != 3 {
		t.Errorf("generation %d, %v, want 3", g, err)
	}
	created := time.UnixMicro(1_700_000_000_000_000)
	if a, b := protocluster.Epoch(created, 0), protocluster.Epoch(created, 1); a == b || a == "" {
		t.Errorf("epochs %q and %q", a, b)
	}
}
