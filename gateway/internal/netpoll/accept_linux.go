package netpoll

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Acceptor is a listening socket that loops accept from on their own threads,
// without the cost of a net.Conn, of an allocation or of the scheduler's hooks
// for each connection. It may be used by several goroutines.
type Acceptor struct {
	fd int // immutable

	mu sync.RWMutex // held for reading while fd is used: its number must not be another's
	// guarded by mu
	closed bool
}

// NewAcceptor takes a TCP listener's socket over: ln is closed in any case,
// the port stays bound until Close. The socket must not be on Go's own poller
// as well, which would wake a thread for every connection.
//
// What accepted sockets inherit is set here: no delay for small writes, and
// the send buffer. That saves two system calls per connection.
func NewAcceptor(ln net.Listener, sendBufferBytes int) (*Acceptor, error) {
	a := &Acceptor{fd: -1}
	err := a.duplicate(ln, sendBufferBytes)
	if err = errors.Join(err, ln.Close()); err != nil {
		return nil, errors.Join(err, a.Close())
	}
	return a, nil
}

func (a *Acceptor) duplicate(ln net.Listener, sendBufferBytes int) error {
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return fmt.Errorf("listener is a %T, not TCP", ln)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return err
	}
	var opErr error
	err = raw.Control(func(fd uintptr) {
		opErr = errors.Join(
			unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
			// The kernel doubles the value, for its own bookkeeping.
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_SNDBUF, sendBufferBytes/2),
		)
		if opErr == nil {
			a.fd, opErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
		}
	})
	return errors.Join(err, opErr)
}

// Close stops listening: Accept and Watch return net.ErrClosed from then on,
// and pollers forget the socket.
func (a *Acceptor) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil
	}
	a.closed = true
	if a.fd < 0 {
		return nil
	}
	return CloseFD(a.fd)
}

// Watch changes whether p is told of connections; see Poller.Watch. Of several
// pollers that watch for Incoming, at least one is told.
func (a *Acceptor) Watch(p Poller, slot int32, from, to Interest) error {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.closed {
		return net.ErrClosed
	}
	return p.Watch(a.fd, slot, 0, from, to)
}

// Accept takes one connection. It returns ErrAgain when none waits, and
// net.ErrClosed after Close.
func (a *Acceptor) Accept() (Accepted, error) {
	a.mu.RLock()
	defer a.mu.RUnlock()
	if a.closed {
		return Accepted{}, net.ErrClosed
	}
	for {
		var from unix.RawSockaddrAny
		size := uint32(unix.SizeofSockaddrAny)
		fd, _, errno := syscall.RawSyscall6(unix.SYS_ACCEPT4, uintptr(a.fd),
			uintptr(unsafe.Pointer(&from)), uintptr(unsafe.Pointer(&size)), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
		switch errno {
		case 0:
			return Accepted{int(fd), addrPort(&from)}, nil
		case unix.EINTR, unix.ECONNABORTED:
			continue
		case unix.EAGAIN:
			return Accepted{}, ErrAgain
		}
		return Accepted{}, os.NewSyscallError("accept4", errno)
	}
}

func addrPort(from *unix.RawSockaddrAny) netip.AddrPort {
	switch from.Addr.Family {
	case unix.AF_INET:
		sa := (*unix.RawSockaddrInet4)(unsafe.Pointer(from))
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), hostOrder(sa.Port))
	case unix.AF_INET6:
		sa := (*unix.RawSockaddrInet6)(unsafe.Pointer(from))
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), hostOrder(sa.Port))
	}
	return netip.AddrPort{}
}

// hostOrder is a port that the kernel wrote in network order.
func hostOrder(port uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(&port))
	return uint16(b[0])<<8 | uint16(b[1])
}
