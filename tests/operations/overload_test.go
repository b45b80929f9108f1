package operations

import (
	"fmt"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// When the gateway is short of memory the client that does not read pays, and
// nobody else notices.
func TestShedding(t *testing.T) {
	c := env.Start(t, env.Set("gateway.loops=1", "gateway.limits.memory=2MiB", "gateway.limits.outbox_bytes=1GiB", "gateway.limits.outbox_age=1h"))
	gateway := c.Gateways[0]
	stalled := dial(t, gateway, client.WithReadBuffer(8<<10))
	stalled.Subscribe("heavy")
	healthy := []*client.Client{subscribed(t, gateway, "heavy"), subscribed(t, gateway, "heavy")}
	shed := func() float64 { return metric(t, gateway, "carillon_gateway_slow_total", `reason="memory"`) }
	calls, text := api(t, c), strings.Repeat("x", 9<<10)
	for n := 0; n%50 > 0 || shed() == 0; n++ {
		if n > 1000 {
			t.Fatalf("nobody was closed, %v bytes are waiting", metric(t, gateway, "carillon_gateway_outbox_bytes"))
		}
		data := fmt.Sprint(n, text)
		calls.MustPublish(t, client.Event{Name: "much", Data: data, Channels: []string{"heavy"}, IdempotencyKey: fmt.Sprint(n)})
		for i, cl := range healthy {
			if f := cl.Expect("much"); f.Text() != data {
				t.Fatalf("client %d got %.50s, want number %d", i, f.Raw, n)
			}
		}
	}
	if n := shed(); n != 1 {
		t.Errorf("%v clients were closed, want 1", n)
	}
	if bye := untilClose(t, stalled); bye.code != 4100 {
		t.Errorf("it was closed with %d, want 4100", bye.code)
	}
	hears(t, c, "heavy", "the end", healthy...)
	if log := gateway.Log(); !strings.Contains(log, "connections take too much memory") {
		t.Errorf("the log does not say why:\n%s", log)
	}
	subscribed(t, gateway, "heavy")
}
