// Package publisher is the client of the routers' publish endpoint: api and
// gateways hand it publications, it packs those of one partition into one
// request and gives every caller its receipt. It knows NATS and nothing of
// how a router stores.
//
// Retries. A request is sent again only when NATS says that nobody took it
// (no responders), or when it could not leave: nothing can have been stored
// then. A request that was taken and not answered in time ends in
// ErrUnavailable: its publications may have been stored, and only a retry
// with an idempotency key is sure not to store them twice.
package publisher

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// Defaults of Config.
const (
	DefaultTimeout       = 2 * time.Second
	DefaultQueueMax      = 64 << 10
	DefaultQueueBytesMax = 16 << 20
)

// Config bounds a Publisher.
type Config struct {
	// Partitions is the partition count of the cluster (cluster.Partitions).
	Partitions int
	// Timeout is from Publish to the last moment of its receipt.
	Timeout time.Duration
	// QueueMax and QueueBytesMax bound what waits for one partition, in
	// publications and bytes; more is refused with ErrBusy.
	QueueMax      int
	QueueBytesMax int
	// Durable says whether a channel's publications go through the journal.
	// With it, live-only channels do not wait behind a journal that is slow or
	// away. A channel's answer must not depend on anything but its policy. Nil:
	// all channels of a partition share one order.
	Durable func(app, channel string) bool
}

func (c Config) withDefaults() Config {
	c.Partitions = max(c.Partitions, 1)
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	if c.QueueMax <= 0 {
		c.QueueMax = DefaultQueueMax
	}
	if c.QueueBytesMax <= 0 {
		c.QueueBytesMax = DefaultQueueBytesMax
	}
	return c
}

// Receipt is a router's answer for one publication.
type Receipt struct {
	// Position and Epoch are set for what went through the journal.
	Position message.Position
	Epoch    string
	// Duplicate: the idempotency key was used before; Position is that of the
	// first publication.
	Duplicate bool
	// Err is nil, ErrUnavailable or ErrBusy (retry), or what is wrong with the
	// publication (an *Error).
	Err error
}

// Publisher packs publications per partition and sends one request at a time
// for each, growing while it waits: batches form under load without a timer,
// and the order in which one caller publishes is the order of the journal.
type Publisher struct {
	// immutable after New
	cfg     Config
	nc      *nats.Conn
	routers func() []string
	now     func() time.Time
	inbox   string
	lanes   []*lane
	wake    chan struct{}

	// atomic
	payloadMax atomic.Int64 // of one publication
	batchBytes atomic.Int64 // of those of one request

	mu sync.Mutex
	// guarded by mu
	ready []*lane // have something to send
}

// New returns a publisher on nc. routers lists the live router nodes, from
// any goroutine; when it is nil or its list empty, requests go to whichever
// router answers. Nothing leaves before Run.
func New(cfg Config, nc *nats.Conn, routers func() []string, now func() time.Time) *Publisher {
	if routers == nil {
		routers = func() []string { return nil }
	}
	if now == nil {
		now = time.Now
	}
	p := &Publisher{
		cfg: cfg.withDefaults(), nc: nc, routers: routers, now: now,
		inbox: nc.NewInbox(), wake: make(chan struct{}, 1),
	}
	perPartition := 1
	if p.cfg.Durable != nil {
		perPartition = 2
	}
	for i := range p.cfg.Partitions * perPartition {
		p.lanes = append(p.lanes, &lane{index: i, partition: i % p.cfg.Partitions})
	}
	p.measure()
	return p
}

// Partition is the partition of the publication's channel.
func (p *Publisher) Partition(pub *message.Publication) int {
	return channel.Key{App: pub.App, Name: pub.Channel}.Partition(p.cfg.Partitions)
}

// Publish queues pub and never blocks. pub may be reused when Publish
// returns. done is called exactly once: before Publish returns when the
// publication is refused at once, else by the goroutine of Run; it must not
// block.
func (p *Publisher) Publish(pub *message.Publication, done func(Receipt)) {
	if int64(pub.Size()) > p.payloadMax.Load() {
		done(Receipt{Err: tooLarge(pub.Size(), p.payloadMax.Load())})
		return
	}
	l := p.laneOf(pub)
	wake, err := l.add(pub, done, p.now, &p.cfg, int(p.batchBytes.Load()))
	if err != nil {
		done(Receipt{Err: err})
		return
	}
	if wake {
		p.wakeUp(l)
	}
}

func (p *Publisher) laneOf(pub *message.Publication) *lane {
	i := p.Partition(pub)
	if p.cfg.Durable != nil && !p.cfg.Durable(pub.App, pub.Channel) {
		i += p.cfg.Partitions
	}
	return p.lanes[i]
}

func (p *Publisher) wakeUp(l *lane) {
	p.mu.Lock()
	p.ready = append(p.ready, l)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default: // Run is being woken already
	}
}

// PublishWait publishes all and waits for their receipts, in the order of
// pubs, for Timeout at most. When that or ctx ends first, the missing ones are
// ErrUnavailable.
func (p *Publisher) PublishWait(ctx context.Context, pubs []*message.Publication) []Receipt {
	if len(pubs) == 0 {
		return nil
	}
	w := &waiter{left: len(pubs), receipts: make([]Receipt, len(pubs)), all: make(chan struct{})}
	for i := range w.receipts {
		w.receipts[i].Err = ErrUnavailable
	}
	for i, pub := range pubs {
		p.Publish(pub, func(r Receipt) { w.put(i, r) })
	}
	// Run keeps to Timeout, unless something holds it up.
	timer := time.NewTimer(p.cfg.Timeout)
	defer timer.Stop()
	select {
	case <-w.all:
	case <-timer.C:
	case <-ctx.Done():
	}
	return w.take()
}

// waiter collects the receipts of one PublishWait.
type waiter struct {
	all chan struct{}

	mu sync.Mutex
	// guarded by mu
	receipts []Receipt // nil once taken
	left     int
}

func (w *waiter) put(i int, r Receipt) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.receipts == nil {
		return
	}
	w.receipts[i] = r
	if w.left--; w.left == 0 {
		close(w.all)
	}
}

func (w *waiter) take() []Receipt {
	w.mu.Lock()
	defer w.mu.Unlock()
	receipts := w.receipts
	w.receipts = nil
	return receipts
}
