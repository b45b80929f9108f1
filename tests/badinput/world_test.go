// Package badinput gives Carillon what it must not take, at each of its
// doors: WebSocket, HTTP, NATS, configuration. Each case says the exact
// answer and the metric that counts it, and after each case an innocent
// bystander must still be connected and hear what is published.
package badinput

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// headTimeout is how long these gateways wait for a request's head, and
// readTimeout for all of it.
const (
	headTimeout = 300 * time.Millisecond
	readTimeout = 400 * time.Millisecond
	bodyMax     = 64 << 10
)

// apps are the tenants besides that of env, each with a key named after it.
const apps = `
  - {id: "1002", disabled: true, keys: [{key: disabled-key, secret: s}]}
  - {id: "1003", keys: [{key: origin-key, secret: s}], allowed_origins: ["*.example.com"]}
  - {id: "1004", keys: [{key: narrow-key, secret: s}], limits: {messages_per_second: 5, presence_members: 2}}
  - {id: "1005", keys: [{key: wide-key, secret: s}], limits: {subscriptions: 20000, messages_per_second: 100000}}
  - {id: "1006", keys: [{key: quota-key, secret: s}, {key: dead-key, secret: s, disabled: true}], limits: {connections: 1}}
  - {id: "1007", keys: [{key: patient-key, secret: s}], limits: {messages_per_second: 100000}}
  - {id: "1008", keys: [{key: token-key, secret: s}], limits: {messages_per_second: 5}, centrifugo: {enabled: true, hosts: ["tokens.example.com"], token: {hmac_secret: token-secret}}}
`

// world is a running Carillon with its bystander.
type world struct {
	t         *testing.T
	cluster   *env.Cluster
	api       client.API
	bystander *client.Client
	said      int
}

func start(t *testing.T, options ...env.Option) *world {
	t.Helper()
	options = append(options, env.Config(apps), env.Set(
		fmt.Sprint("gateway.limits.head_timeout=", headTimeout), fmt.Sprint("api.read_timeout=", readTimeout),
		fmt.Sprint("api.header_timeout=", headTimeout), fmt.Sprint("api.body_max=", bodyMax)))
	w := &world{t: t, cluster: env.Start(t, options...)}
	transport := &http.Transport{DisableKeepAlives: true}
	w.api = client.API{
		Base: "http://" + w.cluster.API.API(), App: env.AppID, Key: env.Key, Secret: env.Secret,
		HTTP: &http.Client{Transport: transport, Timeout: client.Patience},
	}
	w.bystander = client.Dial(t, w.gateway(), env.Key, client.WithSecret(env.Secret))
	for _, name := range []string{"bystander", "durable-bystander", "presence-bystander"} {
		if name == "presence-bystander" {
			w.bystander.Join(name, "bystander")
		} else {
			w.bystander.Subscribe(name)
		}
	}
	return w
}

func (w *world) gateway() string { return w.cluster.Gateways[0].Public() }

// unharmed checks that the bystander is still connected and the next thing
// that it gets is what is published now, on a channel of each kind.
func (w *world) unharmed(t *testing.T) {
	t.Helper()
	for _, name := range []string{"bystander", "durable-bystander", "presence-bystander"} {
		w.said++
		data := fmt.Sprintf(`"%d"`, w.said)
		ctx, cancel := context.WithTimeout(t.Context(), client.Patience)
		answer, err := w.api.Trigger(ctx, client.Event{Name: "check", Data: data, Channels: []string{name}})
		cancel()
		if err != nil || answer.Status != http.StatusOK {
			t.Fatalf("publish for the bystander: %v, %d %s", err, answer.Status, answer.Body)
		}
		f, err := w.bystander.Read()
		for err == nil && f.Event == "pusher_internal:subscription_count" {
			f, err = w.bystander.Read()
		}
		if err != nil || f.Event != "check" || f.Channel != name || f.Text() != data {
			t.Fatalf("the bystander got %s, %v; want %s on %s", f.Raw, err, data, name)
		}
	}
}

// counts runs what gives bad input and checks that the metric, as it is
// written in the exposition, grows by exactly that much; then that the
// bystander is unharmed.
func (w *world) counts(t *testing.T, metric string, by float64, bad func()) {
	t.Helper()
	before := w.metric(t, metric)
	bad()
	w.reaches(t, metric, before+by)
	w.unharmed(t)
}

// reaches waits for the metric to get to want, and fails when it is beyond.
func (w *world) reaches(t *testing.T, metric string, want float64) {
	t.Helper()
	ticks, end := time.NewTicker(5*time.Millisecond), time.After(client.Patience)
	defer ticks.Stop()
	for {
		got := w.metric(t, metric)
		if got > want {
			t.Fatalf("%s is %v, want %v", metric, got, want)
		}
		if got == want {
			return
		}
		select {
		case <-ticks.C:
		case <-end:
			t.Fatalf("%s is still %v, want %v", metric, got, want)
		}
	}
}

// metric sums a metric, named with its labels, over all processes. One that
// no process exports fails the test.
func (w *world) metric(t *testing.T, name string) float64 {
	t.Helper()
	sum, found := 0.0, false
	for _, n := range w.cluster.Nodes {
		for line := range strings.SplitSeq(w.page(t, n), "\n") {
			value, ok := strings.CutPrefix(line, name+" ")
			if !ok {
				continue
			}
			v, err := strconv.ParseFloat(value, 64)
			if err != nil {
				t.Fatalf("metric %s: %v", line, err)
			}
			sum, found = sum+v, true
		}
	}
	if !found {
		t.Fatalf("no process has the metric %s", name)
	}
	return sum
}

func (w *world) page(t *testing.T, n *env.Node) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), client.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.Ops()+"/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := w.api.HTTP.Do(req)
	if err != nil {
		t.Fatalf("metrics of %s: %v", n.Name, err)
	}
	defer res.Body.Close()
	page, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}
