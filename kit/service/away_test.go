package service

import (
	"context"
	"log/slog"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/loopback"
	"github.com/carillon-rt/carillon/kit/natsembed"
)

// TestAwayWithoutNATS: a node tells the cluster that it has lost NATS, and that it is back.
func TestAwayWithoutNATS(t *testing.T) {
	embedded := natsembed.DefaultConfig()
	embedded.Dir, embedded.Listen = t.TempDir(), loopback.IP()+":0"
	srv, err := natsembed.Start(embedded)
	if err != nil {
		t.Fatal(err)
	}
	embedded.Listen = strings.TrimPrefix(srv.ClientURL(), "nats://")
	cfg := DefaultCommon()
	cfg.Ops.Listen, cfg.Cluster.Listen, cfg.Node.Name = "127.0.0.1:0", "127.0.0.1:0", "node-1"
	cfg.NATS.URLs = []string{srv.ClientURL()}
	log := slog.New(slog.DiscardHandler)
	deps, stop, err := Open(t.Context(), cfg, []string{"router"}, Options{Service: "test", Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := stop(context.Background()); err != nil {
			t.Error(err)
		}
	})
	away := func() bool {
		_, page := get(t, deps, "/debug/cluster")
		return strings.Contains(page, "has lost NATS")
	}
	if away() {
		t.Fatal("the node is away with NATS there")
	}
	srv.Shutdown()
	await.True(t, "the node is away", away)
	srv, err = natsembed.Start(embedded)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Shutdown() })
	await.True(t, "the node is back", func() bool { return !away() })
}
