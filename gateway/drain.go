package gateway

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/backbone"
	"github.com/carillon-rt/carillon/gateway/internal/edge"
	"github.com/carillon-rt/carillon/gateway/internal/rollcall"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/message"
)

// sink gives the feed's publications to the edge, which needs no flush: its
// mailboxes coalesce by themselves. The roll call notices what is missing of
// those that no journal has.
type sink struct {
	*edge.Edge
	calls *rollcall.RollCall
}

var (
	_ backbone.Sink    = sink{}
	_ backbone.Breaker = sink{}
	_ backbone.Starter = sink{}
	_ backbone.Placer  = sink{}
)

// Deliver implements backbone.Sink.
func (s sink) Deliver(partition int, pos message.Position, pub *message.Publication) {
	s.Edge.Deliver(partition, pos, pub)
	s.calls.Event(partition, pub)
}

// Flush implements backbone.Sink.
func (sink) Flush(int) {}

// control hands a command to all gateways to the clients' side.
func (g *Gateway) control(cmd control.Command) { g.edge.Control(cmd) }

// serve runs the clients' side. It begins when all partitions are followed:
// who subscribes then misses nothing. Until then connections wait in the
// kernel's queue.
func (g *Gateway) serve(ctx context.Context) error {
	select {
	case <-g.feed.Started():
	case <-ctx.Done(): // a run that ends at once releases the loops and the port
		return errors.Join(g.edge.Run(ctx), g.handOver.Close())
	}
	g.log.Info("gateway accepts connections", "addr", g.Addr(), "loops", g.cfg.loops())
	runCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	clients, requests := make(chan error, 1), make(chan error, 1)
	go func() { clients <- g.edge.Run(runCtx) }()
	go func() { requests <- g.http.Serve(g.requests) }()
	select {
	case <-ctx.Done():
		g.drain(runCtx)
	case err := <-clients:
		clients <- err
	case err := <-requests:
		requests <- err
	}
	stop()
	return errors.Join(<-clients, g.stopHTTP(), served(<-requests))
}

// drain lets the clients go politely: no longer ready, yet accepting until
// balancers have noticed; then no new connections, and those that are there
// are asked to reconnect elsewhere, evenly over the window.
func (g *Gateway) drain(ctx context.Context) {
	if g.deps.Ops != nil {
		g.deps.Ops.SetDraining(true)
	}
	cfg := g.cfg.Drain
	g.log.Info("draining", "connections", open(g.edge.Stats()), "propagation", cfg.Propagation, "window", cfg.Window)
	pause(ctx, cfg.Propagation)
	g.edge.StopListening()
	ctx, cancel := context.WithTimeout(ctx, cfg.Window+cfg.Slack)
	defer cancel()
	if err := g.edge.Drain(ctx, cfg.Window); err != nil {
		g.log.Warn("not all clients went in time, the rest is cut off", "connections", open(g.edge.Stats()), "err", err)
		return
	}
	g.log.Info("drained")
}

func open(s edge.Stats) int64 { return int64(s.Opened) - int64(s.Closed) }

func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// stopHTTP lets requests under way finish.
func (g *Gateway) stopHTTP() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopSlack)
	defer cancel()
	if err := g.http.Shutdown(ctx); err != nil {
		return errors.Join(fmt.Errorf("stop HTTP: %w", err), g.http.Close())
	}
	return nil
}

// served is the error of a server that was not closed by us.
func served(err error) error {
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve HTTP: %w", err)
}

// runRoster runs the roster and, when the clients are gone, lets it tell the
// owners so: else they would find out by the gateway's death.
func (g *Gateway) runRoster(ctx context.Context) error {
	runCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- g.roster.Run(runCtx) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	flushCtx, cancel := context.WithTimeout(runCtx, flushTimeout)
	defer cancel()
	if err := g.roster.Flush(flushCtx); err != nil {
		g.log.Warn("presence owners were not told everything", "err", err)
	}
	stop()
	return <-ended
}
