package backbone

import (
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/message"
)

type nullSink struct{ n int }

func (s *nullSink) Deliver(int, message.Position, *message.Publication) { s.n++ }
func (s *nullSink) Flush(int)                                           {}

// BenchmarkBatch is the cost of a batch of 50 small publications between the
// NATS client's channel and the sink: chain check, decoding, metrics.
func BenchmarkBatch(b *testing.B) {
	srv := natstest.Server(b)
	feed := ok(NewFeed(FeedConfig{Partitions: 1}, FeedDeps{Conns: srv.Conns(b), Log: natstest.Logger(b)}))(b)
	p := feed.parts[0]
	sink := &nullSink{}
	p.sink = sink
	p.started(1, nil)
	var batch message.Batch
	for range 50 {
		batch.Add(&message.Publication{Kind: message.Event, App: "1001", Channel: "news", Event: "e", Data: make([]byte, 128)})
	}
	m := &nats.Msg{Data: batch.Bytes(), Header: nats.Header{headerSeq: {"2"}, headerPrev: {"1"}}}
	b.ReportAllocs()
	for b.Loop() {
		p.chain.Reset() // so that the same batch comes next again
		p.chain.Start(1, nil)
		p.takeLive(m)
	}
	if sink.n != 50*b.N {
		b.Fatalf("%d publications delivered, want %d", sink.n, 50*b.N)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(sink.n), "ns/publication")
}
