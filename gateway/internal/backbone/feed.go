// Package backbone is the gateway's side of NATS: Feed brings the batches of
// all partitions, checked and repaired, to a Sink; Services carries the
// wishes of sessions to routers and the authorization service. It knows
// nothing of connections, channels' subscribers or client protocols.
package backbone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/carillon-rt/carillon/gateway/internal/backbone/recent"
	"github.com/carillon-rt/carillon/kit/natsconn"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/subject"
)

// Sink takes what a Feed delivers. Calls for one partition come from one
// goroutine, in order; partitions are independent of each other. A call may
// block: then the partition waits, and what overflows meanwhile is repaired.
type Sink interface {
	// Deliver takes one publication. It aliases its batch, whose bytes are
	// never reused. pos is 0 for publications that are not stored.
	Deliver(partition int, pos message.Position, pub *message.Publication)
	// Flush is called after the last publication of each batch.
	Flush(partition int)
}

// Breaker is an optional ability of a Sink.
type Breaker interface {
	// Broken says that durable publications of the partition are lost for
	// this gateway: they were trimmed before they could be read, or the
	// stream was made anew. Positions mean nothing until the next Start.
	Broken(partition int)
}

// Placer is an optional ability of a Sink.
type Placer interface {
	// Epoch names the life of the journal that the partition's positions
	// belong to from now on, those told by Start included.
	Epoch(partition int, epoch string)
}

// Starter is an optional ability of a Sink.
type Starter interface {
	// Start says that everything after last will be delivered: at the
	// beginning, and again after Broken.
	Start(partition int, last message.Position)
}

// FeedConfig is what a Feed needs to know. The zero value of a field means
// its default, but for Partitions.
type FeedConfig struct {
	Partitions int
	// Stream is the journal's (subject.JournalStream).
	Stream string
	// QueueBatches is how many batches of a partition may wait for the sink
	// (2,048) before the NATS client drops, which the chain check repairs.
	QueueBatches int
	// Patience is how long a batch that a heartbeat tells of may be on its way
	// before it is read from the stream (250 ms).
	Patience time.Duration
	// Timeout of one read of the stream (2 s).
	Timeout time.Duration
	// RecentBytes is how much of what was delivered is kept in memory, of all
	// partitions together, and RecentAge how long. Either 0 keeps nothing.
	RecentBytes int
	RecentAge   time.Duration
	// Recovers says whether anybody could ask for it; nil is nobody.
	Recovers func() bool
	// Control takes commands to all gateways; nil ignores them. It must not
	// block for long.
	Control func(control.Command)
}

func (c FeedConfig) withDefaults() FeedConfig {
	if c.Stream == "" {
		c.Stream = subject.JournalStream
	}
	if c.QueueBatches <= 0 {
		c.QueueBatches = 2048
	}
	if c.Patience <= 0 {
		c.Patience = 250 * time.Millisecond
	}
	if c.Timeout <= 0 {
		c.Timeout = 2 * time.Second
	}
	return c
}

// FeedDeps is what a Feed is built on.
type FeedDeps struct {
	Conns   *natsconn.Conns
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil counts nowhere
	Tracer  trace.TracerProvider  // nil traces nothing
}

// Feed follows all partitions:
//
//	car.live.<p> --+
//	car.sync.<p> --+--> partition goroutine --> chain --> Sink
//	stream reads --+          |   ^
//	                          +---+  what is missing, on the other connection
type Feed struct {
	// immutable after NewFeed
	cfg     FeedConfig
	conns   *natsconn.Conns
	log     *slog.Logger
	metrics *feedMetrics
	tracer  trace.Tracer
	parts   []*partition
	ready   chan struct{} // closed when every partition has started

	// atomic
	starting atomic.Int32 // partitions that have not started
	running  atomic.Bool
}

// NewFeed returns a feed that has not subscribed yet.
func NewFeed(cfg FeedConfig, deps FeedDeps) (*Feed, error) {
	cfg = cfg.withDefaults()
	if cfg.Partitions < 1 {
		return nil, fmt.Errorf("backbone: partitions is %d, must be at least 1", cfg.Partitions)
	}
	f := &Feed{
		cfg: cfg, conns: deps.Conns, log: deps.Log, ready: make(chan struct{}),
	}
	f.metrics = newFeedMetrics(deps.Metrics, f.RecentBytes)
	if deps.Tracer != nil {
		f.tracer = deps.Tracer.Tracer("github.com/carillon-rt/carillon/gateway")
	}
	f.starting.Store(int32(cfg.Partitions))
	for p := range cfg.Partitions {
		f.parts = append(f.parts, newPartition(f, p))
	}
	return f, nil
}

// Started is closed when every partition is being followed: what is published
// from then on reaches the sink. A gateway serves clients only after that.
func (f *Feed) Started() <-chan struct{} { return f.ready }

// Ready is the readiness check of the feed.
func (f *Feed) Ready() error {
	if n := f.starting.Load(); n > 0 {
		return fmt.Errorf("%d of %d partitions are not followed yet: the journal does not answer", n, len(f.parts))
	}
	return nil
}

// Partitions is the number of partitions.
func (f *Feed) Partitions() int { return len(f.parts) }

// Last is the position of the newest stored publication of a partition that
// was given to the sink, or of the newest one at the start.
func (f *Feed) Last(partition int) message.Position {
	return message.Position(f.parts[partition].lastPos.Load())
}

// Empty is where a partition began that had nothing stored when it was first
// followed, or again: nothing has this position, and there was nothing up to
// it. It is 0 for a partition that had something.
func (f *Feed) Empty(partition int) message.Position {
	return message.Position(f.parts[partition].empty.Load())
}

// Recent is what was delivered of a partition not long ago.
func (f *Feed) Recent(partition int) *recent.Window { return f.parts[partition].recent }

// RecentBytes is how much memory that takes, all partitions together.
func (f *Feed) RecentBytes() int {
	n := 0
	for _, p := range f.parts {
		n += p.recent.Bytes()
	}
	return n
}

// Run subscribes and delivers to sink until ctx ends. It can be called once.
func (f *Feed) Run(ctx context.Context, sink Sink) error {
	if f.running.Swap(true) {
		return errors.New("backbone: the feed has been run before")
	}
	var subs []*nats.Subscription
	defer func() {
		for _, s := range subs {
			s.Unsubscribe() // fails only on a closed connection, which has ended the subscription
		}
	}()
	add := func(nc *nats.Conn, subj string, ch chan *nats.Msg) error {
		s, err := nc.ChanSubscribe(subj, ch)
		if err != nil {
			return fmt.Errorf("subscribe to %s: %w", subj, err)
		}
		subs = append(subs, s)
		return nil
	}
	commands := make(chan *nats.Msg, 256)
	errs := []error{add(f.conns.Req, subject.GatewayControl, commands)}
	for _, p := range f.parts {
		errs = append(errs,
			add(f.conns.Live, subject.Live(p.number), p.live),
			add(f.conns.Live, subject.Sync(p.number), p.beats),
			add(f.conns.Req, p.inbox+".*", p.replies))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	f.conns.OnReconnect(f.doubt)
	f.conns.OnSlowConsumer(f.slow)
	// What is published after the flush comes; the first reads are made then.
	flushCtx, cancel := context.WithTimeout(ctx, f.cfg.Timeout)
	defer cancel()
	if err := f.conns.Live.FlushWithContext(flushCtx); err != nil && ctx.Err() == nil {
		f.log.Warn("flush of the live subscriptions failed", "err", err)
		f.doubt()
	}
	var group sync.WaitGroup
	for _, p := range f.parts {
		group.Go(func() { p.run(ctx, sink) })
	}
	f.control(ctx, commands)
	group.Wait()
	return nil
}

// doubt makes every partition check its tail: messages may have been missed.
func (f *Feed) doubt() {
	for _, p := range f.parts {
		p.doubt()
	}
}

func (f *Feed) slow(subj string) {
	if p := subject.Partition(subj); p >= 0 && p < len(f.parts) && subj == subject.Live(p) {
		f.parts[p].doubt()
	}
}

// partitionStarted counts down to Started.
func (f *Feed) partitionStarted() {
	if f.starting.Add(-1) == 0 {
		close(f.ready)
	}
}
