package unread

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestWatch(t *testing.T) {
	const good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	for _, c := range []struct {
		name, send string
		statuses   []int
		count      int64
	}{
		{"nothing", "", nil, 0},
		{"one request", good, []int{200}, 0},
		{"two requests", good + good, []int{200, 200}, 0},
		{"a request that can't be read", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", []int{400}, 1},
		{"garbage behind a request", good + "garbage\r\n\r\n", []int{200, 400}, 1},
		{"half a request", good + "GET / HT", []int{200, 400}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			var count atomic.Int64
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: 10 * time.Second}
			watched := Watch(srv, ln, func() { count.Add(1) })
			served := make(chan error, 1)
			go func() { served <- srv.Serve(watched) }()
			converse(t, ln.Addr().String(), c.send, c.statuses)
			if err := srv.Shutdown(t.Context()); err != nil { // waits for the connection, which has been counted then
				t.Error(err)
			}
			<-served
			if got := count.Load(); got != c.count {
				t.Errorf("counted %d, want %d", got, c.count)
			}
		})
	}
}

// converse sends everything, ends its side, and reads the answers to the end.
func converse(t *testing.T, addr, send string, statuses []int) {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(conn, send); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	for _, want := range statuses {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != want {
			t.Errorf("answered %d, want %d", res.StatusCode, want)
		}
	}
	if rest, err := io.ReadAll(in); len(rest) > 0 || err != nil {
		t.Errorf("%q, %v after the last answer", rest, err)
	}
}
