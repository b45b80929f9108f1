package backbone

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/kit/natstest"
)

// While the stream has no leader, as when most of the NATS servers are gone, any
// server tells of its own copy. It may be behind what was delivered, and proves
// nothing.
func TestNobodyLeadsTheStream(t *testing.T) {
	for _, tt := range []struct {
		cluster string
		broken  int
	}{
		{`{"name":"c","replicas":[{"name":"n2","offline":true}]}`, 0},
		{`{"name":"c","leader":"n1"}`, 1},
		{`null`, 1}, // a server alone
	} {
		t.Run(tt.cluster, func(t *testing.T) {
			f := ok(NewFeed(FeedConfig{Partitions: 1}, FeedDeps{Conns: natstest.Server(t).Conns(t), Log: natstest.Logger(t)}))(t)
			p, sink := f.parts[0], newRecorder()
			p.sink, p.timer = sink, time.NewTimer(0)
			p.started(10, nil)
			p.read.start(p, readState)
			p.takeReply(&nats.Msg{
				Subject: p.inbox + "." + fmt.Sprint(p.read.round),
				Data:    []byte(`{"config":{"max_age":3600000000000},"state":{"messages":8,"first_seq":1,"last_seq":8},"cluster":` + tt.cluster + `}`),
			})
			if sink.broken != tt.broken || p.chain.Started() != (tt.broken == 0) {
				t.Errorf("broken %d times, want %d; delivered up to %d", sink.broken, tt.broken, p.chain.Last())
			}
			if p.read.kind != idle {
				t.Error("it is not asked again")
			}
		})
	}
}

// A batch that a heartbeat tells of is nowhere to be found for long. That is
// final when the stream's leader was there to be asked.
func TestNobodyLeadsWhileABatchIsMissing(t *testing.T) {
	f := ok(NewFeed(FeedConfig{Partitions: 1}, FeedDeps{Conns: natstest.Server(t).Conns(t), Log: natstest.Logger(t)}))(t)
	p, sink := f.parts[0], newRecorder()
	p.sink, p.timer = sink, time.NewTimer(0)
	p.started(10, nil)
	p.chain.Tail(11)
	answer := func(header nats.Header, data string) {
		p.takeReply(&nats.Msg{Subject: p.inbox + "." + fmt.Sprint(p.read.round), Header: header, Data: []byte(data)})
	}
	looks := func() {
		p.read.attempts = fruitlessMax
		p.read.start(p, readGap)
		answer(nats.Header{headerSeq: {"10"}}, string(batch("old")))
		answer(nats.Header{headerStatus: {"204"}}, "")
	}
	looks()
	answer(nil, `{"state":{"messages":10,"first_seq":1,"last_seq":10},"cluster":{"name":"c"}}`)
	if sink.broken > 0 {
		t.Fatal("broken while nobody leads the stream")
	}
	looks()
	answer(nil, `{"state":{"messages":10,"first_seq":1,"last_seq":10},"cluster":{"name":"c","leader":"n1"}}`)
	if sink.broken != 1 {
		t.Errorf("broken %d times, want once: the leader does not have it", sink.broken)
	}
}
