package journal

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/loopback"
	"github.com/carillon-rt/carillon/kit/natsembed"
	"github.com/carillon-rt/carillon/proto/cluster"
	"github.com/carillon-rt/carillon/proto/subject"
)

// natsCluster starts three servers and gives a connection to one.
func natsCluster(t *testing.T) *nats.Conn {
	t.Helper()
	var routes, addrs []string
	for range 3 {
		addrs = append(addrs, loopback.Addr(t))
		routes = append(routes, "nats-route://"+addrs[len(addrs)-1])
	}
	var servers []*natsembed.Server
	for i, addr := range addrs {
		cfg := natsembed.DefaultConfig()
		cfg.Name, cfg.Dir, cfg.Listen, cfg.MaxStore = fmt.Sprint("n", i), t.TempDir(), "127.0.0.1:0", 1<<30
		cfg.Cluster = natsembed.ClusterConfig{Name: "test", Listen: addr, Routes: routes}
		srv, err := natsembed.Start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := srv.Shutdown(); err != nil {
				t.Error(err)
			}
		})
		servers = append(servers, srv)
	}
	for _, srv := range servers {
		await.Success(t, "a JetStream cluster", func() error {
			if clustered, ready := srv.Clustered(); !clustered || !ready {
				return fmt.Errorf("clustered %v, ready %v", clustered, ready)
			}
			return nil
		})
	}
	nc, err := nats.Connect(servers[0].ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// TestFactsAreReplicated: whoever decides the partition count makes the bucket,
// with as many copies as the journal has.
func TestFactsAreReplicated(t *testing.T) {
	js, err := jetstream.New(natsCluster(t))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	await.Success(t, "the partition count", func() error {
		_, err := cluster.Partitions(ctx, js, 4, 3)
		return err
	})
	await.Success(t, "the journal", func() error {
		_, err := Open(ctx, Config{
			Replicas: 3, LogBytes: 64 << 20, IngestBytes: 1 << 20, IngestAge: time.Hour, IdempotencyWindow: time.Minute, Retention: hour,
		}, js, slog.New(slog.DiscardHandler))
		return err
	})
	for _, name := range []string{subject.JournalStream, "KV_" + subject.ConfigBucket} {
		s, err := js.Stream(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.CachedInfo().Config.Replicas; got != 3 {
			t.Errorf("%s has %d copies, want 3", name, got)
		}
	}
	if n, err := cluster.Partitions(ctx, js, 9, 1); err != nil || n != 4 {
		t.Errorf("%d partitions (%v), want 4", n, err)
	}
}
