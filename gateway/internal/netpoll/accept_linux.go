package netpoll

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// acceptBatch is how many connections one call accepts at most.
const acceptBatch = 64

// PrepareListener sets on the listening socket what accepted ones inherit:
// no delay for small writes, and the send buffer. That saves two system calls
// per connection.
func PrepareListener(ln net.Listener, sendBufferBytes int) error {
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return fmt.Errorf("listener is a %T, not TCP", ln)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var optErr error
	err = raw.Control(func(fd uintptr) {
		optErr = errors.Join(
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
			// The kernel doubles the value, for its own bookkeeping.
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, sendBufferBytes/2),
		)
	})
	return errors.Join(err, optErr)
}

// Acceptor accepts descriptors from a listener, without the cost of a net.Conn
// for each. Waiting is done by Go's own poller: no thread is held.
type Acceptor struct {
	file  *os.File // a duplicate: a net.TCPListener gives no access for reading
	raw   syscall.RawConn
	batch []Accepted // owned by the caller of Accept

	closed atomic.Bool
}

// NewAcceptor returns an Acceptor of a TCP listener, with a descriptor of its
// own: both must be closed.
func NewAcceptor(ln net.Listener) (*Acceptor, error) {
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return nil, fmt.Errorf("listener is a %T, not TCP", ln)
	}
	file, err := tcp.File()
	if err != nil {
		return nil, err
	}
	raw, err := file.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &Acceptor{file: file, raw: raw}, nil
}

// Close makes Accept, also one under way, return net.ErrClosed.
func (a *Acceptor) Close() error {
	if a.closed.Swap(true) {
		return nil
	}
	return a.file.Close()
}

// Accept waits for connections and returns up to 64 of them, valid until the
// next call. With an error there may be some too. After Close the error is
// net.ErrClosed.
func (a *Acceptor) Accept() ([]Accepted, error) {
	a.batch = a.batch[:0]
	var failed error
	err := a.raw.Read(func(fd uintptr) bool {
		for len(a.batch) < acceptBatch {
			conn, from, err := unix.Accept4(int(fd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if err == unix.EINTR || err == unix.ECONNABORTED {
				continue
			}
			if err == unix.EAGAIN {
				return len(a.batch) > 0
			}
			if err != nil {
				failed = os.NewSyscallError("accept4", err)
				return true
			}
			a.batch = append(a.batch, Accepted{conn, addrPort(from)})
		}
		return true
	})
	if err != nil && a.closed.Load() {
		return a.batch, net.ErrClosed // what the file says has no type to ask for
	}
	return a.batch, errors.Join(err, failed)
}

func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), uint16(sa.Port))
	}
	return netip.AddrPort{}
}
