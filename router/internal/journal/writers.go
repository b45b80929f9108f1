package journal

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nuid"
	"go.opentelemetry.io/otel/trace"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
)

// WriterConfig bounds the writers.
type WriterConfig struct {
	Partitions int
	// QueueMax and QueueBytesMax bound what waits in one lane.
	QueueMax      int
	QueueBytesMax int
	// AckTimeout is the wait before a batch is sent again with the same id;
	// GiveUp when it is answered as failed. GiveUp must be below the stream's
	// duplicate window.
	AckTimeout time.Duration
	GiveUp     time.Duration
	// Drain is how long stopping waits for what is queued.
	Drain time.Duration
}

// Writers are the lanes of all partitions: a durable and a live one each. A
// lane is one order: what it takes in order leaves in order.
type Writers struct {
	// immutable after NewWriters
	cfg     WriterConfig
	durable []*lane
	live    []*lane
}

// NewWriters prepares the lanes; nothing leaves before Run. req carries the
// durable lanes, liveConn the live ones.
func NewWriters(
	cfg WriterConfig, j *Journal, req, liveConn *nats.Conn, log *slog.Logger, m *Metrics, tracer trace.Tracer,
) *Writers {
	w := &Writers{cfg: cfg}
	id := nuid.Next()
	for p := range cfg.Partitions {
		for _, liveOnly := range []bool{false, true} {
			l := &lane{
				cfg: cfg, partition: p, liveOnly: liveOnly, id: fmt.Sprintf("%s:%d", id, p),
				journal: j, req: req, live: liveConn, log: log.With("partition", p), metrics: m, tracer: tracer,
				wake: make(chan struct{}, 1), closing: make(chan struct{}), repeats: make(chan struct{}, repeatsMax), inbox: req.NewInbox(), acks: make(chan *nats.Msg, 4*keyedMax),
				queue: queue{countMax: cfg.QueueMax, bytesMax: cfg.QueueBytesMax, batchBytes: message.BatchBytesLeast},
			}
			l.counters = m.lane(liveOnly)
			if liveOnly {
				l.id += "l"
				// One connection for what passes the stream by and what goes through
				// it: on two, one could overtake the other.
				l.req, l.inbox = liveConn, liveConn.NewInbox()
				w.live = append(w.live, l)
				continue
			}
			w.durable = append(w.durable, l)
		}
	}
	m.watchQueue(w.waiting)
	return w
}

// Submit queues a publication and never blocks; the lanes start with Kick, or
// with a full batch. Its ticket is settled exactly once, at once when the queue
// is full.
func (w *Writers) Submit(it *Item) {
	if err := w.TrySubmit(it); err != nil {
		it.Ticket.Settle(it.Index, publisher.Receipt{Err: err})
	}
}

// TrySubmit is Submit, but a refused publication is returned and not settled.
func (w *Writers) TrySubmit(it *Item) error {
	p := channel.Key{App: it.Pub.App, Name: it.Pub.Channel}.Partition(w.cfg.Partitions)
	l := w.live[p]
	if it.Durable {
		l = w.durable[p]
	}
	filled, err := l.queue.add(it)
	if err != nil {
		l.counters.refused.Inc()
		return err
	}
	l.dirty.Store(true)
	if filled {
		l.start()
	}
	return nil
}

// Kick starts the lanes that got something since the last Kick: after a whole
// request, so that it makes one batch.
func (w *Writers) Kick() {
	for _, lanes := range [2][]*lane{w.durable, w.live} {
		for _, l := range lanes {
			if l.dirty.Load() && l.dirty.CompareAndSwap(true, false) {
				l.start()
			}
		}
	}
}

// Run writes until ctx ends; then it refuses more, writes what waits for
// Drain at most, and settles the rest as unavailable.
func (w *Writers) Run(ctx context.Context) error {
	lanes := append(append([]*lane{}, w.durable...), w.live...)
	for _, l := range lanes {
		sub, err := l.req.ChanSubscribe(l.inbox+".*", l.acks)
		if err != nil {
			w.close(lanes)
			return fmt.Errorf("subscribe to acknowledgements: %w", err)
		}
		defer sub.Unsubscribe()
	}
	hard, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var running sync.WaitGroup
	for _, l := range lanes {
		running.Go(func() { l.run(hard) })
	}
	<-ctx.Done()
	timer := time.AfterFunc(w.cfg.Drain, stop)
	defer timer.Stop()
	for _, l := range lanes {
		l.queue.close()
		close(l.closing)
	}
	running.Wait()
	w.close(lanes)
	return nil
}

// close refuses more and settles what is left.
func (w *Writers) close(lanes []*lane) {
	for _, l := range lanes {
		l.queue.close()
		for ps := l.queue.take(nil, l.liveOnly); len(ps) > 0; ps = l.queue.take(nil, l.liveOnly) {
			for _, p := range ps {
				p.settle(0, "", false, publisher.ErrUnavailable)
			}
		}
	}
}

func (w *Writers) waiting() int {
	n := 0
	for i := range w.durable {
		n += w.durable[i].queue.waiting() + w.live[i].queue.waiting()
	}
	return n
}

// State describes the lanes of one partition, for people.
type State struct {
	DurableWaiting, LiveWaiting int
}

// State gives what waits for partition p.
func (w *Writers) State(p int) State {
	return State{w.durable[p].queue.waiting(), w.live[p].queue.waiting()}
}
