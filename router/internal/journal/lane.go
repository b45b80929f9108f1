package journal

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/proto/subject"
)

const (
	retryFirst = 20 * time.Millisecond
	retryMax   = 500 * time.Millisecond
)

// lane writes one order of publications: it has one flight in the air and
// fills the next meanwhile.
type lane struct {
	// immutable after NewWriters
	cfg       WriterConfig
	partition int
	liveOnly  bool
	id        string // unique to this run of this lane
	journal   *Journal
	req       *nats.Conn
	live      *nats.Conn
	log       *slog.Logger
	metrics   *Metrics
	counters  laneCounters
	tracer    trace.Tracer
	inbox     string
	acks      chan *nats.Msg
	wake      chan struct{}
	closing   chan struct{} // closed: return when the queue is empty
	repeats   chan struct{} // holds a token for each repeat that is being compared

	queue queue // has its own lock
	dirty atomic.Bool

	// owned by run
	batches uint64 // written so far, numbers the batches' ids
	sends   uint64 // messages sent so far, numbers the reply subjects
	flight  []*parcel
	letters []letter
	stamped []byte // the live batch that is being sent
}

// letter is a parcel on its way to the stream.
type letter struct {
	*parcel
	id       string
	token    uint64 // of its last sending
	attempts int
	epoch    string // when it was sent first
	above    uint64 // what the log had reached in it by then
	settled  bool
	due      bool // has to be sent (again)
}

// start wakes the lane if it waits for work.
func (l *lane) start() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *lane) run(ctx context.Context) {
	defer l.awaitRepeats()
	for ctx.Err() == nil {
		l.queue.grow(message.BatchBytes(l.req.MaxPayload()))
		l.flight = l.queue.take(l.flight[:0], l.liveOnly)
		if len(l.flight) > 0 {
			l.fly(ctx)
			l.queue.recycle(l.flight)
			continue
		}
		select {
		case <-ctx.Done():
		case <-l.wake:
		case <-l.closing:
			if l.queue.waiting() == 0 {
				return
			}
		}
	}
}

func (l *lane) fly(ctx context.Context) {
	now := time.Now()
	live := l.flight[:0]
	for _, p := range l.flight {
		if p.tooLate(now) {
			l.counters.late.Add(float64(len(p.tickets)))
			p.settle(0, "", false, publisher.ErrUnavailable)
			continue
		}
		live = append(live, p)
	}
	l.flight = live
	switch {
	case len(live) == 0:
	case l.liveOnly && live[0].msgID == "":
		l.publishLive()
	default:
		l.append(ctx)
	}
}

// publishLive hands batches to the subscribers, past the stream.
func (l *lane) publishLive() {
	to := subject.Live(l.partition)
	for _, p := range l.flight {
		_, span := l.span(p, "router.publish_live")
		l.stamped = message.AppendStamped(l.stamped[:0], l.journal.Now(), p.batch.Bytes())
		err := l.live.Publish(to, l.stamped)
		span.End()
		if err != nil { // the connection is away, and nothing is kept for later
			l.counters.failed.Add(float64(len(p.tickets)))
			p.settle(0, "", false, publisher.ErrUnavailable)
			continue
		}
		l.counters.batches.Inc()
		l.counters.publications.Add(float64(len(p.tickets)))
		p.settle(0, "", false, nil)
	}
}

// append writes the flight to the stream and returns when all of it has been
// answered, given up, or ctx ended. Sending again is exact: the stream knows
// the id.
func (l *lane) append(ctx context.Context) {
	l.letters = l.letters[:0]
	for _, p := range l.flight {
		id := p.msgID
		if id == "" {
			l.batches++
			id = l.id + ":" + strconv.FormatUint(l.batches, 36)
		}
		l.letters = append(l.letters, letter{parcel: p, id: id, due: true})
	}
	_, span := l.span(l.flight[0], "router.append")
	defer span.End()
	start := time.Now()
	timer := time.NewTimer(0)
	defer timer.Stop()
	wait := retryFirst
	for left := len(l.letters); left > 0; {
		if time.Since(start) > l.cfg.GiveUp || ctx.Err() != nil {
			l.giveUp(fmt.Errorf("not acknowledged within %s", time.Since(start).Round(time.Millisecond)))
			return
		}
		sent := l.sendDue()
		timer.Reset(l.cfg.AckTimeout)
		if !sent {
			timer.Reset(wait)
		}
		settled, again := l.await(ctx, timer)
		left -= settled
		if left > 0 && again {
			l.pause(ctx, timer, wait)
			wait = min(2*wait, retryMax)
		}
	}
	l.counters.ack.Observe(time.Since(start).Seconds())
}

// sendDue sends what is due, in order. It returns false when the connection
// is away: what is not sent stays due.
func (l *lane) sendDue() bool {
	if !l.req.IsConnected() {
		return false
	}
	for i := range l.letters {
		x := &l.letters[i]
		if x.settled || !x.due {
			continue
		}
		if x.attempts == 0 {
			x.epoch, x.above = l.journal.reach()
		}
		l.sends++
		x.token = l.sends
		msg := &nats.Msg{
			Subject: subject.Log(l.partition), Reply: l.inbox + "." + strconv.FormatUint(x.token, 36),
			Header: nats.Header{nats.MsgIdHdr: {x.id}}, Data: x.batch.Bytes(),
		}
		if err := l.req.PublishMsg(msg); err != nil {
			return false
		}
		x.due = false
		if x.attempts++; x.attempts > 1 {
			l.counters.retries.Inc()
		}
	}
	return true
}

// await takes acknowledgements until all letters are settled, one is refused
// for now, or the timer ends; then again says that something is due.
func (l *lane) await(ctx context.Context, timer *time.Timer) (settled int, again bool) {
	open := 0
	for i := range l.letters {
		if !l.letters[i].settled {
			open++
		}
	}
	for settled < open {
		select {
		case msg := <-l.acks:
			x := l.letterOf(msg)
			if x == nil {
				continue
			}
			if l.takeAck(ctx, x, msg) {
				settled++
				continue
			}
			return settled, true
		case <-timer.C:
			for i := range l.letters {
				l.letters[i].due = true
			}
			return settled, false
		case <-ctx.Done():
			return settled, false
		}
	}
	return settled, false
}

// pause waits before the next attempt.
func (l *lane) pause(ctx context.Context, timer *time.Timer, wait time.Duration) {
	timer.Reset(wait)
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// letterOf gives the letter that msg answers, nil for one that is settled.
func (l *lane) letterOf(msg *nats.Msg) *letter {
	token, err := strconv.ParseUint(strings.TrimPrefix(msg.Subject, l.inbox+"."), 36, 64)
	if err != nil {
		return nil
	}
	for i := range l.letters {
		if x := &l.letters[i]; x.token == token && !x.settled {
			return x
		}
	}
	return nil
}

// ack is the stream's answer (JetStream PubAck).
type ack struct {
	Seq       uint64 `json:"seq"`
	Duplicate bool   `json:"duplicate"`
	Error     *struct {
		Code        int    `json:"code"`
		ErrCode     int    `json:"err_code"`
		Description string `json:"description"`
	} `json:"error"`
}

// errTooLarge is JetStream's "message size exceeds maximum allowed".
const errTooLarge = 10054

// takeAck settles x, or marks it due and returns false when the stream can't
// take it now.
func (l *lane) takeAck(ctx context.Context, x *letter, msg *nats.Msg) bool {
	var a ack
	err := json.Unmarshal(msg.Data, &a)
	switch {
	case err != nil || (a.Error == nil && a.Seq == 0): // no responders, or no answer of a stream
		x.due = true
		return false
	case a.Error != nil && a.Error.ErrCode == errTooLarge:
		x.settled = true
		x.settle(0, "", false, &publisher.Error{Code: publisher.TooLarge, Message: a.Error.Description})
		l.counters.failed.Add(float64(len(x.tickets)))
		return true
	case a.Error != nil:
		l.log.Warn("the journal refuses a batch, trying on", "err", a.Error.Description, "code", a.Error.ErrCode, "attempt", x.attempts)
		x.due = true
		return false
	}
	l.stored(ctx, x, a)
	return true
}

func (l *lane) stored(ctx context.Context, x *letter, a ack) {
	x.settled = true
	l.journal.Observe(a.Seq)
	epoch := l.journal.Epoch()
	if x.attempts > 1 {
		// The first sending may have been stored by a leader that died before it
		// republished: have the gateways look at their tail.
		l.announce(a.Seq, epoch)
	}
	if a.Duplicate && x.msgID != "" {
		l.settleRepeat(ctx, x, a, epoch)
		return
	}
	l.counters.batches.Inc()
	l.counters.publications.Add(float64(len(x.tickets)))
	if a.Seq <= x.above && epoch == x.epoch {
		l.journal.Reused(epoch)
		x.settle(0, "", false, nil) // stored, at a position that the epoch had before
		return
	}
	x.settle(a.Seq, epoch, false, nil)
}

// announce tells the followers of the partition how far the log is.
func (l *lane) announce(seq uint64, epoch string) {
	beat, err := json.Marshal(history.Heartbeat{LastSeq: seq, Epoch: epoch, Clock: l.journal.Now()})
	if err == nil {
		err = l.req.Publish(subject.Sync(l.partition), beat)
	}
	if err != nil {
		l.log.Warn("the end of the partition can't be announced", "err", err)
	}
}

func (l *lane) giveUp(reason error) {
	n := 0
	for i := range l.letters {
		x := &l.letters[i]
		if x.settled {
			continue
		}
		n += len(x.tickets)
		x.settle(0, "", false, publisher.ErrUnavailable)
	}
	l.counters.failed.Add(float64(n))
	l.log.Warn("publications given up", "count", n, "reason", reason)
}

// span starts a span when the parcel carries a sampled trace.
func (l *lane) span(p *parcel, name string) (context.Context, trace.Span) {
	if p.trace == "" {
		return context.Background(), trace.SpanFromContext(context.Background())
	}
	ctx := telemetry.ContextWithTraceparent(context.Background(), p.trace)
	return l.tracer.Start(ctx, name, trace.WithSpanKind(trace.SpanKindProducer), trace.WithAttributes(
		attribute.Int("carillon.partition", l.partition), attribute.Int("carillon.publications", len(p.tickets)),
	))
}
