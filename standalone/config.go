package standalone

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"

	"github.com/carillon-rt/carillon/api"
	"github.com/carillon-rt/carillon/authsvc"
	"github.com/carillon-rt/carillon/gateway"
	"github.com/carillon-rt/carillon/kit/config"
	"github.com/carillon-rt/carillon/kit/natsembed"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/presence"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/router"
)

// Ports that the binary uses unless told otherwise.
const (
	PublicPort = "6001" // clients and the HTTP API
	OpsPort    = "9601" // health, metrics, debug pages
	GossipPort = "7946" // between nodes
)

// Config is everything that the binary can be told. One file serves all nodes of an installation: a node reads the sections of the
// roles that it runs.
type Config struct {
	Roles          Roles `yaml:"roles" doc:"services that this node runs: router, presence, authsvc, api, gateway; empty is all"`
	service.Common `yaml:",inline"`
	Apps           []app.App        `yaml:"apps" doc:"applications that may connect and publish"`
	Embedded       natsembed.Config `yaml:"embedded"`
	Gateway        gateway.Config   `yaml:"gateway"`
	Router         router.Config    `yaml:"router"`
	Auth           authsvc.Config   `yaml:"authsvc"`
	Presence       presence.Config  `yaml:"presence"`
	API            api.Config       `yaml:"api"`
	Dev            DevConfig        `yaml:"dev"`
}

// DevConfig is for development only.
type DevConfig struct {
	Page          bool `yaml:"page" doc:"serve the demo page at /; it signs with the first app's secret for whoever asks, so never in production"`
	TemporaryData bool `yaml:"temporary_data" doc:"keep the embedded NATS server's files in a new directory that is removed at the end, instead of embedded.dir"`
}

// DefaultConfig runs every role on an embedded NATS server with its files in ./data, alone. It has no apps.
func DefaultConfig() Config {
	cfg := Config{
		Common: service.DefaultCommon(), Embedded: natsembed.DefaultConfig(),
		Gateway: gateway.DefaultConfig(), Router: router.DefaultConfig(), Auth: authsvc.DefaultConfig(),
		Presence: presence.DefaultConfig(), API: api.DefaultConfig(),
	}
	cfg.NATS.URLs, cfg.NATS.InProcess = nil, embeddedNATS{}
	cfg.Cluster.Listen = ""
	cfg.Ops.Listen = ":" + OpsPort
	cfg.Gateway.Listen = ":" + PublicPort
	cfg.API.Listen = ""
	return cfg
}

// embeddedNATS stands in the configuration for the server that Run starts.
type embeddedNATS struct{}

// InProcessConn is never called: Run puts the server in its place.
func (embeddedNATS) InProcessConn() (net.Conn, error) {
	return nil, errors.New("the embedded NATS server has not been started")
}

// Load reads the configuration from src over the defaults in cfg and settles what depends on several keys. The error has a line for each
// mistake, with its place and what would be right.
func Load(src config.Source, cfg *Config) error {
	src.Env = slices.DeleteFunc(slices.Clone(src.Env), func(pair string) bool {
		return strings.HasPrefix(pair, ConfigVariable+"=")
	})
	if err := src.Load(cfg); err != nil {
		return err
	}
	cfg.settle()
	return nil
}

// ConfigVariable is the environment variable that names the configuration file.
const ConfigVariable = config.EnvPrefix + "CONFIG"

// embedded says whether this node runs its own NATS server.
func (c *Config) embedded() bool { return len(c.NATS.URLs) == 0 }

// alone says whether no other node can exist.
func (c *Config) alone() bool { return c.embedded() && c.Embedded.Cluster.Name == "" && c.Roles.All() }

// settle fills in what follows from other keys.
func (c *Config) settle() {
	if len(c.Roles) == 0 {
		c.Roles = AllRoles()
	}
	for i, a := range c.Apps {
		c.Apps[i] = a.WithDefaults()
	}
	if !c.embedded() {
		c.NATS.InProcess = nil
	} else if c.NATS.User == "" && c.NATS.Token == "" && c.NATS.CredsFile == "" && c.NATS.NKeyFile == "" {
		c.NATS.User, c.NATS.Password = c.Embedded.User, c.Embedded.Password // our own server asks this process too
	}
	if c.Embedded.Name == "" && c.Embedded.Cluster.Name != "" {
		c.Embedded.Name = c.NodeName()
	}
	if c.API.Listen == "" && !c.Roles.Has(Gateway) {
		c.API.Listen = api.DefaultConfig().Listen
	}
}

// Validate reports what no section can see on its own.
func (c *Config) Validate() error {
	if c.Roles.Validate() != nil {
		return nil // reported by its own check; the rest would be noise
	}
	var errs []error
	if !c.Roles.All() && c.embedded() && c.Embedded.Listen == "" {
		errs = append(errs, config.FieldErrorf("roles", "only %s would run, and nobody else could reach this node's own NATS server: set nats.urls to a shared one, or embedded.listen",
			strings.Join(c.Roles.Names(), ", ")))
	}
	if !c.alone() && c.Cluster.Listen == "" {
		errs = append(errs, config.FieldErrorf("cluster.listen", "is empty, but this node is one of several: set it, such as :%s, and cluster.seeds to the address of another node", GossipPort))
	}
	if len(c.Apps) == 0 {
		errs = append(errs, config.FieldErrorf("apps", "there are none, so nobody could connect: add one, such as {id: \"1001\", keys: [{key: my-key, secret: my-secret}]}, or start with --dev"))
	} else if _, err := app.NewRegistry(c.Apps); err != nil && c.validApps() {
		errs = append(errs, config.FieldErrorf("apps", "%w", err))
	}
	for i, a := range c.Apps {
		errs = append(errs, authsvc.CheckApp(fmt.Sprintf("apps[%d]", i), a)...)
	}
	if drain := c.Gateway.Drain.Total(); c.Roles.Has(Gateway) && c.Shutdown.Grace <= drain {
		errs = append(errs, config.FieldErrorf("shutdown.grace", "is %s, want more than the %s that propagation, window and slack of gateway.drain may take: the node would end in the middle", c.Shutdown.Grace, drain))
	}
	if c.embedded() && c.Embedded.Cluster.Name == "" {
		errs = append(errs, c.copiesElsewhere()...)
	}
	if c.needsSecrets() {
		errs = append(errs, c.missingSecrets()...)
	}
	if c.Roles.Has(Auth) {
		errs = append(errs, c.missingCredentials()...)
	}
	if c.Dev.Page && !c.Roles.All() {
		errs = append(errs, config.FieldErrorf("dev.page", "needs every role in this process"))
	}
	return errors.Join(errs...)
}

// copiesElsewhere reports streams with copies on servers that do not exist.
func (c *Config) copiesElsewhere() []error {
	var errs []error
	for _, r := range []struct {
		key      string
		role     Role
		replicas int
	}{
		{"router.replicas", Router, c.Router.Replicas},
		{"presence.replicas", Presence, c.Presence.Replicas},
		{"api.webhook.replicas", API, c.API.Webhook.Replicas},
	} {
		if c.Roles.Has(r.role) && r.replicas > 1 {
			errs = append(errs, config.FieldErrorf(r.key, "is %d, but this node's NATS server is the only one: want 1, or embedded.cluster on three nodes", r.replicas))
		}
	}
	return errs
}

// validApps says whether each app is right by itself; what is wrong with one is reported with its place.
func (c *Config) validApps() bool {
	return !slices.ContainsFunc(c.Apps, func(a app.App) bool { return a.Validate() != nil })
}

func (c *Config) needsSecrets() bool { return c.Roles.Has(Auth) || c.Roles.Has(API) }

// missingSecrets reports keys without a secret: gateways, routers and presence do without, authsvc and api can't sign.
func (c *Config) missingSecrets() []error {
	var errs []error
	for i, a := range c.Apps {
		for j, k := range a.Keys {
			if k.Secret == "" {
				errs = append(errs, config.FieldErrorf(fmt.Sprintf("apps[%d].keys[%d].secret", i, j), "is empty: authsvc and api sign with it; give secret or secret_file"))
			}
		}
		for j, k := range a.Centrifugo.APIKeys {
			if k.Secret == "" && c.Roles.Has(API) {
				errs = append(errs, config.FieldErrorf(fmt.Sprintf("apps[%d].centrifugo.api_keys[%d].secret", i, j), "is empty: anybody would have it; give secret or secret_file"))
			}
		}
	}
	return errs
}

// missingCredentials reports what authsvc alone needs: addresses of hooks, and a way for Centrifugo's clients to connect.
func (c *Config) missingCredentials() []error {
	var errs []error
	for i, a := range c.Apps {
		for j, h := range a.Hooks {
			if h.URL == "" {
				errs = append(errs, config.FieldErrorf(fmt.Sprintf("apps[%d].hooks[%d].url", i, j), "is empty: authsvc asks there; give url, such as https://example.com/hooks, or url_file"))
			}
		}
		if f := a.Centrifugo; f.Enabled && !f.Anonymous && f.ConnectHook == "" && !f.Token.IsSet() {
			errs = append(errs, config.FieldErrorf(fmt.Sprintf("apps[%d].centrifugo", i), "nobody could connect: set token (hmac_secret, public_keys or jwks_url), connect_hook or anonymous: true"))
		}
	}
	return errs
}
