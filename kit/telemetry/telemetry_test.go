package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/carillon-rt/carillon/kit/telemetry"
)

const parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

func TestLogger(t *testing.T) {
	var out bytes.Buffer
	log := telemetry.NewLogger(&out, slog.LevelInfo, "json").With("node", "a")
	ctx := telemetry.ContextWithTraceparent(t.Context(), parent)
	log.DebugContext(ctx, "unheard")
	log.InfoContext(ctx, "heard", "n", 1)
	var rec map[string]any
	if err := json.Unmarshal(out.Bytes(), &rec); err != nil {
		t.Fatalf("%v in %s", err, &out)
	}
	if rec["msg"] != "heard" || rec["node"] != "a" || rec["trace_id"] != parent[3:35] || rec["span_id"] != parent[36:52] {
		t.Errorf("record is %v", rec)
	}
	out.Reset()
	telemetry.NewLogger(&out, slog.LevelWarn, "text").WithGroup("g").Warn("hot", "k", "v")
	if !strings.Contains(out.String(), "level=WARN msg=hot g.k=v") || strings.Contains(out.String(), "trace_id") {
		t.Errorf("text record is %q", &out)
	}
}

func TestTraceparentRoundTrip(t *testing.T) {
	for _, tp := range []string{parent, parent[:53] + "00"} {
		if got := telemetry.Traceparent(telemetry.ContextWithTraceparent(t.Context(), tp)); got != tp {
			t.Errorf("%s became %s", tp, got)
		}
	}
	if got := telemetry.Traceparent(t.Context()); got != "" {
		t.Errorf("no span gives %q", got)
	}
}

func TestTraceparentShapes(t *testing.T) {
	tests := []struct {
		name, in       string
		sampled, valid bool
	}{
		{"sampled", parent, true, true},
		{"not sampled", parent[:53] + "00", false, true},
		{"other flags with sampled", parent[:53] + "03", true, true},
		{"other flags alone", parent[:53] + "02", false, true},
		{"high flag digit only", parent[:53] + "10", false, true},
		{"later version with more", "01" + parent[2:] + "-extra", true, true},
		{"empty", "", false, false},
		{"short", parent[:54], false, false},
		{"version 0 with more", parent + "-extra", false, false},
		{"later version, glued", "01" + parent[2:] + "0", false, false},
		{"forbidden version", "ff" + parent[2:], false, false},
		{"wrong separators", strings.ReplaceAll(parent, "-", "_"), false, false},
		{"zero trace id", "00-" + strings.Repeat("0", 32) + parent[35:], true, false},
		{"not hex", "00-" + strings.Repeat("x", 32) + parent[35:], true, false},
		{"zero span id", parent[:36] + strings.Repeat("0", 16) + parent[52:], true, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := telemetry.Sampled(tt.in); got != tt.sampled {
				t.Errorf("Sampled = %v, want %v", got, tt.sampled)
			}
			sc := trace.SpanContextFromContext(telemetry.ContextWithTraceparent(t.Context(), tt.in))
			if sc.IsValid() != tt.valid {
				t.Errorf("parsed: %v, want %v", sc.IsValid(), tt.valid)
			}
			if tt.valid && (sc.IsSampled() != tt.sampled || !sc.IsRemote()) {
				t.Errorf("sampled %v, remote %v", sc.IsSampled(), sc.IsRemote())
			}
		})
	}
}

func TestSampledNoAlloc(t *testing.T) {
	sampled := 0
	n := testing.AllocsPerRun(100, func() {
		if telemetry.Sampled(parent) {
			sampled++
		}
	})
	if n != 0 || sampled == 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestTracingOff(t *testing.T) {
	tp, stop, err := telemetry.NewTracing(t.Context(), telemetry.DefaultTracingConfig())
	if err != nil {
		t.Fatal(err)
	}
	_, span := tp.Tracer("x").Start(t.Context(), "work")
	if span.IsRecording() {
		t.Error("the no-op provider records")
	}
	if err := stop(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestTracingExports(t *testing.T) {
	bodies := make(chan []byte, 8)
	paths := make(chan string, 8)
	collector := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		paths <- r.URL.Path
		bodies <- body
	}))
	defer collector.Close()
	cfg := telemetry.TracingConfig{Endpoint: collector.URL, Ratio: 0, Service: "carillon-test", Node: "node-1"}
	tp, stop, err := telemetry.NewTracing(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	tracer := tp.Tracer("x")
	_, dropped := tracer.Start(t.Context(), "own-root")
	dropped.End()
	ctx, span := tracer.Start(telemetry.ContextWithTraceparent(t.Context(), parent), "followed")
	if got := telemetry.Traceparent(ctx); got[:35] != parent[:35] || !telemetry.Sampled(got) {
		t.Errorf("the span does not follow its parent: %s", got)
	}
	span.End()
	if err := stop(context.WithoutCancel(t.Context())); err != nil {
		t.Fatal(err)
	}
	if p := <-paths; p != "/v1/traces" {
		t.Errorf("exported to %s", p)
	}
	body := <-bodies
	for _, part := range []string{"followed", "carillon-test", "node-1"} {
		if !bytes.Contains(body, []byte(part)) {
			t.Errorf("no %q in the export", part)
		}
	}
	if bytes.Contains(body, []byte("own-root")) {
		t.Error("a root was sampled at ratio 0")
	}
}

func TestTracingConfigMistakes(t *testing.T) {
	for _, cfg := range []telemetry.TracingConfig{
		{Ratio: -1}, {Ratio: 1.1}, {Endpoint: "collector:4318"}, {Endpoint: "grpc://x:1"}, {Endpoint: "http://"},
	} {
		if cfg.Validate() == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

func TestRegister(t *testing.T) {
	m := telemetry.NewMetrics()
	opts := prometheus.CounterOpts{Name: "carillon_test_total", Help: "x"}
	first := telemetry.Register(m, prometheus.NewCounter(opts))
	second := telemetry.Register(m, prometheus.NewCounter(opts))
	if first != second {
		t.Error("the second registration is another counter")
	}
	if telemetry.Register(nil, prometheus.NewCounter(opts)) == nil {
		t.Error("no counter without a registry")
	}
	defer func() {
		if recover() == nil {
			t.Error("a gauge took the name of a counter")
		}
	}()
	telemetry.Register(m, prometheus.NewGauge(prometheus.GaugeOpts(opts)))
}
