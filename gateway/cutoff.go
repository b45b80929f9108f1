package gateway

import (
	"context"
	"time"

	"github.com/carillon-rt/carillon/kit/cluster"
)

// cutOffCheck is how often the gateway looks whether it has NATS.
const cutOffCheck = 500 * time.Millisecond

// watchCutOff asks the clients to reconnect elsewhere while this node has lost
// NATS and other gateways have not. When all have, clients are nowhere better
// off.
func (g *Gateway) watchCutOff(ctx context.Context) error {
	if g.cfg.Drain.CutOff <= 0 {
		<-ctx.Done()
		return nil
	}
	tick := time.NewTicker(cutOffCheck)
	defer tick.Stop()
	for seen := time.Now(); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		switch {
		case g.deps.NATS.Connected() == nil:
			seen = time.Now()
		case time.Since(seen) > g.cfg.Drain.CutOff && g.othersServe():
			g.leaveUntilBack(ctx)
			seen = time.Now()
		}
	}
}

// othersServe says whether there is a gateway that has NATS.
func (g *Gateway) othersServe() bool {
	self := g.deps.Cluster.Local().Node
	for _, m := range cluster.WithRole(g.deps.Cluster.Members(), Role) {
		if m.Node != self && !m.Away {
			return true
		}
	}
	return false
}

// leaveUntilBack lets the clients go and refuses new ones until NATS is back.
func (g *Gateway) leaveUntilBack(ctx context.Context) {
	g.log.Warn("cut off from NATS: clients are asked to reconnect elsewhere", "connections", open(g.edge.Stats()), "window", g.cfg.Drain.Window)
	leaving, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan error, 1)
	go func() { done <- g.edge.Drain(leaving, g.cfg.Drain.Window) }()
	tick := time.NewTicker(cutOffCheck)
	defer tick.Stop()
	for ctx.Err() == nil && g.deps.NATS.Connected() != nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
	}
	stop()
	<-done // its error says that clients are left, who may stay now
	if ctx.Err() == nil {
		g.edge.Reopen()
		g.log.Info("NATS is back: clients are welcome again", "connections", open(g.edge.Stats()))
	}
}
