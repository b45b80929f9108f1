// Package null is the denominator of measurements: the least that a Go
// server can do per delivery. One locked thread, one epoll set, raw
// non-blocking sockets and one send per connection and turn. It speaks just
// enough WebSocket and Pusher for the load client: upgrades, pings if they are
// wanted, pongs, closes, "subscribed" to whatever is sent, and a text frame
// that begins with P is sent, without the P, to all connections at the end of
// the turn.
//
// tests/perf/rawloop/c does the same in C: change both together.
package null

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"syscall"
	"time"
)

// server is all state; it belongs to the one thread.
type server struct {
	epoll, listener int
	slow            int // bytes of a queue; 0: nobody may read slowly
	conns           map[int32]*conn
	open            []int32          // upgraded sockets
	queues          map[int32][]byte // what the sockets of slow readers did not take
	input           []byte
	turn            []byte // frames that everybody gets at the end of the turn

	ping     time.Duration // from ping to ping of a connection; 0: there are none
	pinged   time.Time     // when pings were last sent
	due      time.Duration // time of connections since their pings
	pingNext int           // in open
}

const (
	pingMax  = 3600 // seconds
	pingTurn = 100 * time.Millisecond
)

type conn struct {
	place int    // in open, from 1; 0 before the upgrade
	rest  []byte // an incomplete request or frame
}

// Run serves on an IPv4 loopback address (port 0 for any), which it writes to
// out as a line, until the process is killed. With slow 0 it also ends when a
// client does not read fast enough: nothing could be measured then. With more
// it keeps up to that many bytes for each such client, and closes the
// connections of those that need more. Each connection gets a ping every ping
// seconds, none with 0.
func Run(listen string, slow, ping int, out io.Writer) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	at, err := netip.ParseAddrPort(listen)
	if err != nil || !at.Addr().Is4() || !at.Addr().IsLoopback() || slow < 0 || ping < 0 || ping > pingMax {
		return fmt.Errorf("listen %s, slow %d, ping %d: want an IPv4 loopback address such as 127.0.0.1:0, 0 or more bytes, and 0 to %d seconds",
			listen, slow, ping, pingMax)
	}
	s := &server{slow: slow, ping: time.Duration(ping) * time.Second, conns: map[int32]*conn{}, queues: map[int32][]byte{}, input: make([]byte, 64<<10)}
	addr, err := s.listen(at)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintln(out, addr); err != nil {
		return err
	}
	events := make([]syscall.EpollEvent, 256)
	for {
		timeout, err := s.pings()
		if err != nil {
			return err
		}
		n, err := syscall.EpollWait(s.epoll, events, timeout)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for i := range max(n, 0) {
			if err := s.ready(events[i]); err != nil {
				return err
			}
		}
		if err := s.flush(); err != nil {
			return err
		}
	}
}

func (s *server) ready(event syscall.EpollEvent) error {
	if int(event.Fd) == s.listener {
		return s.accept()
	}
	if event.Events&syscall.EPOLLOUT != 0 {
		if err := s.writable(event.Fd); err != nil {
			return err
		}
	}
	if event.Events&^syscall.EPOLLOUT != 0 {
		return s.readable(event.Fd)
	}
	return nil
}

func (s *server) listen(on netip.AddrPort) (string, error) {
	var err error
	if s.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return "", fmt.Errorf("epoll_create1: %w", err)
	}
	s.listener, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("socket: %w", err)
	}
	if err := syscall.Bind(s.listener, &syscall.SockaddrInet4{Addr: on.Addr().As4(), Port: int(on.Port())}); err != nil {
		return "", fmt.Errorf("bind: %w", err)
	}
	if err := syscall.Listen(s.listener, 4096); err != nil {
		return "", fmt.Errorf("listen: %w", err)
	}
	name, err := syscall.Getsockname(s.listener)
	if err != nil {
		return "", fmt.Errorf("getsockname: %w", err)
	}
	at, ok := name.(*syscall.SockaddrInet4)
	if !ok {
		return "", fmt.Errorf("bound to %T", name)
	}
	bound := netip.AddrPortFrom(on.Addr(), uint16(at.Port))
	return bound.String(), s.watch(syscall.EPOLL_CTL_ADD, s.listener, syscall.EPOLLIN)
}

func (s *server) watch(operation, fd int, events uint32) error {
	if err := syscall.EpollCtl(s.epoll, operation, fd, &syscall.EpollEvent{Events: events, Fd: int32(fd)}); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

func (s *server) accept() error {
	for {
		fd, _, err := syscall.Accept4(s.listener, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		if errors.Is(err, syscall.EAGAIN) {
			return nil
		}
		if errors.Is(err, syscall.ECONNABORTED) {
			continue
		}
		if err != nil {
			return fmt.Errorf("accept4: %w", err)
		}
		if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
			return fmt.Errorf("setsockopt: %w", err)
		}
		s.conns[int32(fd)] = &conn{}
		if err := s.watch(syscall.EPOLL_CTL_ADD, fd, syscall.EPOLLIN); err != nil {
			return err
		}
	}
}
