package gateway

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/kit/config"
)

// Role is the role of a gateway in the membership.
const Role = "gateway"

// loopsMax is what a socket id has room for.
const loopsMax = 256

// hookQueueMax is a quarter of a gigabyte of events.
const hookQueueMax = 1 << 20

// memoryMin is the least that connections can be told to do with.
const memoryMin = 1 << 20

// Config is the gateway's section of the configuration.
type Config struct {
	Listen     string `yaml:"listen" doc:"address of the public port: clients, and HTTP requests where the API is in the same process; port 0 picks a free one"`
	PathPrefix string `yaml:"path_prefix" doc:"path that a proxy in front adds, such as /pusher; connections are accepted with and without it"`
	Loops      int    `yaml:"loops" doc:"event loops, each keeps one core busy; 0 leaves one core to everything else"`

	TLS    TLSConfig    `yaml:"tls"`
	Limits LimitsConfig `yaml:"limits"`
	Recent RecentConfig `yaml:"recent"`
	Drain  DrainConfig  `yaml:"drain"`

	MaxConnectionAge    time.Duration `yaml:"max_connection_age" doc:"age at which a client is asked to reconnect (4200), so that added nodes get their share; 0 is none"`
	ConnectionAgeJitter float64       `yaml:"connection_age_jitter" doc:"share of max_connection_age, 0 to 1, by which ages are shortened at random: what came at once goes a few at a time"`

	HookQueue int `yaml:"hook_queue" doc:"webhook events about clients that may wait for their stream; more are dropped and counted"`

	// Partitions is the partition count of the cluster; the assembler sets it.
	Partitions int `yaml:"-"`
}

// TLSConfig names PEM files. Without them the port is plain, for a proxy that
// ends TLS.
type TLSConfig struct {
	Cert string `yaml:"cert" doc:"file with the certificate chain; with it the gateway itself ends TLS; read again when it changes"`
	Key  string `yaml:"key" doc:"file with the certificate's key"`
}

// LimitsConfig bounds what clients can take. Limits of an app are in apps.
type LimitsConfig struct {
	Connections  int           `yaml:"connections" doc:"connections of this node; more are answered 503"`
	PerAddress   int           `yaml:"connections_per_address" doc:"connections of one peer address (of IPv6 its first 64 bits); more are answered 429; 0 is no limit, which it must be behind a proxy: its address is the only one then"`
	ConnectRate  int           `yaml:"connect_rate" doc:"clients admitted per second, a second's worth at once; more are answered 503; 0 is no limit"`
	MessageBytes config.Bytes  `yaml:"message_bytes" doc:"one message of a client; larger ones close it (1009)"`
	OutboxBytes  config.Bytes  `yaml:"outbox_bytes" doc:"what a client may leave unread in the gateway before it is closed as slow, besides one answer to it alone"`
	Memory       config.Bytes  `yaml:"memory" doc:"what outboxes, and connections at 1KiB each (with TLS in the gateway 33KiB), may take together: near it the clients that read slowest are closed (4100), at it new ones are answered 503; 0: half of GOMEMLIMIT or of the container's memory, if there is one"`
	OutboxAge    time.Duration `yaml:"outbox_age" doc:"how long a client may leave it unread"`
	SendBuffer   config.Bytes  `yaml:"send_buffer" doc:"what the kernel buffers besides, per connection"`
	Mailbox      int           `yaml:"mailbox" doc:"items that wait for a loop before senders are refused"`
	HeadTimeout  time.Duration `yaml:"head_timeout" doc:"how long a client may take to send its request head"`
	HTTPPending  int           `yaml:"http_pending" doc:"HTTP connections that wait for their handler; more are answered 503"`
}

// RecentConfig is what a gateway remembers of durable channels, so that a
// crowd that comes back is answered from its memory and not from the routers'.
// It takes nothing unless a policy has history.recover.
type RecentConfig struct {
	Bytes config.Bytes  `yaml:"bytes" doc:"memory for the newest publications, all partitions together; the oldest go first; 0 keeps none"`
	Age   time.Duration `yaml:"age" doc:"how long they are kept"`
}

// DrainConfig is how a gateway leaves. All of it together must fit into
// shutdown.grace.
type DrainConfig struct {
	Propagation time.Duration `yaml:"propagation" doc:"how long connections are still accepted after readiness went off, for balancers to notice"`
	Window      time.Duration `yaml:"window" doc:"clients are asked to reconnect evenly over this time"`
	Slack       time.Duration `yaml:"slack" doc:"how long the last ones may take to go"`
	CutOff      time.Duration `yaml:"cut_off" doc:"clients are asked to reconnect elsewhere when this node has lost NATS for so long and another gateway has not; 0 is never"`
}

// DefaultConfig listens on port 6001 of all addresses and is for a cluster of
// four partitions.
func DefaultConfig() Config {
	return Config{
		Listen: ":6001", Partitions: 4, ConnectionAgeJitter: 0.25, HookQueue: 65_536,
		Limits: LimitsConfig{
			Connections: 1_000_000, MessageBytes: 64 << 10, OutboxBytes: 256 << 10, OutboxAge: 10 * time.Second,
			SendBuffer: 64 << 10, Mailbox: 65_536, HeadTimeout: 10 * time.Second, HTTPPending: 1024,
		},
		Recent: RecentConfig{Bytes: 64 << 20, Age: 30 * time.Second},
		Drain:  DrainConfig{Propagation: 5 * time.Second, Window: 40 * time.Second, Slack: 10 * time.Second, CutOff: 20 * time.Second},
	}
}

// Validate reports what can't work.
func (c Config) Validate() error {
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return fmt.Errorf("listen is %q, want host:port or :port", c.Listen)
	}
	if c.PathPrefix != "" && !strings.HasPrefix(c.PathPrefix, "/") {
		return fmt.Errorf("path_prefix is %q, want it to begin with a slash", c.PathPrefix)
	}
	if c.Loops < 0 || c.Loops > loopsMax {
		return fmt.Errorf("loops is %d, want 0 to %d", c.Loops, loopsMax)
	}
	if c.MaxConnectionAge != 0 && c.MaxConnectionAge < time.Second {
		return fmt.Errorf("max_connection_age is %s, want at least 1s, or 0s for none", c.MaxConnectionAge)
	}
	if j := c.ConnectionAgeJitter; !(j >= 0 && j <= 1) {
		return fmt.Errorf("connection_age_jitter is %v, want 0 to 1", j)
	}
	if c.HookQueue < 1 || c.HookQueue > hookQueueMax {
		return fmt.Errorf("hook_queue is %d, want 1 to %d", c.HookQueue, hookQueueMax)
	}
	if c.Partitions < 1 {
		return fmt.Errorf("the cluster has %d partitions, want 1 or more", c.Partitions)
	}
	return nil
}

// Validate reports files that go together and can't be read.
func (c TLSConfig) Validate() error {
	if (c.Cert == "") != (c.Key == "") {
		return errors.New("cert and key go together, only one of them is set")
	}
	if c.Cert == "" {
		return nil
	}
	if _, err := tls.LoadX509KeyPair(c.Cert, c.Key); err != nil {
		return fmt.Errorf("cert and key can't be used: %w", err)
	}
	return nil
}

// Validate reports limits that let nobody in.
func (c LimitsConfig) Validate() error {
	for _, f := range []struct {
		name  string
		value int64
		least int64
	}{
		{"connections", int64(c.Connections), 1},
		{"connections_per_address", int64(c.PerAddress), 0},
		{"connect_rate", int64(c.ConnectRate), 0},
		{"message_bytes", int64(c.MessageBytes), 1 << 10},
		{"outbox_bytes", int64(c.OutboxBytes), 4 << 10},
		{"outbox_age", int64(c.OutboxAge), int64(time.Millisecond)},
		{"send_buffer", int64(c.SendBuffer), 4 << 10},
		{"mailbox", int64(c.Mailbox), 64},
		{"head_timeout", int64(c.HeadTimeout), int64(time.Millisecond)},
		{"http_pending", int64(c.HTTPPending), 1},
	} {
		if f.value < f.least {
			return fmt.Errorf("%s is %d, want at least %d", f.name, f.value, f.least)
		}
	}
	if c.Memory != 0 && c.Memory < memoryMin {
		return fmt.Errorf("memory is %d, want at least %d, or 0 for what the process has", c.Memory, memoryMin)
	}
	return nil
}

// Validate reports negative limits.
func (c RecentConfig) Validate() error {
	if c.Bytes < 0 || c.Age < 0 {
		return errors.New("bytes and age must not be negative; 0 keeps nothing")
	}
	return nil
}

// Validate reports negative times.
func (c DrainConfig) Validate() error {
	if c.Propagation < 0 || c.Window < 0 || c.Slack < 0 || c.CutOff < 0 {
		return errors.New("propagation, window, slack and cut_off must not be negative")
	}
	return nil
}

// Total is how long a drain takes at most.
func (c DrainConfig) Total() time.Duration { return c.Propagation + c.Window + c.Slack }

// validate checks cfg with all its sections: assemblers that do not load it
// from a file come here unchecked.
func (c Config) validate() error {
	for _, check := range []struct {
		section string
		v       config.Validator
	}{{"", c}, {"tls: ", c.TLS}, {"limits: ", c.Limits}, {"recent: ", c.Recent}, {"drain: ", c.Drain}} {
		if err := check.v.Validate(); err != nil {
			return fmt.Errorf("gateway: %s%w", check.section, err)
		}
	}
	return nil
}

// loops is the configured number of loops or what suits the machine: a loop
// is a busy thread, and NATS, HTTP and the garbage collector need one too.
func (c Config) loops() int {
	if c.Loops > 0 {
		return c.Loops
	}
	return min(max(runtime.GOMAXPROCS(0)-1, 1), loopsMax)
}
