package operations

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// certificate makes a certificate of 127.0.0.1 and what trusts it.
func certificate(t *testing.T) (certFile, keyFile string, trust *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir, roots := t.TempDir(), x509.NewCertPool()
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert})
	roots.AppendCertsFromPEM(certPEM)
	write := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	return write("cert.pem", certPEM), write("key.pem", keyPEM), &tls.Config{RootCAs: roots}
}

// The gateway ends TLS itself: clients and the HTTP API on one port.
func TestTLS(t *testing.T) {
	certFile, keyFile, trust := certificate(t)
	c := env.Start(t, env.Set("gateway.tls.cert="+certFile, "gateway.tls.key="+keyFile,
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
