package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// TracingConfig says where spans go and how many are taken.
type TracingConfig struct {
	Endpoint string  `yaml:"otlp_endpoint" doc:"URL of an OTLP/HTTP collector (http://host:4318); empty: no tracing"`
	Ratio    float64 `yaml:"sample_ratio" doc:"share of traces that begin here which are sampled, 0 to 1; a caller's decision is followed"`

	// Service and Node name the process in its spans; the process fills them in, not the file.
	Service string `yaml:"-"`
	Node    string `yaml:"-"`
}

// DefaultTracingConfig traces nothing until an endpoint is set, then one trace in a hundred.
func DefaultTracingConfig() TracingConfig { return TracingConfig{Ratio: 0.01} }

// Validate reports an endpoint that is not an HTTP URL and a ratio outside 0 to 1.
func (c TracingConfig) Validate() error {
	if c.Ratio < 0 || c.Ratio > 1 {
		return fmt.Errorf("sample_ratio is %v, want 0 to 1", c.Ratio)
	}
	if c.Endpoint == "" {
		return nil
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("otlp_endpoint is %q, want a URL such as http://collector:4318", c.Endpoint)
	}
	return nil
}

// NewTracing returns the tracer provider of a process and the function that flushes and stops it. Without an endpoint it is the no-op
// provider, which costs nothing. A collector that can't be reached never blocks or fails the process: spans are dropped.
func NewTracing(ctx context.Context, cfg TracingConfig) (trace.TracerProvider, func(context.Context) error, error) {
	if cfg.Endpoint == "" {
		return noop.NewTracerProvider(), func(context.Context) error { return nil }, nil
	}
	if err := cfg.Validate(); err != nil {
		return nil, nil, err
	}
	endpoint := strings.TrimSuffix(cfg.Endpoint, "/")
	if u, err := url.Parse(endpoint); err == nil && u.Path == "" {
		endpoint += "/v1/traces"
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(endpoint))
	if err != nil {
		return nil, nil, fmt.Errorf("start OTLP exporter: %w", err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.Ratio))),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", cfg.Service),
			attribute.String("service.instance.id", cfg.Node),
		)),
	)
	stop := func(ctx context.Context) error {
		if err := provider.Shutdown(ctx); err != nil && !errors.Is(err, context.Canceled) {
			return fmt.Errorf("flush spans: %w", err)
		}
		return nil
	}
	return provider, stop, nil
}
