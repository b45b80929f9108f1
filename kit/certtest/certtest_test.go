package certtest

import (
	"crypto/tls"
	"net"
	"testing"

	"github.com/carillon-rt/carillon/kit/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// TestTrust: a server with the files is trusted by the roots of the same certificate, not by another's.
func TestTrust(t *testing.T) {
	c, other := New(t), New(t)
	fromFiles, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, shown := range map[string]tls.Certificate{"in memory": c.Server, "from the files": fromFiles} {
		if err := handshake(t, shown, &tls.Config{RootCAs: c.Roots, ServerName: "127.0.0.1"}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err := handshake(t, shown, &tls.Config{RootCAs: other.Roots, ServerName: "127.0.0.1"}); err == nil {
			t.Errorf("%s: trusted by another's roots", name)
		}
	}
}

func handshake(t *testing.T, shown tls.Certificate, trust *tls.Config) error {
	t.Helper()
	a, b := net.Pipe()
	server := tls.Server(a, &tls.Config{Certificates: []tls.Certificate{shown}})
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Handshake() }()
	err := tls.Client(b, trust).HandshakeContext(t.Context())
	b.Close()
	<-done
	a.Close()
	return err
}
