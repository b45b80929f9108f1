package operations

import (
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// span is what the tests look at.
type span struct{ node, name, kind, id, parent string }

// receiver is an OTLP/HTTP collector.
type receiver struct {
	mu sync.Mutex
	// guarded by mu
	spans map[string][]span // by trace
	err   error             // of a request that was not understood
}

func startReceiver(t *testing.T) (r *receiver, url string) {
	t.Helper()
	r = &receiver{spans: map[string][]span{}}
	srv := httptest.NewServer(r)
	t.Cleanup(srv.Close)
	return r, srv.URL
}

// ServeHTTP implements http.Handler.
func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	batch, err := export(req)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.err = err
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for _, resource := range batch.GetResourceSpans() {
		var node string
		for _, a := range resource.GetResource().GetAttributes() {
			if a.GetKey() == "service.instance.id" {
				node = a.GetValue().GetStringValue()
			}
		}
		for _, scope := range resource.GetScopeSpans() {
			for _, s := range scope.GetSpans() {
				trace := hex.EncodeToString(s.GetTraceId())
				r.spans[trace] = append(r.spans[trace], span{
					node: node, name: s.GetName(), kind: strings.TrimPrefix(s.GetKind().String(), "SPAN_KIND_"),
					id: hex.EncodeToString(s.GetSpanId()), parent: hex.EncodeToString(s.GetParentSpanId()),
				})
			}
		}
	}
	w.Header().Set("Content-Type", "application/x-protobuf")
}

func export(req *http.Request) (*collector.ExportTraceServiceRequest, error) {
	if req.URL.Path != "/v1/traces" {
		return nil, fmt.Errorf("spans sent to %s", req.URL.Path)
	}
	body := io.Reader(req.Body)
	if req.Header.Get("Content-Encoding") == "gzip" {
		unzipped, err := gzip.NewReader(body)
		if err != nil {
			return nil, err
		}
		body = unzipped
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		return nil, err
	}
	out := &collector.ExportTraceServiceRequest{}
	return out, proto.Unmarshal(raw, out)
}

// A trace has one span per process that a publication passes, whoever began
// it and however many clients receive it; a caller who does not sample gets
// none.
func TestTraces(t *testing.T) {
	spans, url := startReceiver(t)
	c := env.Start(t, env.Apart(2), env.Set("telemetry.otlp_endpoint="+url, "telemetry.sample_ratio=1"))
	const each = 20
	var clients []*client.Client
	for _, g := range c.Gateways {
		for range each {
			clients = append(clients, subscribed(t, g, "news", "durable-news"))
		}
	}
	const caller = "00f067aa0ba902b7"
	traceOf := func(i int) string { return fmt.Sprintf("4bf92f3577b34da6a3ce929d0e0e47%02x", i) }
	events := []client.Event{
		{Name: "sampled", Traceparent: "00-" + traceOf(1) + "-" + caller + "-01", Channels: []string{"news"}},
		{Name: "sampled-durable", Traceparent: "00-" + traceOf(2) + "-" + caller + "-01", Channels: []string{"durable-news"}},
		{Name: "unsampled", Traceparent: "00-" + traceOf(3) + "-" + caller + "-00", Channels: []string{"news"}},
		{Name: "plain", Channels: []string{"news"}},
	}
	calls := api(t, c)
	for _, e := range events {
		e.Data = "x"
		if answer, err := calls.Trigger(t.Context(), e); err != nil || answer.Status != http.StatusOK {
			t.Fatalf("publish %s: %d %s %v", e.Name, answer.Status, answer.Body, err)
		}
		for _, cl := range clients {
			cl.Expect(e.Name)
		}
	}
	for _, n := range slices.Backward(c.Nodes) {
		n.Stop() // which sends the last spans
	}
	spans.mu.Lock()
	defer spans.mu.Unlock()
	if spans.err != nil {
		t.Fatal(spans.err)
	}
	began := ""
	for id := range spans.spans {
		if id != traceOf(1) && id != traceOf(2) {
			if began != "" || id == traceOf(3) {
				t.Errorf("a trace too many, %s: %v", id, spans.spans[id])
			}
			began = id
		}
	}
	t.Run("begun by the caller", func(t *testing.T) { checkTrace(t, spans.spans[traceOf(1)], caller) })
	t.Run("begun by the caller, durable", func(t *testing.T) { checkTrace(t, spans.spans[traceOf(2)], caller) })
	t.Run("begun by the API", func(t *testing.T) { checkTrace(t, spans.spans[began], "") })
}

// checkTrace wants the API's span below the caller's, and below that the
// router's and one for each gateway.
func checkTrace(t *testing.T, trace []span, caller string) {
	t.Helper()
	at := func(node string) (found []span) {
		for _, s := range trace {
			if s.node == node {
				found = append(found, s)
			}
		}
		return found
	}
	apis := at("api")
	if len(trace) != 4 || len(apis) != 1 {
		t.Fatalf("spans are %v, want one of the api, the router and each of two gateways", trace)
	}
	if s := apis[0]; s.parent != caller || s.kind != "SERVER" {
		t.Errorf("the API's span is %+v, want a server's span with the parent %q", s, caller)
	}
	for node, kind := range map[string]string{"router": "PRODUCER", "gateway-0": "CONSUMER", "gateway-1": "CONSUMER"} {
		if s := at(node); len(s) != 1 || s[0].parent != apis[0].id || s[0].kind != kind {
			t.Errorf("spans of %s are %+v, want one %s with the parent %s", node, s, kind, apis[0].id)
		}
	}
}
