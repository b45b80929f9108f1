package operations

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/centrifugal/centrifuge-go"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// watchedApp is an app that wants to know what happens to each client.
const watchedApp = `  - id: "2001"
    keys: [{key: watched-key, secret: watched-secret}]
    webhooks:
      - {url: %q, events: [connected, disconnected, unsubscribed], channel_prefix: told-, batch: true}
    centrifugo: {enabled: true, token: {hmac_secret: watched-token}, anonymous: true}
`

// clientEvents is an application that notes what it is told of clients.
type clientEvents struct {
	*httptest.Server

	mu sync.Mutex
	// guarded by mu
	told map[string]int // by event in short
}

func startClientEvents(t *testing.T) *clientEvents {
	t.Helper()
	e := &clientEvents{told: map[string]int{}}
	e.Server = httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var body struct {
			Events []struct {
				Name, Channel, Reason string
				SocketID              string `json:"socket_id"`
				UserID                string `json:"user_id"`
				Code                  *int
				TimeMs                int64 `json:"time_ms"`
			}
		}
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Error(err)
			return
		}
		e.mu.Lock()
		defer e.mu.Unlock()
		for _, ev := range body.Events {
			if ev.TimeMs == 0 || (ev.Code == nil) != (ev.Name == "connected") {
				t.Errorf("an event without a time or code: %+v", ev)
			}
			text := strings.Join([]string{ev.Name, ev.SocketID, ev.UserID, ev.Channel}, "|")
			if ev.Code != nil {
				text += fmt.Sprintf("|%d|%s", *ev.Code, ev.Reason)
			}
			e.told[text]++
		}
	}))
	t.Cleanup(e.Close)
	return e
}

// expect waits for an event: its name, socket id, user, channel, code and reason.
func (e *clientEvents) expect(t *testing.T, of ...any) {
	t.Helper()
	text := fmt.Sprint(of[0])
	for _, part := range of[1:] {
		text += "|" + fmt.Sprint(part)
	}
	await.True(t, text, func() bool { return e.count(text) > 0 })
}

// count is how often an event came, or one that begins so.
func (e *clientEvents) count(begins string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for text, times := range e.told {
		if strings.HasPrefix(text, begins) {
			n += times
		}
	}
	return n
}

func TestEventsOfClients(t *testing.T) {
	app := startClientEvents(t)
	c := env.Start(t, env.Apart(2), env.Set("gateway.drain.window=1s"), env.Config(fmt.Sprintf(watchedApp, app.URL)))
	dial := func(gateway int) *client.Client {
		return client.Dial(t, c.Gateways[gateway].Public(), "watched-key", client.WithSecret("watched-secret"))
	}

	t.Run("pusher", func(t *testing.T) {
		ws := dial(0)
		app.expect(t, "connected", ws.SocketID, "", "")
		ws.SignIn("7")
		ws.Subscribe("told-a")
		ws.Subscribe("told-b")
		ws.Subscribe("other")
		ws.Send("pusher:unsubscribe", "", map[string]string{"channel": "told-a"})
		app.expect(t, "unsubscribed", ws.SocketID, "7", "told-a", 0, "")
		ws.Close()
		app.expect(t, "unsubscribed", ws.SocketID, "7", "told-b", 1006, "connection lost")
		app.expect(t, "disconnected", ws.SocketID, "7", "", 1006, "connection lost")
		if n := app.count("unsubscribed|" + ws.SocketID); n != 2 {
			t.Errorf("%d subscriptions of the channels that are asked for ended, want 2", n)
		}
	})

	t.Run("centrifugo", func(t *testing.T) {
		cl := centrifuge.NewJsonClient("ws://"+c.Gateways[0].Public()+"/connection/websocket?app=2001", centrifuge.Config{})
		defer cl.Close()
		id := make(chan string, 1)
		cl.OnConnected(func(e centrifuge.ConnectedEvent) { id <- e.ClientID })
		if err := cl.Connect(); err != nil {
			t.Fatal(err)
		}
		mine := <-id
		app.expect(t, "connected", mine, "", "")
		sub, err := cl.NewSubscription("told-c")
		if err != nil {
			t.Fatal(err)
		}
		subscribed := make(chan struct{}, 1)
		sub.OnSubscribed(func(centrifuge.SubscribedEvent) { subscribed <- struct{}{} })
		if err := sub.Subscribe(); err != nil {
			t.Fatal(err)
		}
		<-subscribed
		if err := cl.Disconnect(); err != nil {
			t.Fatal(err)
		}
		app.expect(t, "unsubscribed", mine, "", "told-c", 0, "")
		app.expect(t, "disconnected", mine, "", "", 0, "")
	})

	// A gateway that stops says what it told its clients.
	t.Run("stop", func(t *testing.T) {
		ws := dial(0)
		ws.Subscribe("told-d")
		c.Gateways[0].Terminate()
		if code := c.Gateways[0].ExitCode(); code != 0 {
			t.Errorf("exit code %d", code)
		}
		await.True(t, "both ends", func() bool {
			return app.count("unsubscribed|"+ws.SocketID+"||told-d|4200|") == 1 && app.count("disconnected|"+ws.SocketID+"|||4200|") == 1
		})
	})

	// One that is killed can say nothing: presence tells of its users.
	t.Run("kill", func(t *testing.T) {
		one, two, nobody := dial(1), dial(1), dial(1)
		one.SignIn("8")
		two.SignIn("8")
		nobody.Subscribe("told-e")
		app.expect(t, "connected", nobody.SocketID, "", "")
		await.True(t, "presence knows the user", func() bool {
			return metric(t, c.Named("presence"), "carillon_presence_online_users") == 1
		})
		c.Gateways[1].Kill()
		app.expect(t, "disconnected", "", "8", "", 0, "gateway lost")
		if n := app.count("disconnected||8|"); n != 1 {
			t.Errorf("one gateway that was lost is told of %d times for one user", n)
		}
		if n := app.count("disconnected|" + nobody.SocketID); n != 0 {
			t.Error("somebody saw nobody go")
		}
	})
}
