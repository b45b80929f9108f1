package loop

import (
	"crypto/tls"
	"testing"

	"github.com/carillon-rt/carillon/gateway/internal/ws/wscase"
	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/certtest"
)

// TestTLSAndPlainShareALoop: a connection with TLS lives on the same loop as
// one without, and the handler can't tell.
func TestTLSAndPlainShareALoop(t *testing.T) {
	cert := certtest.New(t)
	s := serveAll(t, Config{}, func(loops []*Loop[func()]) (*Listener, error) {
		return ListenTLS("127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert.Server}}, loops...)
	}, &script{})
	plain := &server{t: t, loops: s.loops}
	ln, err := listenPlain(s.loops)
	if err != nil {
		t.Fatal(err)
	}
	plain.addr = ln.Addr().String()
	s.running.Go(func() { _ = ln.Run(t.Context()) })

	conn, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: cert.Roots, NextProtos: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != "http/1.1" {
		t.Errorf("negotiated %q", got)
	}
	secure, open := newClient(t, conn), plain.open()
	secure.upgrade()
	for _, c := range []*client{secure, open} {
		c.write(wscase.Frame(wscase.Fin|wscase.Text, []byte("hello")))
		c.wantText("hello")
	}
	if n := s.loops[0].Stats().Connections; n != 2 {
		t.Errorf("%d connections", n)
	}
	secure.write(wscase.Frame(wscase.Fin|wscase.Close, nil))
	if op, b := secure.frame(); op != 8 || len(b) != 0 {
		t.Errorf("got %v %x", op, b)
	}
	secure.wantEnd()
	// Not TLS at all: costs that connection, nothing else.
	bad := s.dial()
	bad.write([]byte("GET / HTTP/1.1\r\n\r\n"))
	await.True(t, "only the open connection is left", func() bool { return s.loops[0].Stats().Connections == 1 })
	_ = ln.Close()
}
