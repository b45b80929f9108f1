package standalone_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/proto/signature"
	"github.com/carillon-rt/carillon/standalone"
	"github.com/carillon-rt/carillon/standalone/internal/apicall"
)

// patience bounds every wait of these tests.
const patience = 20 * time.Second

// client is a raw client of the Pusher protocol.
type client struct {
	t        *testing.T
	conn     net.Conn
	socketID string
}

// frame is what travels, with data as the server wrote it.
type frame struct {
	Event   string          `json:"event"`
	Channel string          `json:"channel,omitempty"`
	Data    json.RawMessage `json:"data,omitempty"`
}

// text is the data of a frame whose data is a string, as almost all are.
func (f frame) text() string {
	var s string
	if json.Unmarshal(f.Data, &s) != nil {
		return string(f.Data)
	}
	return s
}

func dial(t *testing.T, public string) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	url := fmt.Sprintf("ws://%s/app/%s?protocol=7&client=test&version=1", public, cred.Key)
	conn, buffered, _, err := ws.Dial(ctx, url)
	if err != nil {
		t.Fatalf("dial %s: %v", url, err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &client{t: t, conn: conn}
	if buffered != nil {
		c.conn = &readFirst{Conn: conn, first: buffered}
	}
	if err := conn.SetDeadline(time.Now().Add(2 * patience)); err != nil {
		t.Fatal(err)
	}
	var hello struct {
		SocketID string `json:"socket_id"`
	}
	if err := json.Unmarshal([]byte(c.expect("pusher:connection_established").text()), &hello); err != nil {
		t.Fatal(err)
	}
	c.socketID = hello.SocketID
	return c
}

// readFirst reads what came with the handshake before the rest.
type readFirst struct {
	net.Conn
	first interface{ Read([]byte) (int, error) }
}

func (r *readFirst) Read(p []byte) (int, error) {
	if r.first != nil {
		if n, err := r.first.Read(p); err == nil && n > 0 {
			return n, nil
		}
		r.first = nil
	}
	return r.Conn.Read(p)
}

func (c *client) send(event string, data any) {
	c.t.Helper()
	raw, err := json.Marshal(map[string]any{"event": event, "data": data})
	if err != nil {
		c.t.Fatal(err)
	}
	if err := wsutil.WriteClientText(c.conn, raw); err != nil {
		c.t.Fatalf("send %s: %v", event, err)
	}
}

// expect reads until the event comes, over subscription counts and pings; anything else fails the test.
func (c *client) expect(event string) frame {
	c.t.Helper()
	for {
		raw, err := wsutil.ReadServerText(c.conn)
		if err != nil {
			c.t.Fatalf("waiting for %s: %v", event, err)
		}
		var f frame
		if err := json.Unmarshal(raw, &f); err != nil {
			c.t.Fatalf("frame %s: %v", raw, err)
		}
		switch f.Event {
		case event:
			return f
		case "pusher_internal:subscription_count", "pusher:ping":
		default:
			c.t.Fatalf("got %s, want %s", raw, event)
		}
	}
}

// subscribe joins a channel, signed where its name asks for that, and returns the answer.
func (c *client) subscribe(channel, channelData string) frame {
	c.t.Helper()
	data := map[string]string{"channel": channel}
	if channelData != "" {
		data["channel_data"] = channelData
	}
	data["auth"] = signature.Auth(cred.Key, cred.Secret, signature.Channel(c.socketID, channel, channelData))
	c.send("pusher:subscribe", data)
	return c.expect("pusher_internal:subscription_succeeded")
}

// publish triggers an event over the HTTP API at addr until it is accepted; the API may still be waiting for a router.
func publish(t *testing.T, addr string, e apicall.Event) {
	t.Helper()
	call, err := apicall.Trigger(cred.App, e)
	if err != nil {
		t.Fatal(err)
	}
	await.Success(t, "a publish", func() error {
		status, body, err := call.Do(t.Context(), "http://"+addr, cred)
		switch {
		case err != nil:
			return err
		case status < http.StatusInternalServerError && status != http.StatusOK:
			t.Fatalf("publish: %d %s", status, body)
		case status != http.StatusOK:
			return fmt.Errorf("%d %s", status, body)
		}
		return nil
	})
}

var cred = credentials(standalone.DevApp().ID)

func credentials(app string) apicall.Credentials {
	key := standalone.DevApp().Keys[0]
	return apicall.Credentials{App: app, Key: key.Key, Secret: key.Secret}
}
