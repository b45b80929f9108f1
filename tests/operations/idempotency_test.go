package operations

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// A repeat with its idempotency key gets the answer of the first time through
// any api node and after its router has died, and a key of another event is
// refused; subscribers get one event.
func TestIdempotencyKeys(t *testing.T) {
	c := env.Start(t, env.Apart(1), env.Routers(2), env.APIs(2))
	reader := subscribed(t, c.Gateways[0], "durable-keys", "keys")
	nodes := []*env.Node{c.Named("api"), c.Named("api-1")}
	// post sends an event by a node, with the key where a request may have it.
	post := func(node *env.Node, channel, data, header string) (int, string) {
		t.Helper()
		calls := api(t, c)
		calls.Base = "http://" + node.API()
		event := map[string]any{"name": "said", "data": data, "channels": []string{channel}}
		call := client.Call{Method: http.MethodPost, Path: "/events", Header: map[string]string{header: "key-" + channel}}
		if header == "" {
			event["idempotency_key"], call.Header = "key-"+channel, nil
		}
		var err error
		if call.Body, err = json.Marshal(event); err != nil {
			t.Fatal(err)
		}
		answer, err := calls.Do(t.Context(), call)
		if err != nil {
			t.Fatal(err)
		}
		return answer.Status, string(answer.Body)
	}
	places := []string{"X-Idempotency-Key", "Idempotency-Key", ""}
	for _, channel := range []string{"durable-keys", "keys"} {
		for _, header := range places {
			for _, node := range nodes {
				if status, body := post(node, channel, "first", header); status != http.StatusOK || body != "{}" {
					t.Errorf("%s by %s, key in %q: %d %s, want 200 {}", channel, node.Name, header, status, body)
				}
				status, body := post(node, channel, "second", header)
				if status != http.StatusConflict || !strings.Contains(body, "the idempotency key was used before") || !strings.Contains(body, `"code":409`) {
					t.Errorf("another event on %s by %s: %d %s, want 409", channel, node.Name, status, body)
				}
			}
		}
	}
	c.Named("router").Kill()
	for _, channel := range []string{"durable-keys", "keys"} {
		calls := api(t, c)
		calls.MustPublish(t, client.Event{Name: "said", Data: "first", Channels: []string{channel}, IdempotencyKey: "key-" + channel})
		if status, body := post(nodes[1], channel, "third", ""); status != http.StatusConflict {
			t.Errorf("another event on %s with one router dead: %d %s, want 409", channel, status, body)
		}
	}
	for _, channel := range []string{"durable-keys", "keys"} {
		if f := reader.Expect("said"); f.Channel != channel || f.Text() != "first" {
			t.Errorf("got %s, want the first event on %s", f.Raw, channel)
		}
	}
	hears(t, c, "keys", "and nothing else", reader)
}
