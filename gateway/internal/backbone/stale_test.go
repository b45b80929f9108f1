package backbone

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/gateway/internal/backbone/chain"
	"github.com/carillon-rt/carillon/kit/natstest"
)

func stoppedTimer() *time.Timer {
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	return timer
}

// TestAnswerOlderThanWhatWasDelivered: an answer of the stream says how far it
// was when it was asked. That more has been delivered since is no sign of a
// log that went backwards; that less is there than had been delivered is one.
func TestAnswerOlderThanWhatWasDelivered(t *testing.T) {
	srv := natstest.Server(t)
	feed := ok(NewFeed(FeedConfig{Partitions: 1}, FeedDeps{Conns: srv.Conns(t), Log: natstest.Logger(t)}))(t)
	for _, tt := range []struct {
		name      string
		kind      readKind
		asked     uint64 // delivered when the question is asked
		delivered uint64 // and when the answer comes
		answer    uint64
		broken    bool
	}{
		{"state of before", readState, 5, 7, 5, false},
		{"state of meanwhile", readState, 5, 7, 6, false},
		{"state of now", readState, 7, 7, 7, false},
		{"state of another log", readState, 7, 7, 5, true},
		{"state of another log, late", readState, 6, 7, 5, true},
		{"tail of before", readTail, 5, 7, 5, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sink := newRecorder()
			p := newPartition(feed, 0)
			p.sink, p.timer = sink, stoppedTimer()
			p.chain.Start(tt.asked, nil)
			p.chain.Doubt()
			p.read.start(p, tt.kind)
			p.read.then = readTail
			for seq := tt.asked + 1; seq <= tt.delivered; seq++ {
				p.deliverAll(p.chain.Live(chain.Batch{Seq: seq, Prev: seq - 1}, nil))
			}
			msg := &nats.Msg{Subject: fmt.Sprint(p.inbox, ".", p.read.round), Header: nats.Header{}}
			if tt.kind == readState {
				msg.Data = fmt.Appendf(nil, `{"state":{"messages":1,"first_seq":%d,"last_seq":%d}}`, tt.answer, tt.answer)
			} else {
				msg.Header[headerSeq] = []string{fmt.Sprint(tt.answer)}
			}
			p.takeReply(msg)
			if broken := sink.broken > 0; broken != tt.broken || p.chain.Started() == tt.broken {
				t.Errorf("broken: %v, want %v", broken, tt.broken)
			}
			if tt.kind == readTail && p.read.kind != idle {
				t.Errorf("question %d is asked although the answer was only late", p.read.kind)
			}
		})
	}
}
