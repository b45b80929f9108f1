package operations

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// hookedApp is an app whose policies ask a hook, or have a condition.
const hookedApp = `  - id: "2001"
    keys: [{key: hooked-key, secret: hooked-secret}]
    hooks: [{name: backend, url: %q, headers: {X-Api-Key: "of ours"}}]
    policies:
      - {match: "*hooked-*", subscribe_hook: backend}
      - {match: "staff-*", subscribe_if: 'user == "7"'}
`

// A policy's hook and condition decide about Pusher clients, on the whole way
// from a socket to the application and back.
func TestHooksOfPolicies(t *testing.T) {
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Channel, User, Protocol string }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || q.Protocol != "pusher" ||
			r.Header.Get("X-Api-Key") != "of ours" || r.Header.Get("Carillon-Hook") != "subscribe" {
			t.Errorf("asked %+v with %v: %v", q, r.Header, err)
		}
		switch {
		case strings.HasSuffix(q.Channel, "-open"), q.User == "7":
			_, _ = w.Write([]byte(`{"result":{}}`))
		default:
			_, _ = w.Write([]byte(`{"error":{"code":1000,"message":"hidden"}}`))
		}
	}))
	defer application.Close()
	c := env.Start(t, env.Config(fmt.Sprintf(hookedApp, application.URL)))
	asks := func(cl *client.Client, channel, event string) {
		t.Helper()
		cl.Send("pusher:subscribe", "", map[string]string{"channel": channel})
		if f := cl.Await("pusher_internal:subscription_succeeded", "pusher:subscription_error"); f.Event != event || f.Channel != channel {
			t.Errorf("%s: %s, want %s", channel, f.Raw, event)
		} else if strings.Contains(string(f.Raw), "hidden") {
			t.Errorf("%s: the hook's words reach the client: %s", channel, f.Raw)
		}
	}
	const yes, no = "pusher_internal:subscription_succeeded", "pusher:subscription_error"
	nobody := client.Dial(t, c.Gateways[0].Public(), "hooked-key")
	asks(nobody, "hooked-open", yes)
	asks(nobody, "private-hooked-open", yes)
	asks(nobody, "hooked-closed", no)
	asks(nobody, "private-hooked-closed", no)
	asks(nobody, "staff-1", no)
	asks(nobody, "private-1", no)
	seven := client.Dial(t, c.Gateways[0].Public(), "hooked-key", client.WithSecret("hooked-secret"))
	seven.SignIn("7")
	asks(seven, "hooked-closed", yes)
	asks(seven, "presence-hooked-closed", yes)
	asks(seven, "staff-1", yes)

	// Without an answer nobody comes in, and the others stay.
	application.Close()
	asks(nobody, "hooked-other-open", no)
	asks(seven, "staff-2", yes)
	seven.Subscribe("private-hooked-signed") // by signature
}
