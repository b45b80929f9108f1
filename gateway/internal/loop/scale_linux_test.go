package loop

import (
	"net"
	"net/http"
	"runtime"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/ws"
	"github.com/carillon-rt/carillon/kit/await"
	"golang.org/x/sys/unix"
)

// bareClients are connections without goroutines, buffers or memory of the
// test's own: what is measured is the server's.
type bareClients struct {
	t   testing.TB
	fds []int
}

// openBare opens n WebSockets.
func openBare(t testing.TB, addr net.Addr, n int) *bareClients {
	t.Helper()
	b := &bareClients{t: t}
	t.Cleanup(b.close)
	to := &unix.SockaddrInet4{Port: addr.(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		b.fds = append(b.fds, fd)
		if err := unix.Connect(fd, to); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(fd, []byte(handshake)); err != nil {
			t.Fatal(err)
		}
	}
	answer := make([]byte, 256)
	for _, fd := range b.fds {
		if n, err := unix.Read(fd, answer); err != nil || n < 12 || string(answer[9:12]) != "101" {
			t.Fatalf("handshake: %q, %v", answer[:max(n, 0)], err)
		}
	}
	return b
}

// drain reads until every connection has had bytesEach more.
func (b *bareClients) drain(buf []byte, bytesEach int) {
	for _, fd := range b.fds {
		for got := 0; got < bytesEach; {
			n, err := unix.Read(fd, buf)
			if err == unix.EINTR {
				continue
			}
			if err != nil || n == 0 {
				b.t.Errorf("client read: %d, %v", n, err)
				return
			}
			got += n
		}
	}
}

func (b *bareClients) close() {
	for _, fd := range b.fds {
		_ = unix.Close(fd)
	}
	b.fds = nil
}

// TestIdleConnectionsCostNeitherGoroutinesNorMemory: 5,000 of them.
func TestIdleConnectionsCostNeitherGoroutinesNorMemory(t *testing.T) {
	s := serve(t, Config{}, &script{})
	openBare(t, s.listener.Addr(), 300).close() // what is allocated once
	await.True(t, "the first are gone", func() bool { return s.loops[0].Stats().Connections == 0 })
	const n = 5000
	goroutines, before := runtime.NumGoroutine(), heapInUse()
	clients := openBare(t, s.listener.Addr(), n)
	if got := runtime.NumGoroutine(); got > goroutines {
		t.Errorf("%d goroutines more", got-goroutines)
	}
	if per := float64(heapInUse()-before) / n; per > 300 {
		t.Errorf("%.0f bytes per idle connection, want at most 300", per)
	} else {
		t.Logf("%.0f bytes per idle connection", per)
	}
	if got := s.loops[0].Stats().Connections; got != n {
		t.Errorf("%d connections", got)
	}
	clients.close()
	await.True(t, "all are gone", func() bool { return s.loops[0].Stats().Connections == 0 })
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestFanoutAllocatesNothing: whole turns with a shared frame to every
// connection, with a private one besides, and with several shared ones.
func TestFanoutAllocatesNothing(t *testing.T) {
	const conns, turns = 200, 50
	var slots []int32
	s := serve(t, Config{}, &script{open: func(c *Conn) { slots = append(slots, c.Handle().Slot) }})
	clients := openBare(t, s.listener.Addr(), conns)
	l := s.loops[0]
	a := &Frame{Bytes: ws.AppendText(nil, make([]byte, 64))}
	private := make([]byte, 10)
	large := &Frame{Bytes: ws.AppendFrame(nil, ws.OpBinary, make([]byte, joinBytesMax/2))}
	rounds := []struct {
		name  string
		queue func(c *Conn)
		bytes int
	}{
		{"one shared frame", func(c *Conn) { c.SendShared(a) }, 66},
		{"three shared frames", func(c *Conn) { c.SendShared(a); c.SendShared(a); c.SendShared(a) }, 3 * 66},
		{"shared and private", func(c *Conn) { c.SendShared(a); c.SendText(private) }, 66 + 12},
		{"private before shared", func(c *Conn) { c.SendText(private); c.SendShared(a) }, 12 + 66},
		{"a vector of large frames", func(c *Conn) { c.SendShared(large); c.SendShared(a); c.SendShared(large) }, 66 + 2*len(large.Bytes)},
	}
	buf := make([]byte, 64<<10)
	for _, r := range rounds {
		t.Run(r.name, func(t *testing.T) {
			done := make(chan struct{}, 1)
			publish := func() {
				for _, slot := range slots {
					r.queue(l.ConnAt(slot))
				}
				done <- struct{}{}
			}
			got := mallocsPer(turns, func() {
				l.Post(publish)
				<-done
				clients.drain(buf, r.bytes)
			})
			// The runtime allocates something now and then.
			if got > 2 {
				t.Errorf("%v allocations in a turn of %d deliveries, want none", got, conns)
			}
			if blocked := l.Stats().WouldBlock; blocked > 0 {
				t.Fatalf("%d writes blocked: this measures something else", blocked)
			}
		})
	}
}

// mallocsPer is testing.AllocsPerRun without its single processor, on which
// the loop and its clients would wait for each other.
func mallocsPer(runs int, f func()) float64 {
	for range 5 {
		f() // lists grow to their size
	}
	before := mallocs()
	for range runs {
		f()
	}
	return float64(mallocs()-before) / float64(runs)
}

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// TestAcceptedSocketsInheritTheirOptions: no system call per connection is
// spent on them.
func TestAcceptedSocketsInheritTheirOptions(t *testing.T) {
	s := serve(t, Config{SendBufferBytes: 96 << 10}, &script{})
	s.open()
	s.on(func() {
		fd := int(s.loops[0].ConnAt(0).fd)
		if n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF); err != nil || n != 96<<10 {
			t.Errorf("send buffer is %d, %v", n, err)
		}
		if on, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY); err != nil || on == 0 {
			t.Errorf("TCP_NODELAY is %d, %v", on, err)
		}
	})
}

// TestWithoutDescriptorsClientsAreRefused: the listener gives up its reserve,
// refuses, and accepts again when there are descriptors.
func TestWithoutDescriptorsClientsAreRefused(t *testing.T) {
	s := serve(t, Config{Log: quiet()}, &script{})
	alive := s.open()
	clients := make([]*client, 0, 3)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	fd, err := unix.Dup(0) // the lowest free descriptor
	if err != nil {
		t.Fatal(err)
	}
	low.Cur = uint64(fd) + 1
	// The client's socket takes the last descriptor.
	if err := unix.Close(fd); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := net.DialTimeout("tcp", s.addr, 5*time.Second)
	if err != nil {
		restore()
		t.Fatal(err)
	}
	c := newClient(t, conn)
	clients = append(clients, c)
	await.True(t, "a connection was refused", func() bool { return s.listener.Starved() == 1 })
	restore()
	_ = clients[0].conn.Close()
	// The listener may have found no descriptor once more before restore, and
	// then waits to refuse somebody.
	await.True(t, "a client is accepted again", func() bool {
		c := s.dial()
		_, _ = c.conn.Write([]byte(handshake)) // it may be closed already
		res, err := http.ReadResponse(c.in, nil)
		return err == nil && res.StatusCode == http.StatusSwitchingProtocols
	})
	alive.write([]byte{0x89, 0x80, 0, 0, 0, 0})
	alive.frame()
}
