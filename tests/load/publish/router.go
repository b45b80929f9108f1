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

// Router publishes straight to the routers, as the api service does, by
// requests that carry what has gathered meanwhile. It is one lane for each
// channel's order, and needs the cluster's NATS server.
type Router struct {
	ledger
	conn   *nats.Conn
	pub    *publisher.Publisher
	app    string
	window int
	data   []byte
	names  map[int]string
	stop   context.CancelFunc
	ended  chan error

	mu sync.Mutex
	// guarded by mu
	settled []settlement
}

type settlement struct {
	sent    int64
	failure string
}

// NewRouter connects to the routers' NATS server. Up to window publications
// are unanswered.
func NewRouter(url, app string, m Message, window int, now func() int64) (*Router, error) {
	l, err := newLedger(1, m, now)
	if err != nil {
		return nil, err
	}
	conn, err := nats.Connect(url, nats.Name("carillon bench"), nats.MaxReconnects(0))
	if err != nil {
		return nil, fmt.Errorf("connect to NATS at %s: %w", url, err)
	}
	r := &Router{ledger: l, conn: conn, app: app, window: window, names: map[int]string{}, ended: make(chan error, 1)}
	partitions, err := cluster.AwaitPartitions(context.Background(), conn)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("the cluster's number of partitions: %w", err)
	}
	r.pub = publisher.New(publisher.Config{Partitions: partitions}, conn, nil, nil)
	ctx, stop := context.WithCancel(context.Background())
	r.stop = stop
	go func() { r.ended <- r.pub.Run(ctx) }()
	return r, nil
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
		r.data = r.appendData(r.data[:0], 0, ch, at)
		sent := r.now()
		r.pub.Publish(&message.Publication{
			Kind: message.Event, App: r.app, Channel: name, Event: r.message.Event, Data: r.data,
		}, func(receipt publisher.Receipt) { r.settle(sent, receipt) })
	}
	return nil
}

// settle runs on the publisher's goroutine.
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
	settled := r.settled
	r.settled = nil
	r.mu.Unlock()
	for _, s := range settled {
		r.answered(1, s.sent, s.failure)
	}
	return nil
}

// Close implements Publisher.
func (r *Router) Close() error {
	r.stop()
	err := <-r.ended
	r.conn.Close()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}
