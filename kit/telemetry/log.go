// Package telemetry makes the logger, the metrics registry and the tracer of a process, and carries trace contexts as the plain
// W3C strings that travel in headers and envelopes. It knows nothing of what is logged, counted or traced.
package telemetry

import (
	"context"
	"io"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// LogConfig says what is logged and how.
type LogConfig struct {
	Level  slog.Level `yaml:"level" doc:"least level that is logged: debug, info, warn, error"`
	Format string     `yaml:"format" enum:"json,text" doc:"one JSON object a line, or key=value text"`
}

// DefaultLogConfig logs info and above as JSON.
func DefaultLogConfig() LogConfig { return LogConfig{Level: slog.LevelInfo, Format: "json"} }

// NewLogger returns a logger that writes to w: key=value lines when format is "text", JSON otherwise. Records logged with a context
// that carries a span get trace_id and span_id. Give a *slog.LevelVar as the level to change it later.
func NewLogger(w io.Writer, level slog.Leveler, format string) *slog.Logger {
	opts := &slog.HandlerOptions{Level: level}
	if format == "text" {
		return slog.New(traceHandler{slog.NewTextHandler(w, opts)})
	}
	return slog.New(traceHandler{slog.NewJSONHandler(w, opts)})
}

// traceHandler adds the ids of the span in the context.
type traceHandler struct{ slog.Handler }

func (h traceHandler) Handle(ctx context.Context, r slog.Record) error {
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		r.AddAttrs(slog.String("trace_id", sc.TraceID().String()), slog.String("span_id", sc.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h traceHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return traceHandler{h.Handler.WithAttrs(attrs)}
}

func (h traceHandler) WithGroup(name string) slog.Handler {
	return traceHandler{h.Handler.WithGroup(name)}
}
