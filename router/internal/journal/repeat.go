package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/proto/subject"
)

const (
	// repeatsMax is how many repeats of a lane are compared at a time.
	repeatsMax = 64
	// compareWithin is how long that may take. A copy of the stream that has not
	// got the first one yet is asked again after comparePause.
	compareWithin = 2 * time.Second
	comparePause  = 20 * time.Millisecond
)

// repeat is a publication whose key the stream knows: the first one with it is
// at seq. It must be the same one.
type repeat struct {
	seq     uint64
	epoch   string
	batch   []byte
	tickets []ticketRef
	again   bool // not its first sending: the first one may be itself
}

// settleRepeat answers a repeat as the first one was answered, or refuses it
// when it says something else. The lane does not wait for that, unless there
// are many.
func (l *lane) settleRepeat(ctx context.Context, x *letter, a ack, epoch string) {
	r := repeat{
		seq: a.Seq, epoch: epoch, batch: bytes.Clone(x.batch.Bytes()), tickets: append([]ticketRef(nil), x.tickets...), again: x.attempts > 1,
	}
	select {
	case l.repeats <- struct{}{}:
	case <-ctx.Done():
		r.settle(publisher.Receipt{Err: publisher.ErrUnavailable})
		return
	}
	go func() {
		defer func() { <-l.repeats }()
		r.settle(l.compare(ctx, &r))
	}()
}

// awaitRepeats returns when nothing is being compared any more.
func (l *lane) awaitRepeats() {
	for range repeatsMax {
		l.repeats <- struct{}{}
	}
}

func (r *repeat) settle(receipt publisher.Receipt) {
	for _, t := range r.tickets {
		t.ticket.Settle(t.index, receipt)
	}
}

// compare reads the first one and gives the answer to the repeat.
func (l *lane) compare(ctx context.Context, r *repeat) publisher.Receipt {
	ctx, cancel := context.WithTimeout(ctx, compareWithin)
	defer cancel()
	first, err := l.read(ctx, r.seq)
	switch {
	case errors.Is(err, errGone):
		// Trimmed by size within the window of the keys: what it said is not
		// known any more, that it was stored is.
	case err != nil:
		l.log.Warn("a repeated idempotency key can't be compared", "seq", r.seq, "err", err)
		l.counters.failed.Inc()
		return publisher.Receipt{Err: publisher.ErrUnavailable}
	case !sameContent(first, r.batch):
		l.counters.conflicts.Inc()
		return publisher.Receipt{Err: publisher.ErrConflict}
	}
	if !r.again {
		l.counters.duplicates.Inc()
	}
	return publisher.Receipt{Position: message.At(r.seq, 0), Epoch: r.epoch, Duplicate: !r.again}
}

var errGone = errors.New("the message is not in the stream any more")

// read gives a message of the log. Any copy may answer.
func (l *lane) read(ctx context.Context, seq uint64) ([]byte, error) {
	ask := []byte(`{"seq":` + strconv.FormatUint(seq, 10) + `}`)
	missing := 0
	for {
		msg, err := l.req.RequestWithContext(ctx, "$JS.API.DIRECT.GET."+subject.JournalStream, ask)
		switch {
		case err == nil && msg.Header.Get("Status") == "":
			return msg.Data, nil
		case err == nil && msg.Header.Get("Status") == "404":
			if missing++; missing > 5 {
				return nil, errGone
			}
		case err == nil:
			err = fmt.Errorf("status %s %s", msg.Header.Get("Status"), msg.Header.Get("Description"))
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(comparePause):
		}
		if errors.Is(err, nats.ErrConnectionClosed) {
			return nil, err
		}
	}
}

// sameContent says whether two batches of one publication say the same. When
// they were published and by which request does not count.
func sameContent(a, b []byte) bool {
	var first, second message.Publication
	ra, rb := message.NewReader(a), message.NewReader(b)
	if !ra.Next(&first) || !rb.Next(&second) {
		return false
	}
	return first.Kind == second.Kind && first.App == second.App && first.Channel == second.Channel && first.Event == second.Event &&
		bytes.Equal(first.Data, second.Data) && first.Exclude == second.Exclude && first.UserID == second.UserID
}
