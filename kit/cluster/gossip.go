package cluster

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/memberlist"
)

const (
	joinFirstWait = 100 * time.Millisecond
	joinMaxWait   = 5 * time.Second
	leaveTimeout  = 2 * time.Second

	resolveTimeout = 5 * time.Second
)

// Config says how a node finds and talks to the others.
type Config struct {
	Listen        string        `yaml:"listen" doc:"gossip address, TCP and UDP; empty: the node is alone"`
	Advertise     string        `yaml:"advertise" doc:"host:port that others reach this node at; empty: found from the interfaces"`
	Seeds         []string      `yaml:"seeds" doc:"addresses or DNS names (host:port) of nodes to join; a name may stand for many"`
	EncryptionKey string        `yaml:"encryption_key" secret:"true" doc:"base64 of 16, 24 or 32 bytes that all nodes share; empty: gossip in clear"`
	Label         string        `yaml:"label" doc:"name of the cluster; nodes with another label are not heard"`
	Rejoin        time.Duration `yaml:"rejoin_interval" doc:"how often the seeds are joined again, which heals a split"`
}

// DefaultConfig listens on the usual gossip port and joins nobody.
func DefaultConfig() Config {
	return Config{Listen: ":7946", Label: "carillon", Rejoin: 30 * time.Second}
}

// Validate reports addresses and keys that can't be used.
func (c Config) Validate() error {
	if c.Listen == "" {
		if len(c.Seeds) > 0 {
			return errors.New("seeds are set but listen is empty: a node that is alone joins nobody; set listen, such as :7946")
		}
		return nil
	}
	for _, addr := range []struct{ name, value string }{{"listen", c.Listen}, {"advertise", c.Advertise}} {
		if addr.value == "" {
			continue
		}
		if _, _, err := splitAddr(addr.value); err != nil {
			return fmt.Errorf("%s is %q, want host:port or :port", addr.name, addr.value)
		}
	}
	if _, err := c.key(); err != nil {
		return err
	}
	if c.Rejoin <= 0 {
		return fmt.Errorf("rejoin_interval is %s, want more than 0", c.Rejoin)
	}
	return nil
}

func (c Config) key() ([]byte, error) {
	if c.EncryptionKey == "" {
		return nil, nil
	}
	key, err := base64.StdEncoding.DecodeString(c.EncryptionKey)
	if err != nil || !slices.Contains([]int{16, 24, 32}, len(key)) {
		return nil, errors.New("encryption_key is not base64 of 16, 24 or 32 bytes; make one with: openssl rand -base64 32")
	}
	return key, nil
}

func splitAddr(addr string) (host string, port int, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	return host, int(n), err
}

// resolve gives the address with an IP in place of a name: memberlist would take a name that it is to listen at for every address of the
// machine.
func resolve(addr string) (ip string, port int, err error) {
	host, port, err := splitAddr(addr)
	if err != nil || host == "" || net.ParseIP(host) != nil {
		return host, port, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), resolveTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil || len(ips) == 0 {
		return "", 0, fmt.Errorf("find the address of %s: %w", host, err)
	}
	best := ips[0].Unmap()
	for _, other := range ips {
		if other = other.Unmap(); other.Is4() && !best.Is4() {
			best = other
		}
	}
	return best.String(), port, nil
}

// Cluster is the membership of a node that gossips.
type Cluster struct {
	// immutable after New
	*view // the Membership of what gossip says
	cfg   Config
	local Member
	log   *slog.Logger
	list  *memberlist.Memberlist
	meta  *atomic.Pointer[[]byte] // what the node says of itself

	mu     sync.Mutex
	closed bool // guarded by mu: memberlist panics when it is told to leave after its shutdown
}

var _ Membership = (*Cluster)(nil)

// New binds the gossip port and makes this node visible to who asks; memberlist's goroutines start here and end with Run, or with
// Close when Run is never called. An empty local.Addr is filled with the gossip address.
func New(cfg Config, local Member, log *slog.Logger) (*Cluster, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	if local.Node == "" || local.Incarnation == "" {
		return nil, errors.New("cluster: the local member needs a node name and an incarnation")
	}
	c := &Cluster{view: newView(), cfg: cfg, local: local, log: log, meta: &atomic.Pointer[[]byte]{}}
	mc, err := c.listConfig()
	if err != nil {
		return nil, err
	}
	if c.list, err = memberlist.Create(mc); err != nil {
		return nil, fmt.Errorf("bind gossip port (cluster.listen) %s: %w", cfg.Listen, err)
	}
	if c.local.Addr == "" {
		c.local.Addr = c.list.LocalNode().Address()
	}
	return c, nil
}

// listConfig tunes memberlist for failure detection in 1-2 s instead of 6-8 (measured with 3 to 100 members; nothing is
// falsely suspected on a machine with air; the awareness multiplier keeps a loaded one from accusing others).
func (c *Cluster) listConfig() (*memberlist.Config, error) {
	mc := memberlist.DefaultLANConfig()
	mc.ProbeInterval = 250 * time.Millisecond
	mc.ProbeTimeout = 150 * time.Millisecond
	mc.SuspicionMult = 3
	mc.SuspicionMaxTimeoutMult = 2
	mc.GossipInterval = 100 * time.Millisecond
	// Two nodes compare all they know so often (by default every 30 s): news that a busy network dropped gets through.
	mc.PushPullInterval = 5 * time.Second
	mc.TCPTimeout = time.Second
	mc.EnableCompression = false // packets are small; compressing them was a quarter of a gateway's allocations
	// A name of its own for each run: a restart with another address is then no conflict.
	mc.Name = c.local.Node + "/" + c.local.Incarnation
	mc.Label = c.cfg.Label
	var err error
	if mc.BindAddr, mc.BindPort, err = resolve(c.cfg.Listen); err != nil {
		return nil, fmt.Errorf("cluster.listen: %w", err)
	}
	if mc.BindAddr == "" {
		mc.BindAddr = "0.0.0.0"
	}
	mc.AdvertisePort = mc.BindPort
	if c.cfg.Advertise != "" {
		if mc.AdvertiseAddr, mc.AdvertisePort, err = resolve(c.cfg.Advertise); err != nil {
			return nil, fmt.Errorf("cluster.advertise: %w", err)
		}
	}
	if mc.SecretKey, err = c.cfg.key(); err != nil {
		return nil, err
	}
	if err := c.describe(c.local); err != nil {
		return nil, err
	}
	mc.Delegate = announcer{c.meta}
	mc.Events = listener{c.view, c.log}
	mc.LogOutput = logWriter{c.log}
	return mc, nil
}

// describe sets what the node says of itself.
func (c *Cluster) describe(m Member) error {
	meta, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode member: %w", err)
	}
	if len(meta) > memberlist.MetaMaxSize {
		return fmt.Errorf("member description takes %d bytes, gossip carries %d: shorten the node name", len(meta), memberlist.MetaMaxSize)
	}
	c.meta.Store(&meta)
	return nil
}

// SetAway tells the others whether this node has lost NATS; they learn of it within a second or two.
func (c *Cluster) SetAway(away bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil
	}
	m := c.local
	m.Away = away
	if err := c.describe(m); err != nil {
		return err
	}
	if err := c.list.UpdateNode(leaveTimeout); err != nil {
		return fmt.Errorf("tell the cluster that this node is away (%v): %w", away, err)
	}
	return nil
}

// Local implements Membership.
func (c *Cluster) Local() Member { return c.local }

// Addr returns the gossip host:port that others can join.
func (c *Cluster) Addr() string { return c.list.LocalNode().Address() }

// Run joins the seeds, again and again until it is not alone and at intervals after that, until ctx ends; then it tells the others
// that this node leaves and closes the port. In between it says in the log when another node goes by this one's name.
func (c *Cluster) Run(ctx context.Context) error {
	defer c.leave()
	wait, twin := joinFirstWait, Member{}
	for {
		if c.join() {
			wait = c.cfg.Rejoin
		} else {
			wait = min(2*wait, joinMaxWait)
		}
		before := twin
		if twin = c.twin(c.local); twin.Node != "" && twin.Incarnation == before.Incarnation { // not a run that has just ended
			c.log.Error("another node has the name of this one: give each its own (node.name)", "node", twin.Node, "addr", twin.Addr)
		}
		timer := time.NewTimer(wait/2 + rand.N(wait))
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		}
	}
}

// join reports whether somebody else is there; a node without seeds has nobody to wait for. Its own address may be among them, and it
// reaches itself.
func (c *Cluster) join() bool {
	if len(c.cfg.Seeds) == 0 {
		return true
	}
	n, err := c.list.Join(c.cfg.Seeds)
	if n == 0 {
		c.log.Warn("no cluster seed answers", "seeds", c.cfg.Seeds, "err", err)
	}
	return c.list.NumMembers() > 1
}

func (c *Cluster) leave() {
	c.mu.Lock()
	if !c.closed {
		if err := c.list.Leave(leaveTimeout); err != nil {
			c.log.Warn("leave cluster", "err", err)
		}
	}
	c.mu.Unlock()
	if err := c.Close(); err != nil {
		c.log.Warn("close gossip port", "err", err)
	}
}

// Close stops gossip at once, as a crash would: the others find out by themselves. A second call does nothing.
func (c *Cluster) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return c.list.Shutdown()
}
