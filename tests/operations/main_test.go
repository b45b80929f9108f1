// Package operations tests what an operator does to a running Carillon and
// what happens to it: traces and metrics, TLS, draining, restarts and deaths
// of every part, and of NATS.
package operations

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// eventually waits until check holds.
func eventually(t *testing.T, what string, check func() bool) {
	t.Helper()
	await.True(t, what, check)
}

// dial connects to a gateway with the app's secret.
func dial(t *testing.T, gateway *env.Node, opts ...client.Option) *client.Client {
	t.Helper()
	return client.Dial(t, gateway.Public(), env.Key, append(opts, client.WithSecret(env.Secret))...)
}

// subscribed is a new client of gateway with these channels.
func subscribed(t *testing.T, gateway *env.Node, channels ...string) *client.Client {
	t.Helper()
	c := dial(t, gateway)
	for _, channel := range channels {
		c.Subscribe(channel)
	}
	return c
}

// api calls the HTTP API of the cluster as it listens now. Its connections do
// not outlive the call: the process may be another one next time.
func api(t *testing.T, c *env.Cluster) client.API {
	t.Helper()
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return client.API{
		Base: "http://" + c.API.API(), App: env.AppID, Key: env.Key, Secret: env.Secret,
		HTTP: &http.Client{Transport: transport, Timeout: client.Patience},
	}
}

// say publishes one event, with a key, until it is taken.
func say(t *testing.T, c *env.Cluster, channel, event, data string) {
	t.Helper()
	api(t, c).MustPublish(t, client.Event{
		Name: event, Data: data, Channels: []string{channel},
		IdempotencyKey: fmt.Sprintf("%s/%s/%s/%s", t.Name(), channel, event, data),
	})
}

// sayOnce publishes one event and gives the answer.
func sayOnce(t *testing.T, c *env.Cluster, channel, event, data string) client.Answer {
	t.Helper()
	answer, err := api(t, c).Trigger(t.Context(), client.Event{Name: event, Data: data, Channels: []string{channel}})
	if err != nil {
		t.Fatalf("publish to %s: %v", channel, err)
	}
	return answer
}

// hears publishes an event and fails the test unless it is the next thing that
// each client gets.
func hears(t *testing.T, c *env.Cluster, channel, data string, clients ...*client.Client) {
	t.Helper()
	say(t, c, channel, "said", data)
	for i, cl := range clients {
		if f := cl.Expect("said"); f.Channel != channel || f.Text() != data {
			t.Fatalf("client %d got %s, want %s on %s", i, f.Raw, data, channel)
		}
	}
}

// usersAre waits until the API names exactly these members.
func usersAre(t *testing.T, c *env.Cluster, channel string, want ...string) {
	t.Helper()
	slices.Sort(want)
	var got []string
	var err error
	calls := api(t, c)
	eventually(t, fmt.Sprintf("the members of %s are %v", channel, want), func() bool {
		if got, err = calls.Users(t.Context(), channel); err != nil {
			return false
		}
		return slices.Equal(got, want)
	})
}

// get reads a page of a node's ops port.
func get(t *testing.T, node *env.Node, path string) (status int, body string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), client.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+node.Ops()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatalf("ops port of %s: %v", node.Name, err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(raw)
}

// metric is the sum of a metric's values with these labels, written as in the
// exposition: name="value".
func metric(t *testing.T, node *env.Node, name string, labels ...string) float64 {
	t.Helper()
	_, page := get(t, node, "/metrics")
	line := regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(name) + `(\{[^}]*\})? (\S+)$`)
	var sum float64
	for _, m := range line.FindAllStringSubmatch(page, -1) {
		if slices.ContainsFunc(labels, func(l string) bool { return !strings.Contains(m[1], l) }) {
			continue
		}
		v, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatalf("metric %s: %v", m[0], err)
		}
		sum += v
	}
	return sum
}
