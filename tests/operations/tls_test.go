package operations

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/kit/certtest"
	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// The gateway ends TLS itself: clients and the HTTP API on one port.
func TestTLS(t *testing.T) {
	cert := certtest.New(t)
	trust := &tls.Config{RootCAs: cert.Roots}
	c := env.Start(t, env.Set("gateway.tls.cert="+cert.CertFile, "gateway.tls.key="+cert.KeyFile,
		"gateway.limits.outbox_bytes=64KiB", "gateway.limits.send_buffer=16KiB"))
	gateway, transport := c.Gateways[0], &http.Transport{TLSClientConfig: trust, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	calls := api(t, c)
	calls.Base, calls.HTTP.Transport = "https://"+gateway.Public(), transport

	fast := dial(t, gateway, client.WithTLS(trust))
	fast.Subscribe("private-news")
	publish := func(t *testing.T, event, data string) {
		t.Helper()
		answer, err := calls.Trigger(t.Context(), client.Event{Name: event, Data: data, Channels: []string{"private-news"}})
		if err != nil || answer.Status != http.StatusOK {
			t.Fatalf("publish: %d %s %v", answer.Status, answer.Body, err)
		}
	}
	t.Run("publish and receive", func(t *testing.T) {
		publish(t, "hello", "over TLS")
		if f := fast.Expect("hello"); f.Text() != "over TLS" {
			t.Errorf("got %s", f.Raw)
		}
	})
	t.Run("largest event", func(t *testing.T) {
		data := strings.Repeat("0123456789", 1024) // what an app allows by default
		publish(t, "large", data)
		if f := fast.Expect("large"); f.Text() != data {
			t.Errorf("got %d bytes, want %d", len(f.Text()), len(data))
		}
	})
	t.Run("largest event of a client", func(t *testing.T) {
		other, data := dial(t, gateway, client.WithTLS(trust)), strings.Repeat("abcdefghij", 1000)
		other.Subscribe("private-news")
		other.Send("client-large", "private-news", data)
		if f := fast.Expect("client-large"); f.Text() != data {
			t.Errorf("got %d bytes, want %d", len(f.Text()), len(data))
		}
	})
	t.Run("channels are listed", func(t *testing.T) {
		var out struct {
			Channels map[string]any `json:"channels"`
		}
		if err := calls.Get(t.Context(), "/channels", nil, &out); err != nil || len(out.Channels) != 1 {
			t.Errorf("got %v %v, want one channel", out.Channels, err)
		}
	})
	t.Run("a slow reader is closed and the others are not", func(t *testing.T) {
		slow := dial(t, gateway, client.WithTLS(trust), client.WithReadBuffer(4096))
		slow.Subscribe("private-news")
		const publishesMax = 400 // 4 MB
		data := strings.Repeat("x", 10_000)
		for n := 0; metric(t, gateway, "carillon_gateway_slow_total") == 0; n++ {
			if n == publishesMax {
				t.Fatalf("%d events of %d bytes are not too much for a client that reads nothing", n, len(data))
			}
			event := fmt.Sprint("flood-", n)
			publish(t, event, data)
			fast.Expect(event)
		}
		if code := slow.ExpectClose(); code != 4100 && code != 0 { // 0: what was not sent went with the connection
			t.Errorf("the slow reader was closed with %d, want 4100", code)
		}
		publish(t, "after", "x")
		fast.Expect("after")
	})
	t.Run("plain connections get nowhere", func(t *testing.T) {
		if _, err := client.TryDial(t, gateway.Public(), env.Key); err == nil {
			t.Error("a client without TLS was let in")
		}
	})
}
