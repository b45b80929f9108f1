package e2e

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/kit/loopback"
	"github.com/carillon-rt/carillon/tests/env"
	"github.com/carillon-rt/carillon/tests/hookapp"
)

const (
	tokenSecret = "token-secret"
	serverKey   = "server-api-key"
	hookSubject = "tests.hooks"
)

// carriers are the ways in which the application is asked; each has an app of
// that name whose hook is reached so.
var carriers = []string{"http", "grpc", "nats"}

// centrifugo starts two gateways and an application with an app for each of
// the carriers.
func centrifugo(t *testing.T, options ...env.Option) (c *env.Cluster, vars []string) {
	t.Helper()
	app := hookapp.New(t)
	urls := map[string]string{"http": app.HTTP(), "grpc": app.GRPC(), "nats": "nats:" + hookSubject}
	var yaml strings.Builder
	for _, carrier := range carriers {
		fmt.Fprintf(&yaml, `
  - id: %[1]s
    keys: [{key: key-%[1]s, secret: secret-%[1]s}]
    client_events: true
    hooks: [{name: app, url: %[2]q, timeout: 5s, include_meta: true}]
    policies:
      - {match: "chat:*", history: {size: 100, ttl: 5m, recover: true}, presence: true, join_leave: true, publish: subscribers, read_presence: subscribers, read_history: subscribers}
      - {match: "news:*", history: {size: 100, ttl: 5m, recover: true}}
      - {match: "delta:*", history: {size: 100, ttl: 5m, recover: true}, delta: true}
      - {match: "ask:*", history: {size: 100, ttl: 5m, recover: true}, publish_hook: app, subscribe_hook: app, sub_refresh_hook: app}
      - {match: "closed:*", private: true}
      - {match: "ann:*", subscribe_if: 'user == "ann"', publish_if: 'user == "ann"', publish: subscribers}
      - {match: "open:*", publish: anyone}
      - {match: "shut-*", private: true, publish: subscribers, presence: true, read_presence: subscribers, read_history: subscribers, history: {size: 10, ttl: 5m, recover: true}}
      - {match: "asked-*", subscribe_hook: app}
      - {match: "just-ann-*", subscribe_if: 'user == "ann"'}
      - {match: "mixed-*", history: {size: 10000, ttl: 5m, recover: true}, publish: anyone}
    centrifugo:
      enabled: true
      known_namespaces: true
      token: {hmac_secret: %[3]s}
      api_keys: [{secret: %[4]s-%[1]s}]
      connect_hook: app
      refresh_hook: app
      rpc: [{match: "*", hook: app}]
`, carrier, urls[carrier], tokenSecret, serverKey)
	}
	c = env.Start(t, append(options, env.Apart(2), env.Config(yaml.String()))...)
	app.NATS(c.NATS.URL(), hookSubject)
	vars = append(environment(t, c, loopback.Addr(t)), "CARILLON_APPS="+strings.Join(carriers, ","), "CARILLON_TOKEN_SECRET="+tokenSecret, "CARILLON_SERVER_KEY="+serverKey)
	return c, vars
}

// Centrifugo's SDKs with an application behind them.
func TestCentrifugoSDKs(t *testing.T) {
	_, vars := centrifugo(t)
	t.Run("node", func(t *testing.T) {
		run(t, "../sdk/node", vars, "node", "--test", "--test-force-exit", "--test-reporter=spec", "centrifuge.hooks.mjs")
	})
	t.Run("browser", func(t *testing.T) {
		run(t, "../sdk/node", vars, "node", "--test", "--test-force-exit", "--test-reporter=spec", "centrifuge.browser.mjs")
	})
	t.Run("unidirectional", func(t *testing.T) {
		run(t, "../sdk/node", vars, "node", "--test", "--test-force-exit", "--test-reporter=spec", "uni.browser.mjs")
	})
	t.Run("doors", func(t *testing.T) {
		run(t, "../sdk/node", vars, "node", "--test", "--test-force-exit", "--test-reporter=spec", "dialects.doors.mjs")
	})
	t.Run("python", func(t *testing.T) {
		run(t, "../sdk/python", vars, python(), "-W", "ignore", "-m", "pytest", "-q", "-p", "no:cacheprovider", "centrifuge_test.py")
	})
}

// A gateway dies under Centrifugo's clients.
func TestCentrifugoFailover(t *testing.T) {
	c, vars := centrifugo(t)
	var pids []string
	for _, g := range c.Gateways {
		pids = append(pids, strconv.Itoa(g.PID()))
	}
	vars = append(vars, "CARILLON_GATEWAY_PIDS="+strings.Join(pids, ","))
	run(t, "../sdk/node", vars, "node", "--test", "--test-force-exit", "--test-reporter=spec", "centrifuge.failover.mjs")
}

// The gateway dies that has the sessions of clients without WebSockets, of both
// protocols; their exchanges reach either of two.
func TestFailoverWithoutWebSockets(t *testing.T) {
	c, vars := centrifugo(t)
	balancer := env.NewBalancer(t, c.Gateways[0].Public())
	orders := make(chan func())
	do := map[string]func(){
		"/both": func() { balancer.Use(publics(c)...) },
		"/kill": func() {
			c.Gateways[0].Kill()
			balancer.Use(c.Gateways[1].Public())
		},
	}
	control := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		done := make(chan struct{})
		orders <- func() {
			defer close(done)
			do[r.URL.Path]()
		}
		<-done
	}))
	defer control.Close()
	vars = append(vars, "CARILLON_BALANCER="+balancer.Addr(), "CARILLON_CONTROL="+control.URL)
	ran := make(chan error, 1)
	var out bytes.Buffer
	go func() {
		ran <- script(t.Context(), &out, "../sdk/node", vars, "node", "--test", "--test-force-exit", "--test-reporter=spec", "fallback.failover.mjs").Run()
	}()
	for {
		select {
		case order := <-orders:
			order()
		case err := <-ran:
			if err != nil || !strings.Contains(out.String(), "pass 1") {
				t.Fatalf("%v\n%s", err, out.String())
			}
			return
		}
	}
}

// Clients of all dialects on one channel, while every gateway is restarted.
func TestOneChannelInEveryDialect(t *testing.T) {
	c, vars := centrifugo(t)
	balancer := env.NewBalancer(t, publics(c)...)
	asked, done := make(chan struct{}), make(chan struct{})
	control := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		asked <- struct{}{}
		<-done
	}))
	defer control.Close()
	vars = append(vars, "CARILLON_BALANCER="+balancer.Addr(), "CARILLON_CONTROL="+control.URL)
	ran := make(chan error, 1)
	var out bytes.Buffer
	go func() {
		cmd := script(t.Context(), &out, "../sdk/node", vars, "node", "--test", "--test-force-exit", "--test-reporter=spec", "dialects.roll.mjs")
		ran <- cmd.Run()
	}()
	select {
	case <-asked:
		for i, g := range c.Gateways {
			balancer.Use(c.Gateways[1-i].Public())
			g.Stop()
			g.Restart()
			balancer.Use(publics(c)...)
		}
		close(done)
	case err := <-ran:
		t.Fatalf("the clients ended before the gateways were restarted: %v\n%s", err, out.String())
	}
	if err := <-ran; err != nil || !strings.Contains(out.String(), "pass 1") {
		t.Fatalf("%v\n%s", err, out.String())
	}
}
