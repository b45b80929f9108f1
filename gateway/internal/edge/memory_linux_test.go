package edge

import (
	"bytes"
	"fmt"
	"net"
	"runtime"
	"strconv"
	"testing"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"

	"github.com/carillon-rt/carillon/proto/channel"
)

// request is an upgrade and a subscription, sent at once.
func request(t *testing.T, subscribe string) []byte {
	t.Helper()
	return requestTo(t, "/app/k?protocol=7&client=js&version=8.4.0&flash=false", subscribe)
}

func requestTo(t *testing.T, path, message string) []byte {
	t.Helper()
	head := "GET " + path + " HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Origin: http://localhost\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	frame, err := ws.CompileFrame(ws.MaskFrameInPlace(ws.NewTextFrame([]byte(message))))
	if err != nil {
		t.Fatal(err)
	}
	return append([]byte(head), frame...)
}

// target is the edge's address as a socket's.
func target(addr string) *unix.SockaddrInet4 {
	_, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	return &unix.SockaddrInet4{Port: n, Addr: [4]byte{127, 0, 0, 1}}
}

// bare is a client without goroutines or memory of the test's own: what is
// measured is the server's.
func bare(t *testing.T, to *unix.SockaddrInet4, request []byte) (fd int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, to); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fd, request); err != nil {
		t.Fatal(err)
	}
	return fd
}

// answered reads until the subscription was answered.
func answered(t *testing.T, fd int, buf []byte) {
	t.Helper()
	answeredWith(t, fd, buf, "subscription_succeeded")
}

func answeredWith(t *testing.T, fd int, buf []byte, word string) {
	t.Helper()
	for got := buf[:0]; !bytes.Contains(got, []byte(word)); {
		n, err := unix.Read(fd, buf[len(got):])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			t.Fatalf("%d bytes, %v after %q", n, err, got)
		}
		got = buf[:len(got)+n]
	}
}

// TestMemoryPerConnection: a gateway has a million connections, what one costs
// in user space is a promise. When something has to be added, raise the number
// in the same commit and say why.
func TestMemoryPerConnection(t *testing.T) {
	const first, n = 500, 2500 // the first pay for what is allocated once
	for _, c := range []struct {
		name    string
		channel func(i int) string
		max     int64
	}{
		{"one channel for all", func(int) string { return "news" }, 620},
		{"a channel for each", func(i int) string { return fmt.Sprint("room-", i) }, 1050},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := start(t)
			fds := make([]int, 0, first+n)
			defer func() {
				for _, fd := range fds {
					_ = unix.Close(fd)
				}
				f.until("all are gone", func() bool { s := f.edge.Stats(); return s.Opened == s.Closed })
			}()
			var before int64
			buf := make([]byte, 4096)
			for i := range first + n {
				if i == first {
					before = heap()
				}
				subscribe := fmt.Sprintf(`{"event":"pusher:subscribe","data":{"channel":%q}}`, c.channel(i))
				fds = append(fds, bare(t, target(f.addr), request(t, subscribe)))
				answered(t, fds[i], buf)
			}
			per := (heap() - before) / n
			t.Logf("%d bytes per connection with one subscription", per)
			if per > c.max {
				t.Errorf("%d bytes per connection with one subscription, the budget is %d", per, c.max)
			}
		})
	}
}

// The same for Centrifugo's clients, which have credentials, places and clocks.
func TestMemoryPerCentrifugoConnection(t *testing.T) {
	const first, n = 500, 2500
	f, a := startCentrifugo(t)
	a.set(func() { a.forgets = true })
	fds := make([]int, 0, first+n)
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		f.until("all are gone", func() bool { s := f.edge.Stats(); return s.Opened == s.Closed })
	}()
	f.edge.Epoch(channel.Key{App: "1", Name: "log"}.Partition(partitions), "e")
	var before int64
	buf := make([]byte, 4096)
	for i := range first + n {
		if i == first {
			before = heap()
		}
		commands := fmt.Sprintf("{\"id\":1,\"connect\":{\"token\":\"user-%d\"}}\n{\"id\":2,\"subscribe\":{\"channel\":\"log\"}}", i)
		fds = append(fds, bare(t, target(f.addr), requestTo(t, "/connection/websocket", commands)))
		answeredWith(t, fds[i], buf, `"id":2,"subscribe"`)
	}
	per := (heap() - before) / n
	t.Logf("%d bytes per connection of a user with one recoverable subscription", per)
	if per > 1300 {
		t.Errorf("%d bytes per connection, the budget is 1300", per)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestAllocationsPerConnect: a reconnecting crowd must not be slowed down by
// the collector.
func TestAllocationsPerConnect(t *testing.T) {
	const first, n = 300, 1000 // the first pay for what is allocated once
	f := start(t)
	fds := make([]int, 0, first+n)
	defer func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		f.until("all are gone", func() bool { s := f.edge.Stats(); return s.Opened == s.Closed })
	}()
	to, ask, buf := target(f.addr), request(t, `{"event":"pusher:subscribe","data":{"channel":"news"}}`), make([]byte, 4096)
	var before, after runtime.MemStats
	for i := range first + n {
		if i == first {
			runtime.ReadMemStats(&before)
		}
		fds = append(fds, bare(t, to, ask))
		answered(t, fds[i], buf)
	}
	runtime.ReadMemStats(&after)
	per, bytes := float64(after.Mallocs-before.Mallocs)/n, float64(after.TotalAlloc-before.TotalAlloc)/n
	t.Logf("%.1f allocations and %.0f bytes per connection with one subscription", per, bytes)
	if per > 14 || bytes > 1500 {
		t.Errorf("%.1f allocations and %.0f bytes per connection with one subscription, the budget is 14 and 1500", per, bytes)
	}
}
