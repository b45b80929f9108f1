package service

import (
	"context"
	"log/slog"
	"time"

	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/natsconn"
)

const (
	// awayAfter is how long NATS may be lost before the others are told: longer than the restart of a server takes its clients.
	awayAfter = 3 * time.Second
	awayCheck = 500 * time.Millisecond
)

// watchNATS tells the cluster while this node has lost NATS: it is alive, and of no use to anybody.
func watchNATS(gossip *cluster.Cluster, conns *natsconn.Conns, log *slog.Logger) func(context.Context) error {
	return func(ctx context.Context) error {
		tick := time.NewTicker(awayCheck)
		defer tick.Stop()
		seen, away := time.Now(), false
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-tick.C:
			}
			lost := conns.Connected() != nil
			if !lost {
				seen = time.Now()
			}
			if want := time.Since(seen) > awayAfter; want != away {
				away = want
				log.Warn("the cluster is told about NATS", "away", away)
				if err := gossip.SetAway(away); err != nil {
					log.Warn("the cluster may not know about NATS", "away", away, "err", err)
				}
			}
		}
	}
}
