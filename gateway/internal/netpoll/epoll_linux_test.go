package netpoll

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"

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

func TestAcceptorEndsWhenClosed(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := NewAcceptor(ln)
	if err != nil {
		t.Fatal(err)
	}
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	batch, err := a.Accept()
	if err != nil || len(batch) != 1 || batch[0].Addr.String() != client.LocalAddr().String() {
		t.Fatalf("got %+v, %v", batch, err)
	}
	conn, err := ConnFD(batch[0].FD)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ended := make(chan error, 1)
	go func() { _, err := a.Accept(); ended <- err }()
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != net.ErrClosed {
		t.Errorf("got %v, want net.ErrClosed", err)
	}
}
