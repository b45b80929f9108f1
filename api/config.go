package api

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/api/internal/centrifugoapi"
	"github.com/carillon-rt/carillon/api/internal/webhook"
)

// Config of the API service.
type Config struct {
	Listen     string `yaml:"listen" doc:"address of the API's own port; empty: none, the assembler serves Handler"`
	PathPrefix string `yaml:"path_prefix" doc:"path that a proxy in front adds or strips, such as /pusher; signatures are accepted with and without it"`
	BodyMax    int64  `yaml:"body_max" doc:"bytes of a request body"`

	PublishTimeout time.Duration `yaml:"publish_timeout" doc:"how long a trigger waits for its receipts before it answers 503"`
	QueryTimeout   time.Duration `yaml:"query_timeout" doc:"how long a read waits for the presence owners and routers before it answers 503"`
	ListMax        int           `yaml:"list_max" doc:"channels in the answer to a list; more are cut off and the answer is marked incomplete"`
	HeaderTimeout  time.Duration `yaml:"header_timeout" doc:"how long a client may take to send the head of a request"`
	ReadTimeout    time.Duration `yaml:"read_timeout" doc:"how long a client may take to send a whole request"`
	IdleTimeout    time.Duration `yaml:"idle_timeout" doc:"how long a connection is kept open between requests"`

	CentrifugoGRPC centrifugoapi.GRPCConfig `yaml:"centrifugo_grpc"`

	Webhook webhook.Config `yaml:"webhook"`

	// Partitions is the partition count of the cluster; the assembler sets it.
	Partitions int `yaml:"-"`
}

// DefaultConfig listens on port 6002 of all addresses and is for a cluster of four partitions.
func DefaultConfig() Config {
	return Config{
		Listen: ":6002", BodyMax: 2 << 20,
		PublishTimeout: 2 * time.Second, QueryTimeout: 2 * time.Second, ListMax: 200_000,
		HeaderTimeout: 5 * time.Second, ReadTimeout: 15 * time.Second, IdleTimeout: 120 * time.Second,
		Webhook: webhook.DefaultConfig(), Partitions: 4,
	}
}

// Validate says what is wrong and what would be right.
func (c Config) Validate() error {
	if c.Listen != "" {
		if _, _, err := net.SplitHostPort(c.Listen); err != nil {
			return fmt.Errorf("listen is %q, want host:port, :port or nothing", c.Listen)
		}
	}
	if c.PathPrefix != "" && !strings.HasPrefix(c.PathPrefix, "/") {
		return fmt.Errorf("path_prefix is %q, want it to begin with a slash", c.PathPrefix)
	}
	if c.Partitions < 1 {
		return fmt.Errorf("the cluster has %d partitions, want 1 or more", c.Partitions)
	}
	if c.BodyMax < 1 || c.ListMax < 1 {
		return errors.New("body_max and list_max must be more than 0")
	}
	for _, d := range []time.Duration{c.PublishTimeout, c.QueryTimeout, c.HeaderTimeout, c.ReadTimeout, c.IdleTimeout} {
		if d <= 0 {
			return errors.New("publish_timeout, query_timeout, header_timeout, read_timeout and idle_timeout must be more than 0")
		}
	}
	if err := c.CentrifugoGRPC.Validate(); err != nil {
		return fmt.Errorf("centrifugo_grpc: %w", err)
	}
	if err := c.Webhook.Validate(); err != nil {
		return fmt.Errorf("webhook: %w", err)
	}
	return nil
}
