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
)

// bare is a client without goroutines or memory of the test's own: what is
// measured is the server's.
func bare(t *testing.T, addr, subscribe string) (fd int) {
	t.Helper()
	_, port, _ := net.SplitHostPort(addr)
	n, _ := strconv.Atoi(port)
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: n, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	request := "GET /app/k?protocol=7&client=js&version=8.4.0&flash=false HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Origin: http://localhost\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
	frame, err := ws.CompileFrame(ws.MaskFrameInPlace(ws.NewTextFrame([]byte(subscribe))))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fd, append([]byte(request), frame...)); err != nil {
		t.Fatal(err)
	}
	return fd
}

// answered reads until the subscription was answered.
func answered(t *testing.T, fd int, buf []byte) {
	t.Helper()
	for got := buf[:0]; !bytes.Contains(got, []byte("subscription_succeeded")); {
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
				fds = append(fds, bare(t, f.addr, fmt.Sprintf(`{"event":"pusher:subscribe","data":{"channel":%q}}`, c.channel(i))))
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

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
