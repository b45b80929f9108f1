package api_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/carillon-rt/carillon/api"
	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/proto/subject"
)

func TestConfigValidate(t *testing.T) {
	if err := api.DefaultConfig().Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	for name, change := range map[string]func(*api.Config){
		"listen": func(c *api.Config) { c.Listen = "6002" }, "prefix": func(c *api.Config) { c.PathPrefix = "pusher" },
		"partitions": func(c *api.Config) { c.Partitions = 0 }, "body": func(c *api.Config) { c.BodyMax = 0 },
		"timeout": func(c *api.Config) { c.PublishTimeout = 0 }, "webhook": func(c *api.Config) { c.Webhook.Concurrency = 0 },
	} {
		cfg := api.DefaultConfig()
		if change(&cfg); cfg.Validate() == nil {
			t.Errorf("%s: nothing is wrong", name)
		}
	}
}

func TestNew(t *testing.T) {
	deps := natstest.Server(t).Deps(t, "api-1", "api")
	registry, err := app.NewRegistry(apps())
	if err != nil {
		t.Fatal(err)
	}
	cfg := api.DefaultConfig()
	cfg.Listen = ""
	a, err := api.New(cfg, deps, registry)
	if err != nil || a.Addr() != "" {
		t.Fatalf("without a port: %q, %v", a.Addr(), err)
	}
	// Behind another port the handler works alone; before Run a trigger is refused in time, not lost.
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/up", nil))
	if w.Code != http.StatusOK {
		t.Errorf("/up: %d", w.Code)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	cfg.Listen = taken.Addr().String()
	if _, err := api.New(cfg, deps, registry); err == nil || !strings.Contains(err.Error(), "bind API port") {
		t.Errorf("on a port that is taken: %v", err)
	}
}

// A trigger that waits for its receipt when the service is told to stop gets its answer.
func TestStopFinishesRequests(t *testing.T) {
	srv := natstest.Server(t)
	deps := srv.Deps(t, "api-1", "api")
	registry, err := app.NewRegistry(apps())
	if err != nil {
		t.Fatal(err)
	}
	cfg := api.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	a, err := api.New(cfg, deps, registry)
	if err != nil {
		t.Fatal(err)
	}
	requests := make(chan *nats.Msg, 1)
	if _, err := deps.NATS.Live.ChanSubscribe(subject.AnyRouterPublish, requests); err != nil || deps.NATS.Live.Flush() != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	awaitQueue(t, deps.NATS.Live)
	f := &fixture{t: t, addr: a.Addr()}
	answer := make(chan response, 1)
	go func() { answer <- f.do(events(`{"name":"e","channel":"a","data":"1"}`)) }()
	request := <-requests
	cancel()
	await.True(t, "the port to close", func() bool {
		conn, err := net.DialTimeout("tcp", a.Addr(), time.Second)
		if err == nil {
			conn.Close()
		}
		return err != nil
	})
	if err := request.Respond(publisher.AppendReply(nil, "epoch", []publisher.Receipt{{Position: message.At(1, 0)}})); err != nil {
		t.Fatal(err)
	}
	if got := <-answer; got.status != 200 {
		t.Errorf("answer %d %s", got.status, got.body)
	}
	if err := <-done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

// A request is a server span, child of the caller's, and its publications carry it.
func TestTracing(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	f := startTraced(t, sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)))
	f.router()
	const parent = "0af7651916cd43dd8448eb211c80319c"
	r := events(`{"name":"e","channel":"a","data":"1"}`)
	r.header = "traceparent: 00-" + parent + "-b7ad6b7169203331-01\r\n"
	if got := f.do(r); got.status != 200 {
		t.Fatalf("answer %d %s", got.status, got.body)
	}
	await.True(t, "the span to end", func() bool { return len(spans.Ended()) == 1 })
	span := spans.Ended()[0]
	pubs := f.take()
	want := "00-" + parent + "-" + span.SpanContext().SpanID().String() + "-01"
	if span.SpanKind() != trace.SpanKindServer || len(pubs) != 1 || pubs[0].Trace != want {
		t.Errorf("span of kind %v; publications %+v, want trace %s", span.SpanKind(), pubs, want)
	}
}
