// Package env starts Carillon for tests, as processes of the real binary:
// everything in one, or every service apart over one NATS server. It waits
// until they are ready, shows their last log lines when a test fails, and
// stops them at its end.
package env

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/natstest"
)

// What the app that tests use is called.
const (
	AppID  = "1001"
	Key    = "carillon-dev-key"
	Secret = "carillon-dev-secret"
)

// Cluster is a running Carillon.
type Cluster struct {
	// Gateways are the public addresses that clients connect to.
	Gateways []*Node
	// API answers the HTTP API.
	API *Node
	// Nodes are all processes.
	Nodes []*Node
	// NATS is the server that services apart share; nil with one process,
	// which has its own.
	NATS *natstest.TestServer

	t      testing.TB
	cfg    config
	gossip string
}

// config is what the options set.
type config struct {
	gateways int
	apart    bool
	hookURL  string
	extra    string
	set      []string
	routers  int
	presence int
	dev      bool
}

// Option changes what Start starts.
type Option func(*config)

// Apart starts router, authsvc, presence, api and n gateways as a process
// each, over one NATS server.
func Apart(gateways int) Option {
	return func(c *config) { c.apart, c.gateways = true, gateways }
}

// Webhook has the app's webhooks sent to url.
func Webhook(url string) Option { return func(c *config) { c.hookURL = url } }

// Dev starts from the development settings: the known app, the demo page.
func Dev() Option { return func(c *config) { c.dev = true } }

// Set sets keys (key=value) of every process over its file.
func Set(pairs ...string) Option { return func(c *config) { c.set = append(c.set, pairs...) } }

// Routers says how many routers there are with Apart; one unless told
// otherwise.
func Routers(n int) Option { return func(c *config) { c.routers = n } }

// PresenceNodes says how many presence nodes there are with Apart; one unless
// told otherwise.
func PresenceNodes(n int) Option { return func(c *config) { c.presence = n } }

// Config adds YAML to every process's configuration.
func Config(yaml string) Option { return func(c *config) { c.extra = yaml } }

// Start starts a cluster and returns when all of it is ready.
func Start(t testing.TB, options ...Option) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	for _, o := range options {
		o(&c.cfg)
	}
	if !c.cfg.apart {
		n := c.Node("one", "")
		c.Gateways, c.API = []*Node{n}, n
	} else {
		c.startApart()
	}
	for _, n := range c.Nodes {
		n.WaitReady()
	}
	return c
}

func (c *Cluster) startApart() {
	c.NATS = natstest.Server(c.t)
	c.gossip = seed(c.t)
	for _, service := range []struct {
		role  string
		count int
	}{{"router", c.cfg.routers}, {"authsvc", 1}, {"presence", c.cfg.presence}} {
		c.Node(service.role, service.role)
		for i := 1; i < service.count; i++ {
			c.Node(fmt.Sprint(service.role, "-", i), service.role)
		}
	}
	c.API = c.Node("api", "api")
	for i := range c.cfg.gateways {
		c.Gateways = append(c.Gateways, c.Node(fmt.Sprint("gateway-", i), "gateway"))
	}
}

// seed starts a gossip member of this process, which the others join.
func seed(t testing.TB) string {
	t.Helper()
	cfg := cluster.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	member := cluster.Member{Node: "tests", Incarnation: cluster.NewIncarnation()}
	m, err := cluster.New(cfg, member, natstest.Logger(t))
	if err != nil {
		t.Fatalf("start the gossip seed: %v", err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return m.Addr()
}

// Node starts one more process with the given role ("" for all) and does not
// wait for it.
func (c *Cluster) Node(name, role string) *Node {
	c.t.Helper()
	dir := filepath.Join(c.t.TempDir(), name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	file := filepath.Join(dir, "carillon.yaml")
	if err := os.WriteFile(file, []byte(c.yaml(name, dir)), 0o600); err != nil {
		c.t.Fatal(err)
	}
	n := &Node{Name: name, t: c.t, addresses: filepath.Join(dir, "addresses.json")}
	n.args = []string{"serve", "--config", file, "--addresses-file", n.addresses}
	if c.cfg.dev {
		n.args = append(n.args, "--dev")
	}
	if role != "" {
		n.args = append(n.args, "--roles", role)
	}
	for _, pair := range c.cfg.set {
		n.args = append(n.args, "--set", pair)
	}
	n.start()
	n.stopAtEnd()
	c.Nodes = append(c.Nodes, n)
	return n
}

// Named is the process with this name: with Apart the name of its role, with
// a number behind it for the second and later ones and for gateways.
func (c *Cluster) Named(name string) *Node {
	c.t.Helper()
	for _, n := range c.Nodes {
		if n.Name == name {
			return n
		}
	}
	c.t.Fatalf("no process is named %s", name)
	return nil
}

func (c *Cluster) yaml(name, dir string) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("node: {name: %s}", name)
	p("log: {level: info, format: text}")
	p("ops: {listen: \"127.0.0.1:0\"}")
	p("gateway: {listen: \"127.0.0.1:0\", drain: {propagation: 0s, window: 100ms, slack: 2s}}")
	p("api: {listen: \"127.0.0.1:0\"}")
	if c.NATS == nil {
		p("embedded: {dir: %s}", dir)
	} else {
		p("nats: {urls: [%q]}", c.NATS.URL())
		p("cluster: {listen: \"127.0.0.1:0\", seeds: [%q]}", c.gossip)
	}
	p("apps:")
	p("  - id: %q", AppID)
	p("    keys: [{key: %s, secret: %s}, {key: second-key, secret: second-secret}]", Key, Secret)
	p("    client_events: true\n    subscription_count: true\n    watchlist: true")
	p("    policies: [{match: \"durable-*\", history: {size: 100, ttl: 5m}}]")
	if c.cfg.hookURL != "" {
		p("    webhooks: [{url: %q}]", c.cfg.hookURL)
	}
	b.WriteString(c.cfg.extra)
	return b.String()
}
