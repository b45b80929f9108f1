package natsembed_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/loopback"
	"github.com/carillon-rt/carillon/kit/natsembed"
)

func config(t *testing.T) natsembed.Config {
	cfg := natsembed.DefaultConfig()
	cfg.Dir, cfg.Listen = t.TempDir(), "127.0.0.1:0"
	cfg.MaxStore, cfg.MaxMemory = 1<<30, 64<<20
	return cfg
}

func start(t *testing.T, cfg natsembed.Config) *natsembed.Server {
	t.Helper()
	s, err := natsembed.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Shutdown(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func connect(t *testing.T, url string, opts ...nats.Option) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	nc, err := nats.Connect(url, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return nc, js
}

func TestFilesSurviveRestart(t *testing.T) {
	cfg := config(t)
	s := start(t, cfg)
	nc, js := connect(t, s.ClientURL())
	stream := jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Storage: jetstream.FileStorage}
	if _, err := js.CreateStream(t.Context(), stream); err != nil {
		t.Fatal(err)
	}
	for range 10 {
		if _, err := js.Publish(t.Context(), "s", []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	nc.Close()
	if err := s.Shutdown(); err != nil {
		t.Fatal(err)
	}
	again := start(t, cfg)
	_, js = connect(t, "", nats.InProcessServer(again))
	st, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	if n := st.CachedInfo().State.Msgs; n != 10 {
		t.Errorf("%d messages after the restart, want 10", n)
	}
	if clustered, ready := again.Clustered(); clustered || !ready {
		t.Errorf("a single server: clustered %v, ready %v", clustered, ready)
	}
}

func TestPassword(t *testing.T) {
	cfg := config(t)
	cfg.User, cfg.Password = "carillon", "pw"
	s := start(t, cfg)
	if nc, err := nats.Connect(s.ClientURL()); !errors.Is(err, nats.ErrAuthorization) {
		t.Errorf("without a password: %v, %v", nc, err)
	}
	connect(t, s.ClientURL(), nats.UserInfo("carillon", "pw"))
}

// Servers that give each other no password, or a wrong one, are not one cluster.
func TestClusterPassword(t *testing.T) {
	addrs := []string{loopback.Addr(t), loopback.Addr(t), loopback.Addr(t)}
	member := func(i int, password string) *natsembed.Server {
		cfg := config(t)
		cfg.Name = fmt.Sprint("n", i)
		cfg.Cluster = natsembed.ClusterConfig{
			Name: "test", Listen: addrs[i], Routes: []string{"nats-route://" + addrs[0]}, User: "route", Password: password,
		}
		return start(t, cfg)
	}
	one, stranger, two := member(0, "right"), member(2, "wrong"), member(1, "right")
	await.True(t, "one and two are joined", func() bool { return one.NumRoutes() > 0 && two.NumRoutes() > 0 })
	if n := stranger.NumRoutes(); n != 0 {
		t.Errorf("a server with another password has %d routes", n)
	}
}

// TestCluster starts three servers, stops the leader of a stream politely and goes on publishing.
func TestCluster(t *testing.T) {
	servers := make([]*natsembed.Server, 3)
	addrs := make([]string, len(servers))
	for i := range addrs {
		addrs[i] = loopback.Addr(t)
	}
	var routes []string
	for _, addr := range addrs {
		routes = append(routes, "nats-route://"+addr)
	}
	for i := range servers {
		cfg := config(t)
		cfg.Name = fmt.Sprint("n", i)
		cfg.Cluster = natsembed.ClusterConfig{Name: "test", Listen: addrs[i], Routes: routes}
		servers[i] = start(t, cfg)
		if got := servers[i].ClusterAddr(); got != addrs[i] {
			t.Errorf("routes at %s, want %s", got, addrs[i])
		}
	}
	for _, s := range servers {
		await.Success(t, "a JetStream cluster", func() error {
			if clustered, ready := s.Clustered(); !clustered || !ready {
				return fmt.Errorf("clustered %v, ready %v, %d routes", clustered, ready, s.NumRoutes())
			}
			return nil
		})
	}
	var urls []string
	for _, s := range servers {
		urls = append(urls, s.ClientURL())
	}
	_, js := connect(t, strings.Join(urls, ","))
	stream := jetstream.StreamConfig{Name: "S", Subjects: []string{"s"}, Replicas: 3, Storage: jetstream.FileStorage}
	await.Success(t, "a replicated stream", func() error {
		_, err := js.CreateStream(t.Context(), stream)
		return err
	})
	if _, err := js.Publish(t.Context(), "s", nil); err != nil {
		t.Fatal(err)
	}
	st, err := js.Stream(t.Context(), "S")
	if err != nil {
		t.Fatal(err)
	}
	leader := st.CachedInfo().Cluster.Leader
	var n int
	if _, err := fmt.Sscanf(leader, "n%d", &n); err != nil {
		t.Fatal(err)
	}
	if err := servers[n].Shutdown(); err != nil {
		t.Error(err)
	}
	await.Success(t, "a publish after the leader left", func() error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := js.Publish(ctx, "s", nil)
		return err
	})
}

func TestMistakes(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		edit func(*natsembed.Config)
		want string
	}{
		{"no directory", func(c *natsembed.Config) { c.Dir = "" }, "dir is empty"},
		{"directory is a file", func(c *natsembed.Config) { c.Dir = file }, "embedded NATS: "},
		{"listen", func(c *natsembed.Config) { c.Listen = "x" }, `listen is "x"`},
		{"sync", func(c *natsembed.Config) { c.SyncInterval = 0 }, "sync_interval"},
		{"payload", func(c *natsembed.Config) { c.MaxPayload = 1 }, "max_payload is 1, want"},
		{"cluster address", func(c *natsembed.Config) { c.Cluster.Name = "c" }, "cluster.listen"},
		{"cluster without a name", func(c *natsembed.Config) { c.Cluster.Routes = []string{"nats-route://h:6222"} }, "cluster.name is empty"},
		{"cluster name", func(c *natsembed.Config) { c.Cluster.Name = "my cluster" }, "without spaces"},
		{"user without a password", func(c *natsembed.Config) { c.User = "u" }, "user and password go together"},
		{"route user without a password", func(c *natsembed.Config) {
			c.Cluster = natsembed.ClusterConfig{Name: "c", Listen: ":0", Routes: []string{"nats-route://h:6222"}, User: "u"}
		}, "cluster.user and cluster.password go together"},
		{"route without a port", func(c *natsembed.Config) {
			c.Cluster = natsembed.ClusterConfig{Name: "c", Listen: ":0", Routes: []string{"nats-route://host"}}
		}, "cluster.routes[0] has no port, want such as nats-route://host:6222"},
		{"no routes", func(c *natsembed.Config) {
			c.Cluster = natsembed.ClusterConfig{Name: "c", Listen: ":0"}
		}, "cluster.routes is empty"},
		{"route", func(c *natsembed.Config) {
			c.Cluster = natsembed.ClusterConfig{Name: "c", Listen: ":0", Routes: []string{"host"}}
		}, "cluster.routes[0] is not a route"},
		{"taken port", func(c *natsembed.Config) { c.Listen = taken.Addr().String() }, "address already in use"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := config(t)
			tt.edit(&cfg)
			s, err := natsembed.Start(cfg)
			if err == nil {
				s.Shutdown()
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}
