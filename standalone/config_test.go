package standalone_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/kit/config"
	"github.com/carillon-rt/carillon/standalone"
)

const oneApp = "apps:\n  - {id: \"1\", keys: [{key: k, secret: s}]}\n"

func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		name, file string
		set        []string
		want       []string // all of them in one message
	}{
		{"no apps", "", nil, []string{"apps", "there are none", "--dev"}},
		{"unknown key", oneApp + "gatewey: {}\n", nil, []string{"carillon.yaml:3", "gatewey", "did you mean gateway?"}},
		{"wrong type", oneApp + "shutdown: {grace: soon}\n", nil, []string{"carillon.yaml:3", "shutdown.grace", "soon"}},
		{"bad app", "apps: [{id: \"1\"}]\n", nil, []string{"app 1 has no keys"}},
		{"two apps with one key", "apps:\n- {id: \"1\", keys: [{key: k, secret: s}]}\n- {id: \"2\", keys: [{key: k, secret: s}]}\n", nil, []string{`"k"`, "app 1", "app 2"}},
		{"no secret", "apps: [{id: \"1\", keys: [{key: k}]}]\n", nil, []string{"apps[0].keys[0].secret", "secret_file"}},
		{"unknown role", oneApp, []string{"roles=gateway,rooter"}, []string{`"rooter" is not a role`, "router"}},
		{"a part without NATS", oneApp, []string{"roles=gateway"}, []string{"nats.urls", "only gateway"}},
		{"a part that nobody finds", oneApp, []string{"roles=gateway", "nats.urls=nats://127.0.0.1:4222"}, []string{"cluster.listen", ":7946"}},
		{"demo page without the rest", oneApp, []string{"roles=gateway", "nats.urls=nats://127.0.0.1:4222", "cluster.listen=:7946", "dev.page=true"}, []string{"dev.page"}},
		{"an embedded cluster without routes", oneApp, []string{"cluster.listen=:7946", "embedded.cluster.name=c", "embedded.cluster.listen=:6222"}, []string{"embedded", "cluster.routes is empty"}},
		{"an embedded cluster without gossip", oneApp, []string{"embedded.cluster.name=c", "embedded.cluster.listen=:6222", "embedded.cluster.routes=nats-route://h:6222"}, []string{"cluster.listen", "one of several"}},
		{"a node that would be all nodes", oneApp, []string{"node.name=*"}, []string{"node", `name is "*"`}},
		{"a node with a space", oneApp, []string{"node.name=node 1"}, []string{"node", `name is "node 1"`, "node-1"}},
		{"a node that ends in a dot", oneApp, []string{"node.name=a.example."}, []string{"node", `name is "a.example."`}},
		{"a drain that is cut short", oneApp, []string{"gateway.drain.window=2m"}, []string{"shutdown.grace", "is 1m0s", "2m15s"}},
		{"copies on servers that do not exist", oneApp, []string{"router.replicas=3"}, []string{"router.replicas", "is 3", "embedded.cluster"}},
		{"copies of the webhooks' queue", oneApp, []string{"presence.replicas=3", "api.webhook.replicas=5"}, []string{"presence.replicas", "api.webhook.replicas"}},
		{"bad address", oneApp, []string{"gateway.listen=6001"}, []string{"gateway", "6001"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := load(t, c.file, c.set...)
			if err == nil {
				t.Fatal("was accepted")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("message %q lacks %q", err, want)
				}
			}
		})
	}
}

func load(t *testing.T, file string, set ...string) (standalone.Config, error) {
	t.Helper()
	name := filepath.Join(t.TempDir(), "carillon.yaml")
	if err := os.WriteFile(name, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := standalone.DefaultConfig()
	err := standalone.Load(config.Source{File: name, Set: set}, &cfg)
	return cfg, err
}

// Servers of a cluster need names of their own, without being told twice.
func TestEmbeddedServerIsNamedAfterItsNode(t *testing.T) {
	cfg, err := load(t, oneApp, "node.name=a", "cluster.listen=:7946",
		"embedded.cluster.name=c", "embedded.cluster.listen=:6222", "embedded.cluster.routes=nats-route://h:6222")
	if err != nil || cfg.Embedded.Name != "a" {
		t.Errorf("named %q, want a (%v)", cfg.Embedded.Name, err)
	}
}

func TestSettled(t *testing.T) {
	const others = "nats.urls=nats://127.0.0.1:4222"
	for _, c := range []struct {
		name     string
		set      []string
		api      string
		embedded bool
	}{
		{"everything here: the API is on the public port", nil, "", true},
		{"the API alone has a port of its own", []string{others, "cluster.listen=:7946", "roles=api"}, ":6002", false},
		{"unless it is told another", []string{others, "cluster.listen=:7946", "roles=api", "api.listen=:7000"}, ":7000", false},
		{"gateways do without secrets", []string{others, "cluster.listen=:7946", "roles=gateway", `apps=[{id: "1", keys: [{key: k}]}]`}, "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg, err := load(t, oneApp, c.set...)
			if err != nil {
				t.Fatal(err)
			}
			if cfg.API.Listen != c.api || (cfg.NATS.InProcess != nil) != c.embedded {
				t.Errorf("API at %q, embedded NATS %v", cfg.API.Listen, cfg.NATS.InProcess != nil)
			}
		})
	}
}
