package netpoll

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sockets returns two connected non-blocking descriptors.
func sockets(t *testing.T) (a, b int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = unix.Close(fds[0]), unix.Close(fds[1]) })
	return fds[0], fds[1]
}

func TestEpollReportsWhatIsWatched(t *testing.T) {
	p, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	a, b := sockets(t)
	events := make([]Event, 4)
	if err := p.Watch(a, 5, 1<<31+1, None, Read); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, p, events, 0); len(got) != 0 {
		t.Fatalf("a silent socket: %+v", got)
	}
	if _, err := SendFD(b, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	want := Event{Slot: 5, Gen: 1<<31 + 1, Readable: true}
	for range 2 { // level-triggered
		if got := wait(t, p, events, -1); len(got) != 1 || got[0] != want {
			t.Fatalf("got %+v", got)
		}
	}
	if err := p.Watch(a, 5, 1<<31+1, Read, ReadWrite); err != nil {
		t.Fatal(err)
	}
	want.Writable = true
	if got := wait(t, p, events, -1); len(got) != 1 || got[0] != want {
		t.Fatalf("got %+v", got)
	}
	if err := p.Watch(a, 5, 1<<31+1, ReadWrite, None); err != nil {
		t.Fatal(err)
	}
	if got := wait(t, p, events, 0); len(got) != 0 {
		t.Fatalf("a socket that isn't watched: %+v", got)
	}
}

func TestDescriptorsNeverWait(t *testing.T) {
	a, b := sockets(t)
	buf := make([]byte, 1<<16)
	if _, err := RecvFD(a, buf); err != ErrAgain {
		t.Fatalf("got %v, want ErrAgain", err)
	}
	var v SendVector
	want := append(bytes.Repeat([]byte("a"), 70_000), "bc"...)
	sent := 0
	for {
		n, err := v.SendAllFD(a, [][]byte{want[:70_000], nil, want[70_000:]})
		sent += n
		if err == ErrAgain || n < len(want) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if _, err := SendFD(a, want); err != ErrAgain && err != nil {
		t.Fatalf("got %v, want ErrAgain", err)
	}
	if n, err := v.SendAllFD(a, nil); n != 0 || err != nil {
		t.Errorf("nothing: %d, %v", n, err)
	}
	n, err := RecvFD(b, buf)
	if err != nil || !bytes.Equal(buf[:n], want[:n]) || sent < n {
		t.Errorf("%d bytes arrived of %d, %v", n, sent, err)
	}
}

func TestDescriptorsTellTheEnd(t *testing.T) {
	a, b := sockets(t)
	if err := ShutdownFD(a); err != nil {
		t.Fatal(err)
	}
	if _, err := RecvFD(b, make([]byte, 1)); err != io.EOF {
		t.Errorf("got %v, want EOF", err)
	}
	if _, err := SendFD(a, []byte("x")); !errors.Is(err, unix.EPIPE) {
		t.Errorf("got %v, want EPIPE and no signal", err)
	}
	if err := CloseFD(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("got %v, want EBADF", err)
	}
}

func TestAcceptorAcceptsUntilClosed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a, err := NewAcceptor(ln, 128<<10)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	e, err := New()
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if err := a.Watch(e, -7, None, Incoming); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Accept(); err != ErrAgain {
		t.Errorf("nobody waits: got %v, want ErrAgain", err)
	}
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	events := make([]Event, 4)
	if n, err := e.Wait(events, time.Minute); n != 1 || err != nil || events[0].Slot != -7 || !events[0].Readable {
		t.Errorf("got %d events, %v, %+v", n, err, events[0])
	}
	got, err := a.Accept()
	if err != nil || got.Addr.String() != client.LocalAddr().String() {
		t.Fatalf("got %+v, %v", got, err)
	}
	conn, err := ConnFD(got.FD)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := errors.Join(a.Watch(e, -7, Incoming, None), a.Watch(e, -7, None, Incoming)); err != nil {
		t.Errorf("end and begin again: %v", err)
	}
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Accept(); err != net.ErrClosed {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
	if err := a.Watch(e, -7, Incoming, None); err != net.ErrClosed {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}

// TestAcceptAllocatesNothing: a gateway takes tens of thousands a second.
func TestAcceptAllocatesNothing(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::]:0"} {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Skip(err) // no IPv6 here
		}
		port := ln.Addr().(*net.TCPAddr).Port
		a, err := NewAcceptor(ln, 128<<10)
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		const runs = 20
		for range runs + 1 {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err := unix.Connect(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				t.Fatal(err)
			}
		}
		if got := testing.AllocsPerRun(runs, func() {
			accepted, err := a.Accept()
			if err != nil || accepted.Addr.Addr().Unmap() != netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
				t.Fatalf("got %+v, %v", accepted, err)
			}
			_ = unix.Close(accepted.FD)
		}); got != 0 {
			t.Errorf("%s: %v allocations per accepted connection, want none", addr, got)
		}
	}
}
