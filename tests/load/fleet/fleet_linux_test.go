package fleet

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/tests/load/stamp"
	"github.com/carillon-rt/carillon/tests/load/tally"
)

// serve upgrades whoever connects and hands the connection over.
func serve(t *testing.T, status string, then func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
				_ = conn.Close()
				continue
			}
			if _, err := io.WriteString(conn, "HTTP/1.1 "+status+"\r\n\r\n"); err == nil {
				then(conn)
			}
		}
	}()
	return ln.Addr().String()
}

const switching = "101 Switching Protocols\r\nUpgrade: websocket"

func pollUntil(t *testing.T, f *Fleet, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s: %+v, %v", what, f.Counts(), f.Err())
		}
		if err := f.Poll(10 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
	}
}

func newFleet(t *testing.T, p Plan) *Fleet {
	t.Helper()
	f, err := New(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// What a bad server does to a stream is seen, whatever the reads.
func TestChecksWhatArrives(t *testing.T) {
	for _, pieces := range []int{1, 7, 1000} {
		conns := make(chan net.Conn, 1)
		f := newFleet(t, Plan{Addrs: []string{serve(t, switching, func(c net.Conn) { conns <- c })}, Dialect: "raw", Connections: 1, Shared: 1})
		pollUntil(t, f, "it is connected", func() bool { return f.Live() == 1 })
		conn := <-conns
		if err := f.Measure(2); err != nil {
			t.Fatal(err)
		}
		var stream []byte
		for _, s := range []stamp.Stamp{
			{Seq: 1}, {Seq: 3}, {Seq: 2}, {Seq: 2}, {Lane: 1, Seq: 1}, {Channel: 5, Seq: 1}, {Seq: 6},
		} {
			s.At = f.Now()
			stream = append(stream, serverFrame(opText, string(stamp.Append([]byte(`{"data":"`), s))+`"}`)...)
		}
		go func() {
			for len(stream) > 0 {
				n := min(pieces, len(stream))
				if _, err := conn.Write(stream[:n]); err != nil {
					return
				}
				stream = stream[n:]
			}
		}()
		pollUntil(t, f, "all have come", func() bool { return f.Counts().Delivered == 7 })
		got, err := f.Tally(Published{{0: 8}, {0: 1}})
		if err != nil {
			t.Fatal(err)
		}
		got.Reads = 0
		want := tally.Counts{Delivered: 7, Missing: 4, Duplicates: 1, Disordered: 1, Unexpected: 1}
		if got != want {
			t.Errorf("in pieces of %d: %+v, want %+v", pieces, got, want)
		}
		if h, err := f.Latency(); err != nil || h.TotalCount() != 7 || h.Max() > time.Minute.Nanoseconds() {
			t.Errorf("%d latencies up to %d ns, %v", h.TotalCount(), h.Max(), err)
		}
	}
}

func TestCountsClosesByCode(t *testing.T) {
	addr := serve(t, switching, func(c net.Conn) {
		_, _ = c.Write(serverFrame(opClose, "\x10\x04slow")) // 4100
		_ = c.Close()
	})
	f := newFleet(t, Plan{Addrs: []string{addr}, Dialect: "raw", Connections: 3})
	pollUntil(t, f, "all are closed", func() bool { return f.Counts().Lost == 3 })
	closes, err := f.Closes()
	if err != nil || closes[4100] != 3 || len(closes) != 1 {
		t.Errorf("closes %v, %v", closes, err)
	}
	if err := f.Err(); err == nil || !strings.Contains(err.Error(), `4100 "slow"`) {
		t.Errorf("the error is %v", err)
	}
}

func TestRefusedConnectionsAreToldApart(t *testing.T) {
	f := newFleet(t, Plan{Addrs: []string{serve(t, "503 Service Unavailable", func(c net.Conn) { _ = c.Close() })}, Dialect: "raw", Connections: 2})
	pollUntil(t, f, "both are refused", f.Connected)
	if c := f.Counts(); c.Refused != 2 || c.Joined != 0 || f.Live() != 0 {
		t.Errorf("%+v", c)
	}
	if err := f.Err(); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("the error is %v", err)
	}
}

func TestAnswersPings(t *testing.T) {
	pong := make(chan []byte, 1)
	addr := serve(t, switching, func(c net.Conn) {
		_, _ = c.Write(serverFrame(opPing, "there?"))
		b := make([]byte, 64)
		n, err := c.Read(b)
		if err != nil && !errors.Is(err, io.EOF) {
			n = 0
		}
		pong <- b[:n]
	})
	f := newFleet(t, Plan{Addrs: []string{addr}, Dialect: "raw", Connections: 1})
	var got []byte
	pollUntil(t, f, "the pong is there", func() bool {
		select {
		case got = <-pong:
			return true
		default:
			return false
		}
	})
	if want := appendFrame(nil, opPong, []byte("there?")); string(got) != string(want) {
		t.Errorf("%q, want %q", got, want)
	}
}

// Connections that are lost come back, to the next server.
func TestComesBack(t *testing.T) {
	first := serve(t, switching, func(c net.Conn) { _ = c.Close() })
	conns := make(chan net.Conn, 4)
	second := serve(t, switching, func(c net.Conn) { conns <- c })
	f := newFleet(t, Plan{Addrs: []string{first, second}, Dialect: "raw", Connections: 2, Again: true})
	pollUntil(t, f, "both are at the second server", func() bool { return len(conns) == 2 && f.Live() == 2 })
	if c := f.Counts(); c.Lost != 1 || c.Joined != 3 {
		t.Errorf("%+v", c)
	}
}

func TestPingsAreSpread(t *testing.T) {
	got := make(chan int, 100)
	addr := serve(t, switching, func(c net.Conn) {
		go func() {
			b := make([]byte, 64)
			for {
				n, err := c.Read(b)
				if err != nil {
					return
				}
				got <- n
			}
		}()
	})
	f := newFleet(t, Plan{Addrs: []string{addr}, Dialect: "raw", Connections: 5, Ping: 50 * time.Millisecond})
	pollUntil(t, f, "each has pinged", func() bool { return len(got) >= 5 })
}
