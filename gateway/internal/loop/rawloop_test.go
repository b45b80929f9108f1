//go:build linux

package loop

import (
	"net"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/carillon-rt/carillon/gateway/internal/ws"
	"golang.org/x/sys/unix"
)

// rawLoop is the least that a Go program can do to fan out: one thread, one
// epoll set, a prepared frame, one sendto per socket. It is the limit that
// Loop is measured against.
type rawLoop struct {
	epfd, wakefd int
	fds          []int32
	mu           sync.Mutex
	queue        []func() // guarded by mu
	running      sync.WaitGroup
}

func startRaw(t testing.TB, conns int) (*rawLoop, *bareClients) {
	t.Helper()
	r := &rawLoop{}
	var err error
	if r.epfd, err = unix.EpollCreate1(0); err != nil {
		t.Fatal(err)
	}
	if r.wakefd, err = unix.Eventfd(0, unix.EFD_NONBLOCK); err != nil {
		t.Fatal(err)
	}
	r.watch(t, r.wakefd)
	clients := &bareClients{t: t}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	to := &unix.SockaddrInet4{Port: ln.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}
	for range conns {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
		if err != nil {
			t.Fatal(err)
		}
		clients.fds = append(clients.fds, fd)
		if err := unix.Connect(fd, to); err != nil {
			t.Fatal(err)
		}
		conn, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		r.fds = append(r.fds, r.take(t, conn.(*net.TCPConn)))
	}
	t.Cleanup(clients.close)
	r.running.Go(r.run)
	t.Cleanup(func() { r.post(nil); r.running.Wait() })
	return r, clients
}

// take makes a bare descriptor of a connection.
func (r *rawLoop) take(t testing.TB, conn *net.TCPConn) int32 {
	t.Helper()
	f, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = f.Close(), conn.Close()
	if err := unix.SetNonblock(fd, true); err != nil {
		t.Fatal(err)
	}
	r.watch(t, fd)
	return int32(fd)
}

func (r *rawLoop) watch(t testing.TB, fd int) {
	t.Helper()
	if err := unix.EpollCtl(r.epfd, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
		t.Fatal(err)
	}
}

// post runs f on the loop's thread; nil stops it.
func (r *rawLoop) post(f func()) {
	r.mu.Lock()
	r.queue = append(r.queue, f)
	r.mu.Unlock()
	one := [8]byte{1}
	_, _ = unix.Write(r.wakefd, one[:])
}

func (r *rawLoop) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer func() {
		for _, fd := range append(r.fds, int32(r.epfd), int32(r.wakefd)) {
			_ = unix.Close(int(fd))
		}
	}()
	events := make([]unix.EpollEvent, 256)
	var count [8]byte
	for {
		n, _, _ := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(r.epfd), uintptr(unsafe.Pointer(&events[0])), 256, 0, 0, 0)
		if int(n) <= 0 {
			_, _ = unix.EpollWait(r.epfd, events, -1)
		}
		_, _ = unix.Read(r.wakefd, count[:])
		r.mu.Lock()
		queue := r.queue
		r.queue = nil
		r.mu.Unlock()
		for _, f := range queue {
			if f == nil {
				return
			}
			f()
		}
	}
}

// fanout sends one frame to every socket.
func (r *rawLoop) fanout(frame []byte) {
	for _, fd := range r.fds {
		_, _, _ = syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&frame[0])), uintptr(len(frame)), unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL, 0, 0)
	}
}

// threadCPU is the user and system time of the calling thread.
func threadCPU() time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_THREAD, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// contender is one of the two loops of the comparison.
type contender struct {
	post    func(func())
	publish func()
	clients *bareClients
}

// cpu publishes turns times, each after the clients have read the one before,
// and returns the CPU time of the loop's thread.
func (c *contender) cpu(turns, bytesEach int, buf []byte) time.Duration {
	done := make(chan struct{}, 1)
	var began, ended time.Duration
	c.post(func() { began = threadCPU(); done <- struct{}{} })
	<-done
	for range turns {
		c.post(c.publish)
		c.clients.drain(buf, bytesEach)
	}
	c.post(func() { ended = threadCPU(); done <- struct{}{} })
	<-done
	return ended - began
}

// BenchmarkFanoutAgainstRawLoop measures the CPU time of a delivery on the
// loop's thread, kernel included, against the raw loop with the same clients,
// alternating. It fails above 1.5 times the raw loop's.
func BenchmarkFanoutAgainstRawLoop(b *testing.B) {
	for _, c := range []struct {
		name          string
		conns, frames int
	}{
		{"1000 connections", 1000, 1},
		{"1000 connections, 16 frames per turn", 1000, 16},
		{"4000 connections", 4000, 1},
	} {
		b.Run(c.name, func(b *testing.B) { compare(b, c.conns, c.frames) })
	}
}

func compare(b *testing.B, conns, frames int) {
	payload := make([]byte, 64)
	frame := &Frame{Bytes: ws.AppendText(nil, payload)}
	var joined []byte
	for range frames {
		joined = append(joined, frame.Bytes...)
	}
	raw, rawClients := startRaw(b, conns)
	var slots []int32
	s := serve(b, Config{}, &script{open: func(c *Conn) { slots = append(slots, c.Handle().Slot) }})
	ours := &contender{clients: openBare(b, s.listener.Addr(), conns), post: func(f func()) { s.loops[0].Post(f) }, publish: func() {
		for _, slot := range slots {
			c := s.loops[0].ConnAt(slot)
			for range frames {
				c.SendShared(frame)
			}
		}
	}}
	limit := &contender{clients: rawClients, post: raw.post, publish: func() { raw.fanout(joined) }}
	const rounds = 9
	turns := max(100_000/conns/frames, 10)
	buf := make([]byte, 64<<10)
	limit.cpu(turns, len(joined), buf)
	ours.cpu(turns, len(joined), buf)
	b.ResetTimer()
	for range b.N {
		var ratios, raws, loops []float64
		for range rounds {
			r := limit.cpu(turns, len(joined), buf)
			l := ours.cpu(turns, len(joined), buf)
			deliveries := float64(turns * conns * frames)
			raws = append(raws, float64(r.Nanoseconds())/1000/deliveries)
			loops = append(loops, float64(l.Nanoseconds())/1000/deliveries)
			ratios = append(ratios, float64(l)/float64(r))
		}
		ratio := median(ratios)
		b.ReportMetric(median(raws), "raw-us/delivery")
		b.ReportMetric(median(loops), "loop-us/delivery")
		b.ReportMetric(ratio, "ratio")
		b.Logf("ratios %.2f", ratios)
		if ratio > 1.5 {
			b.Errorf("a delivery costs %.2f times the raw loop's, want at most 1.5", ratio)
		}
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return v[len(v)/2]
}
