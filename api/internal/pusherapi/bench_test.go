package pusherapi

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace/noop"

	"github.com/carillon-rt/carillon/api/internal/publish"
	"github.com/carillon-rt/carillon/api/internal/rate"
	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/proto/signature"
)

// takeAll accepts everything at once: the benchmark is of what happens before.
type takeAll struct{ n int }

func (s *takeAll) PublishWait(_ context.Context, pubs []*message.Publication) []publisher.Receipt {
	s.n += len(pubs)
	return make([]publisher.Receipt, len(pubs))
}

// triggerAllocsMax is the budget of one trigger without net/http's own part; 27 were counted in November 2026.
const triggerAllocsMax = 30

type bareWriter struct {
	header http.Header
	status int
}

func (w *bareWriter) Header() http.Header         { return w.header }
func (w *bareWriter) Write(p []byte) (int, error) { return len(p), nil }
func (w *bareWriter) WriteHeader(status int)      { w.status = status }

// triggers returns a function that runs one trigger of 200 bytes through the handler.
func triggers(tb testing.TB) func() {
	tb.Helper()
	apps, err := app.NewRegistry([]app.App{{ID: "3", Keys: []app.Key{{Key: "key", Secret: "secret"}}}})
	if err != nil {
		tb.Fatal(err)
	}
	sender := &takeAll{}
	h := New(Config{BodyMax: 1 << 20}, Deps{
		Apps: apps, Publish: publish.New(sender, time.Now), Log: slog.New(slog.DiscardHandler), Metrics: telemetry.NewMetrics(),
		Tracer: noop.NewTracerProvider(), Now: time.Now, Rates: rate.New(time.Now()),
	})
	body := `{"name":"message","channels":["private-room-17"],"data":"{\"text\":\"` + strings.Repeat("x", 200) + `\"}","socket_id":"123.456"}`
	query := "auth_key=key&auth_timestamp=" + strconv.FormatInt(time.Now().Unix(), 10) + "&auth_version=1.0&body_md5=" + signature.BodyMD5([]byte(body))
	query += "&auth_signature=" + signature.Sign("secret", signature.Request("POST", "/apps/3/events", query))
	request := httptest.NewRequest(http.MethodPost, "/apps/3/events?"+query, strings.NewReader(body))
	w := &bareWriter{header: http.Header{}}
	reader := strings.NewReader(body)
	request.Body = io.NopCloser(reader)
	return func() {
		reader.Reset(body)
		h.ServeHTTP(w, request)
		if w.status != http.StatusOK {
			tb.Fatalf("status %d", w.status)
		}
	}
}

func BenchmarkTrigger(b *testing.B) {
	run := triggers(b)
	b.ReportAllocs()
	for b.Loop() {
		run()
	}
}

func TestTriggerAllocations(t *testing.T) {
	run := triggers(t)
	run()
	if n := testing.AllocsPerRun(100, run); n > triggerAllocsMax {
		t.Errorf("%v allocations per trigger, the budget is %d", n, triggerAllocsMax)
	}
}
