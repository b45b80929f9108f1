package telemetry

import (
	"context"
	"encoding/hex"

	"go.opentelemetry.io/otel/trace"
)

// A traceparent (W3C Trace Context, section 3.2) is version-traceid-parentid-flags in lower-case hex.
const (
	traceparentLen   = 55
	traceIDOffset    = 3
	spanIDOffset     = 36
	flagsOffset      = 53
	sampledHexDigits = "13579bdf" // the lowest flag bit is "sampled"
)

// Traceparent returns the W3C traceparent of the span in ctx, empty when there is none.
func Traceparent(ctx context.Context) string {
	sc := trace.SpanContextFromContext(ctx)
	if !sc.IsValid() {
		return ""
	}
	var buf [traceparentLen]byte
	out := append(buf[:0], "00-"...)
	traceID, spanID := sc.TraceID(), sc.SpanID()
	out = hex.AppendEncode(out, traceID[:])
	out = append(out, '-')
	out = hex.AppendEncode(out, spanID[:])
	out = append(out, '-')
	return string(hex.AppendEncode(out, []byte{byte(sc.TraceFlags())}))
}

// ContextWithTraceparent returns ctx with the remote span that s names as parent of the spans started from it. An empty or malformed s
// leaves ctx as it is: a trace header is never a reason to refuse work.
func ContextWithTraceparent(ctx context.Context, s string) context.Context {
	sc, ok := parseTraceparent(s)
	if !ok {
		return ctx
	}
	return trace.ContextWithRemoteSpanContext(ctx, sc)
}

// Sampled reports whether traceparent carries the sampled flag. It looks at the shape and the flag only, so that the unsampled
// majority costs no SDK call.
func Sampled(traceparent string) bool {
	if !shaped(traceparent) {
		return false
	}
	c := traceparent[flagsOffset+1]
	for i := range len(sampledHexDigits) {
		if sampledHexDigits[i] == c {
			return true
		}
	}
	return false
}

// shaped checks length and separators; version ff is forbidden, a later version may have more fields after a dash.
func shaped(s string) bool {
	if len(s) < traceparentLen || s[2] != '-' || s[spanIDOffset-1] != '-' || s[flagsOffset-1] != '-' || s[:2] == "ff" {
		return false
	}
	return len(s) == traceparentLen || s[:2] != "00" && s[traceparentLen] == '-'
}

func parseTraceparent(s string) (trace.SpanContext, bool) {
	if !shaped(s) {
		return trace.SpanContext{}, false
	}
	traceID, err := trace.TraceIDFromHex(s[traceIDOffset : spanIDOffset-1])
	if err != nil {
		return trace.SpanContext{}, false
	}
	spanID, err := trace.SpanIDFromHex(s[spanIDOffset : flagsOffset-1])
	if err != nil {
		return trace.SpanContext{}, false
	}
	flags, err := hex.DecodeString(s[flagsOffset:traceparentLen])
	if err != nil {
		return trace.SpanContext{}, false
	}
	sc := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: traceID, SpanID: spanID, TraceFlags: trace.TraceFlags(flags[0]), Remote: true,
	})
	return sc, sc.IsValid()
}
