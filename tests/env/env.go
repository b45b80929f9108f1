// Package env starts Carillon for tests, as processes of the real binary:
// everything in one, or every service apart over one NATS server or a cluster
// of them, whose processes and connections tests may break. It waits until
// they are ready, shows their last log lines when a test fails, and stops
// them at its end.
package env

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/kit/loopback"
	"github.com/carillon-rt/carillon/kit/natstest"
)

// What the app that tests use is called.
const (
	AppID  = "1001"
	Key    = "carillon-dev-key"
	Secret = "carillon-dev-secret"
	APIKey = "server-api-key" // of Centrifugo's server API
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
	// which has its own, and with Brokers.
	NATS *natstest.TestServer
	// Brokers are the NATS servers as processes.
	Brokers []*Broker
	// Routes are the ways between the Brokers, and Gossip those between all
	// processes, this one included (as "tests"), with Proxied; nil without.
	Routes, Gossip *Mesh

	t      testing.TB
	cfg    config
	gossip string
}

const (
	// replicasMax is how many copies the streams have with enough Brokers.
	replicasMax    = 3
	defaultSize    = 100
	defaultHistory = 5 * time.Minute
	defaultKept    = 100
	// rejoinEvery is how soon two halves of the gossip that have given each
	// other up meet again.
	rejoinEvery = 5 * time.Second
	// brokerPartitions is the partition count with Brokers.
	brokerPartitions = 16
)

// config is what the options set.
type config struct {
	gateways  int
	apart     bool
	hookURL   string
	extra     string
	set       []string
	routers   int
	presence  int
	authsvc   int
	apis      int
	brokers   int
	proxied   bool
	smallDisk bool
	logDir    string
	size      int
	history   time.Duration
	kept      int // publications of a durable channel
	dev       bool
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

// Authorizers says how many authsvc there are with Apart; one unless told
// otherwise.
func Authorizers(n int) Option { return func(c *config) { c.authsvc = n } }

// APIs says how many api nodes there are with Apart; one unless told
// otherwise.
func APIs(n int) Option { return func(c *config) { c.apis = n } }

// Brokers has Apart use a cluster of n NATS servers, each a process of its
// own that may be killed and started again. Streams have a copy on each of
// up to three.
func Brokers(n int) Option { return func(c *config) { c.brokers = n } }

// Proxied has every process reach each of the Brokers through a proxy of its
// own, Node.Link, and puts proxies between the Brokers (Routes) and between
// the members of the gossip (Gossip).
func Proxied() Option { return func(c *config) { c.proxied = true } }

// History has durable channels keep so many publications for so long; 100 for
// five minutes unless told otherwise.
func History(size int, ttl time.Duration) Option {
	return func(c *config) { c.size, c.history = size, ttl }
}

// HistorySize is how many publications channels that begin with durable- keep
// (100).
func HistorySize(n int) Option { return func(c *config) { c.kept = n } }

// LogDir keeps all logs in this directory, a file for each process.
func LogDir(dir string) Option { return func(c *config) { c.logDir = dir } }

// Config adds YAML to every process's configuration.
func Config(yaml string) Option { return func(c *config) { c.extra = yaml } }

// Start starts a cluster and returns when all of it is ready.
func Start(t testing.TB, options ...Option) *Cluster {
	t.Helper()
	c := &Cluster{t: t, cfg: config{history: defaultHistory, kept: defaultKept}}
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
	if c.cfg.brokers > 0 {
		c.startBrokers()
	} else {
		c.NATS = natstest.Server(c.t)
	}
	if c.cfg.proxied {
		c.Gossip = newMesh(c.t)
	}
	c.gossip = c.seed()
	for _, service := range []struct {
		role  string
		count int
	}{{"router", c.cfg.routers}, {"authsvc", c.cfg.authsvc}, {"presence", c.cfg.presence}, {"api", c.cfg.apis}} {
		c.Node(service.role, service.role)
		for i := 1; i < service.count; i++ {
			c.Node(fmt.Sprint(service.role, "-", i), service.role)
		}
	}
	c.API = c.Named("api")
	for i := range c.cfg.gateways {
		c.Gateways = append(c.Gateways, c.Node(fmt.Sprint("gateway-", i), "gateway"))
	}
}

// seedName is how this process is called in the gossip.
const seedName = "tests"

// seed starts a gossip member of this process, which the others join.
func (c *Cluster) seed() string {
	c.t.Helper()
	cfg := cluster.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	if c.Gossip != nil {
		cfg.Listen, cfg.Advertise = c.joinGossip(seedName, os.Getpid)
	}
	member := cluster.Member{Node: seedName, Incarnation: cluster.NewIncarnation()}
	m, err := cluster.New(cfg, member, slog.New(slog.DiscardHandler))
	if err != nil {
		c.t.Fatalf("start the gossip seed: %v", err)
	}
	c.t.Cleanup(func() { _ = m.Close() })
	return m.Addr()
}

// joinGossip finds an address for a member of the gossip and puts a proxy before
// it.
func (c *Cluster) joinGossip(name string, process func() int) (listen, advertise string) {
	c.t.Helper()
	listen = loopback.Addr(c.t)
	return listen, c.Gossip.join(name, listen, process, true)
}

// Node starts one more process with the given role ("" for all) and does not
// wait for it.
func (c *Cluster) Node(name, role string) *Node {
	c.t.Helper()
	dir := filepath.Join(c.t.TempDir(), name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		c.t.Fatal(err)
	}
	n := &Node{Process: Process{Name: name, t: c.t}, addresses: filepath.Join(dir, "addresses.json")}
	if c.cfg.proxied {
		n.Link = newLink(c.t, c.Brokers)
	}
	file := filepath.Join(dir, "carillon.yaml")
	if err := os.WriteFile(file, []byte(c.yaml(n, dir)), 0o600); err != nil {
		c.t.Fatal(err)
	}
	n.command = c.command(file, n.addresses, role)
	if c.cfg.logDir != "" {
		n.keepLog(filepath.Join(c.cfg.logDir, name+".log"))
	}
	n.start()
	n.stopAtEnd()
	c.Nodes = append(c.Nodes, n)
	return n
}

func (c *Cluster) command(file, addresses, role string) func() *exec.Cmd {
	args := []string{"serve", "--config", file, "--addresses-file", addresses}
	if c.cfg.dev {
		args = append(args, "--dev")
	}
	if role != "" {
		args = append(args, "--roles", role)
	}
	for _, pair := range c.cfg.set {
		args = append(args, "--set", pair)
	}
	return func() *exec.Cmd {
		cmd := Command(c.t, nil, args...)
		if c.cfg.smallDisk {
			return onSmallDisk(cmd, c.disk(filepath.Dir(file)))
		}
		return cmd
	}
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

func (c *Cluster) yaml(n *Node, dir string) string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("node: {name: %s}", n.Name)
	p("log: {level: info, format: text}")
	p("ops: {listen: \"127.0.0.1:0\", pprof: true}")
	p("gateway: {listen: \"127.0.0.1:0\", drain: {propagation: 0s, window: 100ms, slack: 2s}}")
	p("api: {listen: \"127.0.0.1:0\", webhook: {replicas: %d}}", max(1, min(len(c.Brokers), replicasMax)))
	if !c.cfg.apart {
		if c.cfg.smallDisk {
			dir = c.disk(dir)
		}
		p("embedded: {dir: %s, max_store: 2GiB}", dir)
	} else {
		p("nats: {urls: [%s]}", strings.Join(c.brokerURLs(n), ", "))
		if len(c.Brokers) > 0 {
			replicas := min(len(c.Brokers), replicasMax)
			p("router: {partitions: %d, replicas: %d}\npresence: {replicas: %d}", brokerPartitions, replicas, replicas)
		}
		listen, advertise := "127.0.0.1:0", ""
		if c.Gossip != nil {
			listen, advertise = c.joinGossip(n.Name, n.PID)
		}
		p("cluster: {listen: %q, advertise: %q, seeds: [%q], rejoin_interval: %s}", listen, advertise, c.gossip, rejoinEvery)
	}
	p("apps:")
	p("  - id: %q", AppID)
	p("    keys: [{key: %s, secret: %s}, {key: second-key, secret: second-secret}]", Key, Secret)
	p("    client_events: true\n    subscription_count: true\n    watchlist: true")
	p("    policies:")
	p("      - {match: \"durable-*\", history: {size: %d, ttl: %s, recover: true}}", c.cfg.kept, c.cfg.history)
	p("      - {match: \"long-*\", history: {size: 10000, ttl: 5m, recover: true}}")
	p("      - {match: \"centrifugo:log-*\", history: {size: %d, ttl: %s, recover: true}, publish: anyone, read_history: anyone, delta: true}", c.cfg.kept, c.cfg.history)
	p("      - {match: \"centrifugo:room-*\", presence: true, join_leave: true, read_presence: subscribers}")
	p("      - {match: \"centrifugo:last-*\", cache_ttl: 5m, publish: anyone}")
	p("      - {match: \"room:*\", presence: true, history: {size: 10, ttl: 1m, recover: true}}")
	p("      - {match: \"tags-*\", tags_filter: true}")
	p("      - {match: \"open-*\", publish: anyone}")
	p("    centrifugo: {enabled: true, anonymous: true, token: {hmac_secret: %s}, api_keys: [{name: tests, secret: %s}]}", Secret, APIKey)
	if c.cfg.hookURL != "" {
		p("    webhooks: [{url: %q}]", c.cfg.hookURL)
	}
	b.WriteString(c.cfg.extra)
	return b.String()
}
