package follow

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/proto/subject"
)

const (
	// readForgotten is how long the server keeps a consumer that nobody reads,
	// such as that of a router that was killed. They are many when NATS or
	// routers come and go, and each has to be recovered by the next leader.
	readForgotten = 30 * time.Second
	// readCleanup is how long the removal of a consumer may take; one that is
	// not removed is forgotten later.
	readCleanup = 2 * time.Second
)

var errBatchLost = errors.New("a batch was lost on its way")

// reading is one consumer of the partition, and its end. The client's ordered
// consumers would make themselves anew after an error; they keep everybody
// waiting meanwhile, Stop included, and the follower begins again anyway, to
// compare.
type reading struct {
	// immutable after begin
	f        *follower
	name     string
	messages jetstream.ConsumeContext
	failed   chan error // capacity 1: the first thing that went wrong

	// owned by the consumer's goroutine
	delivered uint64 // consumer sequence of the newest one
}

// begin has batches read from where the follower is; last is the newest
// sequence of the journal.
func (f *follower) begin(ctx context.Context, last uint64) (*reading, error) {
	consumer, err := f.js.CreateConsumer(ctx, subject.JournalStream, f.startAt(last))
	if err != nil {
		return nil, fmt.Errorf("follow %s: %w", subject.Log(f.partition), err)
	}
	r := &reading{f: f, name: consumer.CachedInfo().Name, failed: make(chan error, 1)}
	r.messages, err = consumer.Consume(r.take, jetstream.PullMaxMessages(readAhead),
		jetstream.PullHeartbeat(readHeartbeat), jetstream.PullExpiry(readExpiry),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) { r.fail(err) }))
	if err != nil {
		r.remove()
		return nil, fmt.Errorf("follow %s: %w", subject.Log(f.partition), err)
	}
	return r, nil
}

func (r *reading) take(msg jetstream.Msg) {
	meta, err := msg.Metadata()
	if err != nil {
		return
	}
	if meta.Sequence.Consumer != r.delivered+1 {
		r.fail(errBatchLost)
		return
	}
	r.delivered++
	r.f.take(meta, msg.Data())
}

func (r *reading) fail(err error) {
	select {
	case r.failed <- err:
	default:
	}
}

// end returns when nothing is applied any more.
func (r *reading) end() {
	r.messages.Stop()
	<-r.messages.Closed()
	r.remove()
}

func (r *reading) remove() {
	ctx, cancel := context.WithTimeout(context.Background(), readCleanup)
	defer cancel()
	if err := r.f.js.DeleteConsumer(ctx, subject.JournalStream, r.name); err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		r.f.log.Debug("a consumer is left to its end", "name", r.name, "err", err)
	}
}
