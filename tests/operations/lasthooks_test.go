package operations

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// TestStopTellsWhoLeft: a single process that is told to stop closes its
// clients; the application hears that their members are gone, at the latest
// from the next start.
func TestStopTellsWhoLeft(t *testing.T) {
	var mu sync.Mutex
	var told strings.Builder
	app := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		told.Write(body)
	}))
	defer app.Close()
	heard := func(what string) func() bool {
		return func() bool {
			mu.Lock()
			defer mu.Unlock()
			return strings.Contains(told.String(), `"name":"`+what+`"`)
		}
	}
	c := env.Start(t, env.Webhook(app.URL), env.Set("gateway.drain.window=1s"))
	ws := client.Dial(t, c.Gateways[0].Public(), env.Key, client.WithSecret(env.Secret))
	defer ws.Close()
	ws.Join("presence-x", "u1")
	await.True(t, "member_added", heard("member_added"))
	start := time.Now()
	c.Gateways[0].Terminate()
	if code := c.Gateways[0].ExitCode(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	t.Logf("stopped in %s", time.Since(start))
	if !heard("member_removed")() {
		c.Gateways[0].Restart()
	}
	await.True(t, "member_removed", heard("member_removed"))
	await.True(t, "channel_vacated", heard("channel_vacated"))
}
