package operations

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// fillingApp is an app whose application publishes into channels when somebody
// subscribes who finds them empty.
const fillingApp = `  - id: "2001"
    keys: [{key: filled-key, secret: filled-secret}]
    hooks: [{name: backend, url: %q}]
    webhooks: [{url: %q, events: [cache_miss]}]
    policies:
      - {match: "price-*", cache_ttl: 10m, cache_empty_hook: backend}
      - {match: "cache-*", cache_empty_hook: backend}
`

// A crowd that subscribes to a channel without a last event has the
// application publish one, once, and is given it.
func TestEmptyCacheIsFilled(t *testing.T) {
	var asked, missed atomic.Int32
	var api client.API
	crowd := make(chan struct{}) // closed when all have asked
	application := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/webhook" {
			missed.Add(1)
			return
		}
		var q map[string]string
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || len(q) != 1 || r.Header.Get("Carillon-Hook") != "cache_empty" {
			t.Errorf("asked %v with %v: %v", q, r.Header, err)
		}
		asked.Add(1)
		if q["channel"] == "price-none" {
			_, _ = w.Write([]byte(`{"result":{}}`))
			return
		}
		<-crowd
		if _, err := api.Publish(r.Context(), client.Event{Name: "now", Data: "7", Channels: []string{q["channel"]}}); err != nil {
			t.Error(err)
		}
		_, _ = w.Write([]byte(`{"result":{"populated":true}}`))
	}))
	defer application.Close()
	c := env.Start(t, env.Apart(2), env.Config(fmt.Sprintf(fillingApp, application.URL, application.URL+"/webhook")))
	api = client.API{Base: "http://" + c.API.API(), App: "2001", Key: "filled-key", Secret: "filled-secret"}
	dial := func(i int) *client.Client { return client.Dial(t, c.Gateways[i%2].Public(), "filled-key") }

	const n = 20
	var wait sync.WaitGroup
	for i := range n {
		cl := dial(i)
		wait.Go(func() {
			cl.Send("pusher:subscribe", "", map[string]string{"channel": "price-tea"})
			cl.Expect("pusher_internal:subscription_succeeded")
			if f := cl.Expect("now", "pusher:cache_miss"); f.Event != "now" || f.Text() != "7" {
				t.Errorf("the last event is %s", f.Raw)
			}
		})
	}
	await.True(t, "the application is asked", func() bool { return asked.Load() > 0 })
	close(crowd)
	wait.Wait()
	if got := asked.Load(); got > 2 { // one authsvc; who came late may have found it empty a moment before
		t.Errorf("a crowd of %d had the application asked %d times", n, got)
	}
	if f := dial(0).Subscribe("cache-tea"); f.Channel != "cache-tea" {
		t.Errorf("subscribed to %s", f.Raw)
	}
	if missed.Load() != 0 {
		t.Error("a miss was told that the application had filled")
	}

	// There is none even then, or nobody who could say: subscribed without, and
	// a webhook tells of the miss.
	without := func(name string) {
		t.Helper()
		cl := dial(0)
		cl.Send("pusher:subscribe", "", map[string]string{"channel": name})
		cl.Expect("pusher_internal:subscription_succeeded")
		cl.Expect("pusher:cache_miss")
	}
	without("price-none")
	await.True(t, "the webhook", func() bool { return missed.Load() == 1 })
	application.Close()
	without("price-away")
}
