package edge

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/message"
)

// drainStep is how often a drain closes connections.
const drainStep = 10 * time.Millisecond

// Drain asks all clients to reconnect elsewhere, in random order, spread
// evenly over window, and returns when all are gone or ctx ends. Connections
// that come meanwhile are asked at once.
func (e *Edge) Drain(ctx context.Context, window time.Duration) error {
	e.draining.Store(true)
	lists := make([][]*client, len(e.handlers))
	err := e.onLoops(ctx, func(h *handler) {
		h.each(func(c *client) { lists[h.index] = append(lists[h.index], c) })
	})
	if err != nil {
		return err
	}
	var all []*client
	for _, l := range lists {
		all = append(all, l...)
	}
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	if err := e.shutEvenly(ctx, all, window); err != nil {
		return err
	}
	return e.waitEmpty(ctx)
}

// Reopen ends what Drain began: connections may come and stay again.
func (e *Edge) Reopen() { e.draining.Store(false) }

func (e *Edge) shutEvenly(ctx context.Context, all []*client, window time.Duration) error {
	start := time.Now()
	ticker := time.NewTicker(drainStep)
	defer ticker.Stop()
	for done := 0; ; {
		for until := due(len(all), time.Since(start), window); done < until; done++ {
			c := all[done]
			c.answer(func() { c.sess.Shut(dialect.Reconnect) })
		}
		if done == len(all) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// due is how many of all connections have been asked at a time into the
// window.
func due(all int, since, window time.Duration) int {
	if since >= window {
		return all
	}
	return int(float64(all) * (float64(since) / float64(window)))
}

func (e *Edge) waitEmpty(ctx context.Context) error {
	ticker := time.NewTicker(drainStep)
	defer ticker.Stop()
	for {
		if s := e.Stats(); s.Opened == s.Closed {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// Control carries out a command that was sent to all gateways.
func (e *Edge) Control(cmd control.Command) {
	if cmd.Operation != nil {
		e.operate(cmd.App, cmd.Operation)
		return
	}
	user, why := cmd.TerminateUser, dialect.Terminated
	if user == "" {
		user, why = cmd.ReconnectUser, dialect.Reconnect
	}
	if user == "" {
		return
	}
	for _, h := range e.handlers {
		h.run(func() {
			for _, c := range append([]*client(nil), h.users[channel.Key{App: cmd.App, Name: user}]...) {
				if !c.closing {
					c.sess.Shut(why)
				}
			}
		})
	}
}

// Broken: publications of the partition are lost for good. Subscribers of its
// durable channels are asked to reconnect, which gives them a fresh start.
func (e *Edge) Broken(partition int) {
	e.broken[partition].Store(true)
	e.interest.Lost(partition)
	e.shutSubscribers(partition)
}

// Start says that everything of a partition after last will be delivered: see
// hub.Interest.Start. Who has come since it was broken may have missed
// something.
func (e *Edge) Start(partition int, last message.Position) {
	e.interest.Start(partition, last)
	if e.broken[partition].Swap(false) {
		e.shutSubscribers(partition)
	}
}

// Epoch says which life of the journal a partition's positions belong to: see
// hub.Interest.Epoch.
func (e *Edge) Epoch(partition int, epoch string) { e.interest.Epoch(partition, epoch) }

func (e *Edge) shutSubscribers(partition int) {
	for _, h := range e.handlers {
		h.run(func() { h.shutSubscribers(partition) })
	}
}

func (h *handler) shutSubscribers(partition int) {
	h.each(func(c *client) {
		if c.app() == nil || c.closing {
			return
		}
		c.sess.Lost(func(name string) bool { return c.key(name).Partition(h.edge.cfg.Partitions) == partition })
	})
}
