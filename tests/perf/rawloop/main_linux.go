// Command rawloop is the denominator of the measurements: the least that a Go
// server can do per delivery. One locked thread, one epoll set, raw
// non-blocking sockets and one send per connection and turn. It speaks just
// enough WebSocket and Pusher for the load client: upgrades, "subscribed" to
// whatever is sent, and a text frame that begins with P is sent, without the
// P, to all connections.
//
// It prints its address and runs until it is killed.
package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"
	"unsafe"
)

func main() {
	runtime.LockOSThread()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "rawloop:", err)
		os.Exit(1)
	}
}

// server is all state; it belongs to the one thread.
type server struct {
	epoll, listener int
	conns           map[int32]*conn
	open            []int32 // upgraded sockets
	input           []byte
	turn            []byte // frames that everybody gets at the end of the turn
}

type conn struct {
	upgraded bool
	rest     []byte // an incomplete request or frame
}

func run() error {
	s := &server{conns: map[int32]*conn{}, input: make([]byte, 64<<10)}
	addr, err := s.listen()
	if err != nil {
		return err
	}
	fmt.Println(addr)
	events := make([]syscall.EpollEvent, 256)
	for {
		n, err := syscall.EpollWait(s.epoll, events, -1)
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for i := range max(n, 0) {
			if fd := events[i].Fd; int(fd) == s.listener {
				err = s.accept()
			} else {
				err = s.readable(fd)
			}
			if err != nil {
				return err
			}
		}
		if err := s.flush(); err != nil {
			return err
		}
	}
}

func (s *server) listen() (string, error) {
	var err error
	if s.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return "", fmt.Errorf("epoll_create1: %w", err)
	}
	s.listener, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("socket: %w", err)
	}
	if err := syscall.Bind(s.listener, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
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
	return fmt.Sprintf("127.0.0.1:%d", at.Port), s.watch(s.listener)
}

func (s *server) watch(fd int) error {
	return syscall.EpollCtl(s.epoll, syscall.EPOLL_CTL_ADD, fd, &syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)})
}

func (s *server) accept() error {
	for {
		fd, _, err := syscall.Accept4(s.listener, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
		if errors.Is(err, syscall.EAGAIN) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept4: %w", err)
		}
		if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
			return fmt.Errorf("setsockopt: %w", err)
		}
		s.conns[int32(fd)] = &conn{}
		if err := s.watch(fd); err != nil {
			return fmt.Errorf("epoll_ctl: %w", err)
		}
	}
}

func (s *server) readable(fd int32) error {
	c := s.conns[fd]
	n, err := syscall.Read(int(fd), s.input)
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
		return nil
	}
	if err != nil || n == 0 {
		s.drop(fd)
		return nil
	}
	c.rest = append(c.rest, s.input[:n]...)
	if !c.upgraded {
		if err := s.upgrade(fd, c); err != nil {
			return err
		}
	}
	for c.upgraded {
		payload, rest, complete := frame(c.rest)
		if !complete {
			break
		}
		if err := s.message(fd, payload); err != nil {
			return err
		}
		c.rest = rest
	}
	if len(c.rest) == 0 {
		c.rest = nil
	}
	return nil
}

func (s *server) drop(fd int32) {
	_ = syscall.Close(int(fd)) // gone either way
	delete(s.conns, fd)
	for i, open := range s.open {
		if open == fd {
			s.open[i] = s.open[len(s.open)-1]
			s.open = s.open[:len(s.open)-1]
			return
		}
	}
}

const established = `{"event":"pusher:connection_established","data":"{\"socket_id\":\"1.1\",\"activity_timeout\":120}"}`

func (s *server) upgrade(fd int32, c *conn) error {
	head, rest, complete := bytes.Cut(c.rest, []byte("\r\n\r\n"))
	if !complete {
		return nil
	}
	_, key, found := bytes.Cut(head, []byte("Sec-WebSocket-Key: "))
	if !found {
		return fmt.Errorf("a request without Sec-WebSocket-Key: %q", head)
	}
	key, _, _ = bytes.Cut(key, []byte("\r\n"))
	sum := sha1.Sum(append(bytes.Clone(key), "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"...))
	answer := []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n")
	c.upgraded, c.rest = true, bytes.Clone(rest)
	s.open = append(s.open, fd)
	return send(fd, text(answer, []byte(established)))
}

// message answers a subscription, or takes a publication for the end of the
// turn.
func (s *server) message(fd int32, payload []byte) error {
	if len(payload) > 0 && payload[0] == 'P' {
		s.turn = text(s.turn, payload[1:])
		return nil
	}
	return send(fd, text(nil, []byte(`{"event":"pusher_internal:subscription_succeeded","channel":"any","data":"{}"}`)))
}

// flush sends the turn's frames to everybody.
func (s *server) flush() error {
	if len(s.turn) == 0 {
		return nil
	}
	for _, fd := range s.open {
		if err := send(fd, s.turn); err != nil {
			return err
		}
	}
	s.turn = s.turn[:0]
	return nil
}

// send is the system call that is measured.
func send(fd int32, b []byte) error {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)),
		syscall.MSG_DONTWAIT|syscall.MSG_NOSIGNAL, 0, 0)
	if errno != 0 && errno != syscall.EPIPE && errno != syscall.ECONNRESET {
		return fmt.Errorf("send: %w: nothing can be measured with clients that do not read", errno)
	}
	if errno == 0 && int(n) < len(b) {
		return errors.New("send: took a part only: nothing can be measured with clients that do not read")
	}
	return nil
}

// text appends payload as a server's text frame.
func text(dst, payload []byte) []byte {
	dst = append(dst, 0x81)
	if n := len(payload); n < 126 {
		dst = append(dst, byte(n))
	} else {
		dst = append(dst, 126)
		dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	}
	return append(dst, payload...)
}

// frame takes a client's frame off b, up to 64 KiB, and unmasks it in place.
func frame(b []byte) (payload, rest []byte, complete bool) {
	if len(b) < 6 {
		return nil, b, false
	}
	at, size := 2, int(b[1]&0x7f)
	if size == 126 {
		at, size = 4, int(binary.BigEndian.Uint16(b[2:4]))
	}
	if len(b) < at+4+size {
		return nil, b, false
	}
	mask := b[at : at+4]
	payload = b[at+4 : at+4+size]
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return payload, b[at+4+size:], true
}
