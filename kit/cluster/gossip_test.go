package cluster_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/loopback"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func localConfig(seeds ...string) cluster.Config {
	cfg := cluster.DefaultConfig()
	cfg.Listen, cfg.Advertise, cfg.Seeds = "127.0.0.1:0", "", seeds
	return cfg
}

// node is a running member.
type node struct {
	*cluster.Cluster
	stop context.CancelFunc
	done chan error
}

func start(t *testing.T, cfg cluster.Config, m cluster.Member) *node {
	t.Helper()
	return startLogged(t, cfg, m, discard())
}

func startLogged(t *testing.T, cfg cluster.Config, m cluster.Member, log *slog.Logger) *node {
	t.Helper()
	c, err := cluster.New(cfg, m, log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{c, cancel, make(chan error, 1)}
	go func() { n.done <- c.Run(ctx) }()
	t.Cleanup(n.leave)
	return n
}

func (n *node) leave() {
	n.stop()
	if n.done != nil {
		<-n.done
		n.done = nil
	}
}

// names waits until the node sees exactly these nodes, told by Watch.
func (n *node) names(t *testing.T, want ...string) {
	t.Helper()
	changed, stop := n.Watch()
	defer stop()
	deadline := time.After(20 * time.Second)
	for {
		var got []string
		for _, m := range n.Members() {
			got = append(got, m.Node)
		}
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("%s sees %v, want %v", n.Local().Node, got, want)
		}
	}
}

func TestJoinLeaveAndCrash(t *testing.T) {
	a := start(t, localConfig(), cluster.Member{Node: "a", Incarnation: "1", Roles: []string{"gateway"}, Version: "v1"})
	b := start(t, localConfig(a.Addr()), cluster.Member{Node: "b", Incarnation: "1", Roles: []string{"router", "api"}})
	c := start(t, localConfig(a.Addr()), cluster.Member{Node: "c", Incarnation: "1", Addr: "10.0.0.3:80"})
	for _, n := range []*node{a, b, c} {
		n.names(t, "a", "b", "c")
	}
	ms := a.Members()
	if ms[0].Version != "v1" || ms[0].Addr != a.Addr() || ms[2].Addr != "10.0.0.3:80" {
		t.Errorf("members are %+v", ms)
	}
	if r := cluster.WithRole(ms, "router"); len(r) != 1 || r[0].Node != "b" {
		t.Errorf("routers are %+v", r)
	}
	b.leave()
	a.names(t, "a", "c")
	if err := c.Close(); err != nil { // no goodbye
		t.Fatal(err)
	}
	a.names(t, "a")
}

// TestRestart brings a node back before its last run was found dead: one entry a node, the newest run.
func TestRestart(t *testing.T) {
	a := start(t, localConfig(), cluster.Member{Node: "a", Incarnation: "1"})
	b := start(t, localConfig(a.Addr()), cluster.Member{Node: "b", Incarnation: cluster.NewIncarnation()})
	a.names(t, "a", "b")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	newest := cluster.NewIncarnation()
	start(t, localConfig(a.Addr()), cluster.Member{Node: "b", Incarnation: newest})
	changed, stop := a.Watch()
	defer stop()
	deadline := time.After(20 * time.Second)
	for {
		ms := a.Members()
		names := make([]string, len(ms))
		for i, m := range ms {
			names[i] = m.Node
		}
		if len(slices.Compact(names)) != len(ms) {
			t.Fatalf("a sees a node twice: %+v", ms)
		}
		if len(ms) == 2 && ms[1].Incarnation == newest {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("a still sees %+v", ms)
		}
	}
}

func TestSeedComesLater(t *testing.T) {
	cfg := localConfig()
	cfg.Listen = loopback.Addr(t)
	late := start(t, localConfig(cfg.Listen), cluster.Member{Node: "b", Incarnation: "1"})
	start(t, cfg, cluster.Member{Node: "a", Incarnation: "1"})
	late.names(t, "a", "b")
}

// TestOwnAddressIsNoSeed: all nodes may have the same list of seeds, their own address among them. That a node reaches itself does
// not keep it from looking for the others.
func TestOwnAddressIsNoSeed(t *testing.T) {
	other := localConfig()
	other.Listen = loopback.Addr(t)
	l, err := net.Listen("tcp", other.Listen)
	if err != nil {
		t.Fatal(err)
	}
	cfg := localConfig()
	cfg.Listen = loopback.Addr(t)
	cfg.Seeds = []string{cfg.Listen, other.Listen}
	a := start(t, cfg, cluster.Member{Node: "a", Incarnation: "1"})
	conn, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	l.Close() // it was not up yet
	start(t, other, cluster.Member{Node: "b", Incarnation: "1"})
	found := time.Now()
	a.names(t, "a", "b")
	if took := time.Since(found); took > cfg.Rejoin/3 {
		t.Errorf("found after %s", took)
	}
}

// TestAddressesMayBeNames: gossip listens where a name says, and nowhere else.
func TestAddressesMayBeNames(t *testing.T) {
	for _, tt := range []struct {
		name string
		edit func(*cluster.Config)
	}{
		{"listen", func(c *cluster.Config) { c.Listen = "localhost:0" }},
		{"advertise", func(c *cluster.Config) { c.Listen, c.Advertise = ":0", "localhost:7946" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			cfg := localConfig()
			tt.edit(&cfg)
			at := start(t, cfg, cluster.Member{Node: "a", Incarnation: "1"}).Addr()
			if ip := netip.MustParseAddrPort(at).Addr(); !ip.IsLoopback() {
				t.Errorf("reached at %s", at)
			}
		})
	}
	cfg := localConfig()
	cfg.Listen = "nowhere.invalid:0"
	if c, err := cluster.New(cfg, cluster.Member{Node: "a", Incarnation: "1"}, discard()); err == nil {
		c.Close()
		t.Error("a name that nobody has was taken")
	} else if !strings.Contains(err.Error(), "cluster.listen") || !strings.Contains(err.Error(), "nowhere.invalid") {
		t.Errorf("got %v, want what is wrong", err)
	}
}

func TestEncryptionAndLabelKeepOthersOut(t *testing.T) {
	secret := localConfig()
	secret.EncryptionKey = base64.StdEncoding.EncodeToString(make([]byte, 32))
	a := start(t, secret, cluster.Member{Node: "a", Incarnation: "1"})
	secret.Seeds = []string{a.Addr()}
	labelled := secret
	labelled.Label = "another"
	for name, cfg := range map[string]cluster.Config{"clear": localConfig(a.Addr()), "labelled": labelled} {
		refused := watchLog("no cluster seed answers")
		n := startLogged(t, cfg, cluster.Member{Node: name, Incarnation: "1"}, slog.New(refused))
		select {
		case <-refused.seen:
		case <-time.After(20 * time.Second):
			t.Fatalf("%s was not refused", name)
		}
		n.names(t, name)
	}
	start(t, secret, cluster.Member{Node: "b", Incarnation: "1"})
	a.names(t, "a", "b")
}

// records tells of log records that begin so.
type records struct {
	begin string
	seen  chan struct{} // capacity 1
}

func watchLog(begin string) records { return records{begin, make(chan struct{}, 1)} }

func (r records) Enabled(context.Context, slog.Level) bool { return true }
func (r records) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r records) WithGroup(string) slog.Handler            { return r }

func (r records) Handle(_ context.Context, rec slog.Record) error {
	if strings.HasPrefix(rec.Message, r.begin) {
		select {
		case r.seen <- struct{}{}:
		default:
		}
	}
	return nil
}

func TestTwoNodesOfOneName(t *testing.T) {
	cfg := localConfig()
	cfg.Rejoin = 100 * time.Millisecond
	first, second := watchLog("another node has the name"), watchLog("another node has the name")
	a := startLogged(t, cfg, cluster.Member{Node: "host", Incarnation: "1"}, slog.New(first))
	cfg.Seeds = []string{a.Addr()}
	startLogged(t, cfg, cluster.Member{Node: "host", Incarnation: "2"}, slog.New(second))
	for _, r := range []records{first, second} {
		select {
		case <-r.seen:
		case <-time.After(20 * time.Second):
			t.Fatal("a node does not say that another has its name")
		}
	}
}

func TestStatic(t *testing.T) {
	ms := cluster.NewStatic(cluster.Member{Node: "only", Incarnation: "1"})
	changed, stop := ms.Watch()
	defer stop()
	<-changed
	if got := ms.Members(); len(got) != 1 || got[0].Node != "only" || ms.Local().Node != "only" {
		t.Errorf("members %v", got)
	}
}

func TestIncarnationsSort(t *testing.T) {
	last := ""
	for range 3 {
		now := time.Now().UnixMicro()
		for time.Now().UnixMicro() == now { // the next microsecond
		}
		next := cluster.NewIncarnation()
		if next <= last || len(next) != 24 {
			t.Fatalf("%q after %q", next, last)
		}
		last = next
	}
}

func TestConfigMistakes(t *testing.T) {
	tests := []struct {
		name string
		edit func(*cluster.Config)
		want string
	}{
		{"listen", func(c *cluster.Config) { c.Listen = "nowhere" }, `listen is "nowhere"`},
		{"port", func(c *cluster.Config) { c.Listen = ":99999" }, `listen is ":99999"`},
		{"advertise", func(c *cluster.Config) { c.Advertise = "x" }, `advertise is "x"`},
		{"key", func(c *cluster.Config) { c.EncryptionKey = "c2hvcnQ=" }, "16, 24 or 32 bytes"},
		{"alone with seeds", func(c *cluster.Config) { c.Listen, c.Seeds = "", []string{"a:1"} }, "listen is empty"},
		{"rejoin", func(c *cluster.Config) { c.Rejoin = 0 }, "rejoin_interval"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cfg := cluster.DefaultConfig()
			tt.edit(&cfg)
			if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := cluster.New(localConfig(), cluster.Member{}, discard()); err == nil {
		t.Error("a member without a name was taken")
	}
	long := cluster.Member{Node: strings.Repeat("n", 500), Incarnation: "1"}
	if _, err := cluster.New(localConfig(), long, discard()); err == nil || !strings.Contains(err.Error(), "512") {
		t.Errorf("a description that gossip can't carry: %v", err)
	}
	a := start(t, localConfig(), cluster.Member{Node: "a", Incarnation: "1"})
	taken := localConfig()
	taken.Listen = a.Addr()
	if _, err := cluster.New(taken, cluster.Member{Node: "b", Incarnation: "1"}, discard()); err == nil {
		t.Error("a taken port was bound")
	}
}

// TestAway: a node that has lost NATS is passed over, until all have.
func TestAway(t *testing.T) {
	a := start(t, localConfig(), cluster.Member{Node: "a", Incarnation: "1", Roles: []string{"router"}})
	b := start(t, localConfig(a.Addr()), cluster.Member{Node: "b", Incarnation: "1", Roles: []string{"router"}})
	reachable := func(want ...string) {
		t.Helper()
		for _, n := range []*node{a, b} {
			await.True(t, fmt.Sprintf("%s finds %v reachable", n.Local().Node, want), func() bool {
				var got []string
				for _, m := range cluster.Reachable(n.Members(), "router") {
					got = append(got, m.Node)
				}
				return slices.Equal(got, want)
			})
		}
	}
	away := func(n *node, is bool) {
		t.Helper()
		if err := n.SetAway(is); err != nil {
			t.Fatal(err)
		}
	}
	reachable("a", "b")
	away(b, true)
	reachable("a")
	away(a, true)
	reachable("a", "b")
	away(b, false)
	reachable("b")
	if n := len(cluster.WithRole(a.Members(), "router")); n != 2 {
		t.Errorf("a sees %d routers, want both", n)
	}
}
