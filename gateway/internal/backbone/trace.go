package backbone

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/message"
)

// deliverTraced delivers a publication that carries a trace context. A
// sampled one gets one span for this gateway, however many clients receive
// it; the unsampled majority never touches the SDK.
func (p *partition) deliverTraced(pos message.Position, pub *message.Publication) {
	if p.feed.tracer == nil || !telemetry.Sampled(pub.Trace) {
		p.sink.Deliver(p.number, pos, pub)
		return
	}
	ctx := telemetry.ContextWithTraceparent(context.Background(), pub.Trace)
	_, span := p.feed.tracer.Start(ctx, "deliver", trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("messaging.system", "nats"),
		attribute.String("carillon.app", pub.App),
		attribute.String("carillon.channel", pub.Channel),
		attribute.Int("carillon.partition", p.number),
		attribute.Int64("carillon.position", int64(pos)),
	))
	defer span.End()
	p.sink.Deliver(p.number, pos, pub)
}
