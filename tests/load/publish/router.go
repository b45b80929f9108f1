package publish

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/proto/cluster"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
)

// Router publishes straight to the routers, as a number of api services do, by
// requests that carry what has gathered meanwhile. Each is a lane; a channel
// belongs to one. It needs the cluster's NATS server.
type Router struct {
	ledger
	conns  []*nats.Conn
	pubs   []*publisher.Publisher
	app    string
	window int
	data   []byte
	names  map[int]string
	stop   context.CancelFunc
	ended  sync.WaitGroup

	mu sync.Mutex
	// guarded by mu
	settled []settlement
	failed  error // of a publisher's Run
}

type settlement struct {
	sent    int64
	failure string
}

// NewRouter connects to the routers' NATS server, once for each of the
// publishers. Up to window publications are unanswered.
func NewRouter(url, app string, m Message, publishers, window int, now func() int64) (*Router, error) {
	l, err := newLedger(publishers, m, now)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &Router{ledger: l, app: app, window: window, names: map[int]string{}, stop: stop}
	for range publishers {
		if err := r.start(ctx, url); err != nil {
			return nil, errors.Join(err, r.Close())
		}
	}
	return r, nil
}

// start adds a publisher.
func (r *Router) start(ctx context.Context, url string) error {
	conn, err := nats.Connect(url, nats.Name("carillon bench"), nats.MaxReconnects(0))
	if err != nil {
		return fmt.Errorf("connect to NATS at %s: %w", url, err)
	}
	r.conns = append(r.conns, conn)
	partitions, err := cluster.AwaitPartitions(ctx, conn)
	if err != nil {
		return fmt.Errorf("the cluster's number of partitions: %w", err)
	}
	p := publisher.New(publisher.Config{Partitions: partitions}, conn, nil, nil)
	r.pubs = append(r.pubs, p)
	r.ended.Go(func() {
		if err := p.Run(ctx); err != nil {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.failed = err
		}
	})
	return nil
}

// FD implements Publisher.
func (r *Router) FD() int { return -1 }

// Ready implements Publisher.
func (r *Router) Ready() bool { return r.stats.Unanswered() < int64(r.window) }

// Publish implements Publisher.
func (r *Router) Publish(at int64, channels ...int) error {
	for _, ch := range channels {
		name, ok := r.names[ch]
		if !ok {
			name = r.message.Name(ch)
			r.names[ch] = name
		}
		lane := ch % len(r.pubs)
		r.data = r.appendData(r.data[:0], lane, ch, at)
		sent := r.now()
		r.pubs[lane].Publish(&message.Publication{
			Kind: message.Event, App: r.app, Channel: name, Event: r.message.Event, Data: r.data,
		}, func(receipt publisher.Receipt) { r.settle(sent, receipt) })
	}
	return nil
}

// settle runs on a publisher's goroutine.
func (r *Router) settle(sent int64, receipt publisher.Receipt) {
	s := settlement{sent: sent}
	if receipt.Err != nil {
		s.failure = receipt.Err.Error()
	}
	r.mu.Lock()
	r.settled = append(r.settled, s)
	r.mu.Unlock()
}

// Poll implements Publisher.
func (r *Router) Poll() error {
	r.mu.Lock()
	settled, failed := r.settled, r.failed
	r.settled = nil
	r.mu.Unlock()
	for _, s := range settled {
		r.answered(1, s.sent, s.failure)
	}
	return failed
}

// Close implements Publisher.
func (r *Router) Close() error {
	r.stop()
	r.ended.Wait()
	for _, conn := range r.conns {
		conn.Close()
	}
	return nil
}
