package gateway

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/certtest"
)

// TestOneConnectionForEverything: a proxy uses a connection for whatever comes,
// requests that the HTTP handler answers and those of clients.
func TestOneConnectionForEverything(t *testing.T) {
	for _, c := range []struct {
		name string
		tls  bool
	}{{"plain", false}, {"tls", true}} {
		t.Run(c.name, func(t *testing.T) {
			cfg, dial := testConfig(), func(addr string) (net.Conn, error) { return net.Dial("tcp", addr) }
			if c.tls {
				pair := certtest.New(t)
				cfg.TLS = TLSConfig{Cert: pair.CertFile, Key: pair.KeyFile}
				dial = func(addr string) (net.Conn, error) { return tls.Dial("tcp", addr, &tls.Config{RootCAs: pair.Roots}) }
			}
			w := newWorld(t, cfg, Options{})
			w.makeJournal()
			conn, err := dial(w.gw.Addr())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_ = conn.SetDeadline(time.Now().Add(patience))
			in := bufio.NewReader(conn)
			one := func(method, path, fields, body, want string) *http.Response {
				t.Helper()
				fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: h\r\n%s\r\n%s", method, path, fields, body)
				res, err := http.ReadResponse(in, &http.Request{Method: method})
				if err != nil {
					t.Fatalf("%s %s: %v", method, path, err)
				}
				if strings.HasPrefix(want, "stream") {
					return res
				}
				got, err := io.ReadAll(res.Body)
				if err != nil || fmt.Sprint(res.StatusCode, " ", string(got)) != want {
					t.Fatalf("%s %s: %d %q, %v, want %q", method, path, res.StatusCode, got, err, want)
				}
				return res
			}
			session := 0
			poll := func(fields, body string) {
				t.Helper()
				session++
				one("POST", fmt.Sprintf("/pusher/app/key/1/%d/xhr?protocol=7", session), fields, body, "200 o\n")
			}
			const none, five, chunked = "Content-Length: 0\r\n", "Content-Length: 5\r\n", "Transfer-Encoding: chunked\r\n"
			for range 3 {
				poll(none, "")
				one("GET", "/up", "", "", "200 OK\n") // plain
				poll(five, "hello")
				one("HEAD", "/up", "", "", "200 ") // net/http's
				poll(none, "")
				one("HEAD", "/up", "", "", "200 ")
				poll(five, "hello")
				one("HEAD", "/up", "", "", "200 ")
				poll(chunked, "5\r\nhello\r\n0\r\n\r\n")
			}
			one("GET", "/up", "", "", "200 OK\n")
			res := one("POST", "/pusher/app/key/1/last/xhr_streaming?protocol=7", none, "", "stream")
			if line, err := bufio.NewReader(res.Body).ReadString('o'); err != nil || !strings.HasSuffix(line, "h\no") {
				t.Errorf("a stream begins with %.20q, %v", line, err)
			}
		})
	}
}

// TestUpgradeOfAUsedConnection: so does a WebSocket.
func TestUpgradeOfAUsedConnection(t *testing.T) {
	w := newWorld(t, testConfig(), Options{})
	w.makeJournal()
	for _, before := range []string{"GET /up HTTP/1.1\r\nHost: h\r\n\r\n", "HEAD /up HTTP/1.1\r\nHost: h\r\n\r\n"} {
		conn, err := net.Dial("tcp", w.gw.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(patience))
		in := bufio.NewReader(conn)
		io.WriteString(conn, before)
		method, _, _ := strings.Cut(before, " ")
		res, err := http.ReadResponse(in, &http.Request{Method: method})
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("%+v, %v", res, err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		io.WriteString(conn, "GET /app/key?protocol=7 HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		if res, err = http.ReadResponse(in, nil); err != nil || res.StatusCode != 101 {
			t.Errorf("after %q: %+v, %v", before, res, err)
		}
	}
}
