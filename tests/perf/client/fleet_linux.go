// Package client is a load client of the Pusher dialect: thousands of
// connections on one epoll loop, in the caller's goroutine. It counts what
// arrives and answers nothing, so that the load is the server's and hardly
// its own. It must not know what is measured.
package client

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"
)

// ConnectionsMax is how many connections a Fleet may have: a process has
// 20,000 descriptors on ordinary machines.
const ConnectionsMax = 15_000

// atOnceMax is how many connections are being made at a time.
const atOnceMax = 256

// Config says what connects where.
type Config struct {
	// Addr is host:port of the server, an IPv4 address.
	Addr string
	// Key is the app key.
	Key string
	// Connections is how many are made, up to ConnectionsMax.
	Connections int
	// Channels gives the channels of connection i. All must be public.
	Channels func(i int) []string
	// Mark is the byte whose occurrences in payloads are the messages: every
	// publication has to carry exactly one.
	Mark byte
}

// Fleet is a number of connections. It is for one goroutine.
type Fleet struct {
	cfg      Config
	address  syscall.SockaddrInet4
	epoll    int
	conns    []conn
	watchers []watcher // further descriptors on the loop; numbered after conns
	events   []syscall.EpollEvent
	input    []byte

	joined   int // connections that are subscribed
	lost     int // connections that the server has closed
	messages int64
	reads    int64
}

// conn is one connection.
type conn struct {
	fd      int
	wants   int    // subscriptions to be confirmed
	asked   bool   // the subscriptions were sent
	stash   []byte // what came before they were confirmed
	scanner scanner
}

// watcher is told when its descriptor can be read.
type watcher interface{ readable() error }

// New returns a fleet that has no connections yet.
func New(cfg Config) (*Fleet, error) {
	if cfg.Connections < 1 || cfg.Connections > ConnectionsMax {
		return nil, fmt.Errorf("client: %d connections, want 1 to %d", cfg.Connections, ConnectionsMax)
	}
	address, err := resolve(cfg.Addr)
	if err != nil {
		return nil, err
	}
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("client: epoll_create1: %w", err)
	}
	return &Fleet{
		cfg: cfg, address: address, epoll: epoll,
		conns:  make([]conn, 0, cfg.Connections),
		events: make([]syscall.EpollEvent, 512), input: make([]byte, 256<<10),
	}, nil
}

func resolve(addr string) (a syscall.SockaddrInet4, err error) {
	tcp, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return a, fmt.Errorf("client: %w", err)
	}
	a.Port = tcp.Port
	ip := tcp.IP.To4()
	if ip == nil || ip.IsUnspecified() {
		ip = net.IPv4(127, 0, 0, 1).To4()
	}
	copy(a.Addr[:], ip)
	return a, nil
}

// Connect makes the connections and returns when all are subscribed.
func (f *Fleet) Connect(within time.Duration) error {
	deadline := time.Now().Add(within)
	for f.joined < f.cfg.Connections {
		for len(f.conns) < f.cfg.Connections && len(f.conns)-f.joined < atOnceMax {
			if err := f.dial(); err != nil {
				return err
			}
		}
		if err := f.Poll(100 * time.Millisecond); err != nil {
			return err
		}
		if f.lost > 0 {
			return fmt.Errorf("client: the server has closed %d of %d connections", f.lost, len(f.conns))
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("client: %d of %d connections subscribed within %s", f.joined, f.cfg.Connections, within)
		}
	}
	return nil
}

// dial makes one more connection and sends its request.
func (f *Fleet) dial() error {
	fd, err := connect(&f.address)
	if err != nil {
		return err
	}
	i := len(f.conns)
	f.conns = append(f.conns, conn{fd: fd})
	request := "GET /app/" + f.cfg.Key + "?protocol=7&client=perf&version=1 HTTP/1.1\r\nHost: " + f.cfg.Addr +
		"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
	if err := write(fd, []byte(request)); err != nil {
		return err
	}
	return f.watch(fd, i)
}

// connect returns a connected socket that does not block.
func connect(to *syscall.SockaddrInet4) (int, error) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("client: socket: %w", err)
	}
	for {
		err = syscall.Connect(fd, to)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil && !errors.Is(err, syscall.EISCONN) {
		return -1, errors.Join(fmt.Errorf("client: connect: %w", err), syscall.Close(fd))
	}
	err = errors.Join(syscall.SetNonblock(fd, true),
		syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1),
		// A close leaves nothing behind that holds the port.
		syscall.SetsockoptLinger(fd, syscall.SOL_SOCKET, syscall.SO_LINGER, &syscall.Linger{Onoff: 1}))
	if err != nil {
		return -1, errors.Join(err, syscall.Close(fd))
	}
	return fd, nil
}

func (f *Fleet) watch(fd, number int) error {
	ev := syscall.EpollEvent{Events: syscall.EPOLLIN | syscall.EPOLLRDHUP, Fd: int32(number)}
	if err := syscall.EpollCtl(f.epoll, syscall.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return fmt.Errorf("client: epoll_ctl: %w", err)
	}
	return nil
}

// add puts w's descriptor on the loop. Watchers are numbered below zero.
func (f *Fleet) add(fd int, w watcher) error {
	f.watchers = append(f.watchers, w)
	return f.watch(fd, -len(f.watchers))
}

func write(fd int, b []byte) error {
	for {
		n, err := syscall.Write(fd, b)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return fmt.Errorf("client: write: %w", err)
		case n < len(b):
			return errors.New("client: the server does not read: its socket took a part of a request only")
		}
		return nil
	}
}

// Poll reads what is there, after waiting for it up to timeout.
func (f *Fleet) Poll(timeout time.Duration) error {
	n, err := syscall.EpollWait(f.epoll, f.events, int(timeout.Milliseconds()))
	if err != nil && !errors.Is(err, syscall.EINTR) {
		return fmt.Errorf("client: epoll_wait: %w", err)
	}
	for i := range max(n, 0) {
		number := int(f.events[i].Fd)
		if number < 0 {
			err = f.watchers[-number-1].readable()
		} else {
			err = f.read(&f.conns[number], number)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *Fleet) read(c *conn, number int) error {
	n, err := syscall.Read(c.fd, f.input)
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR) {
		return nil
	}
	if err != nil || n == 0 {
		return f.lose(c)
	}
	f.reads++
	if c.wants == 0 && c.asked {
		f.messages += int64(c.scanner.scan(f.input[:n], f.cfg.Mark))
		if c.scanner.closes {
			return f.lose(c)
		}
		return nil
	}
	c.stash = append(c.stash, f.input[:n]...)
	return f.joining(c, number)
}

// lose takes a connection out that the server closes.
func (f *Fleet) lose(c *conn) error {
	f.lost++
	err := syscall.Close(c.fd)
	c.fd = -1
	return err
}

// joining goes on with a connection that is not subscribed yet.
func (f *Fleet) joining(c *conn, number int) error {
	if !c.asked {
		head, rest, complete := bytes.Cut(c.stash, []byte("\r\n\r\n"))
		if !complete {
			return nil
		}
		if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
			return fmt.Errorf("client: connection %d was answered %q", number, head)
		}
		if !bytes.Contains(rest, []byte("pusher:connection_established")) {
			return refused(rest)
		}
		c.stash = append([]byte(nil), rest...)
		if err := f.subscribe(c, number); err != nil {
			return err
		}
	}
	if err := refused(c.stash); err != nil {
		return err
	}
	if bytes.Count(c.stash, []byte(":subscription_succeeded")) == c.wants {
		c.scanner.scan(c.stash, f.cfg.Mark)
		c.stash, c.wants = nil, 0
		f.joined++
	}
	return nil
}

func refused(b []byte) error {
	if bytes.Contains(b, []byte("pusher:error")) {
		return fmt.Errorf("client: the server says %q", b)
	}
	return nil
}

func (f *Fleet) subscribe(c *conn, number int) error {
	var frames []byte
	channels := f.cfg.Channels(number)
	for _, channel := range channels {
		frames = AppendText(frames, []byte(`{"event":"pusher:subscribe","data":{"channel":"`+channel+`"}}`))
	}
	c.asked, c.wants = true, len(channels)
	return write(c.fd, frames)
}

// Await reads until there were total messages since the fleet was made.
func (f *Fleet) Await(total int64, within time.Duration) error {
	deadline := time.Now().Add(within)
	for f.messages < total {
		if time.Now().After(deadline) {
			return fmt.Errorf("client: %d of %d messages within %s", f.messages, total, within)
		}
		if err := f.Poll(50 * time.Millisecond); err != nil {
			return err
		}
		if f.lost > 0 {
			return fmt.Errorf("client: the server has closed %d connections", f.lost)
		}
	}
	return nil
}

// Messages is how many messages all connections have got.
func (f *Fleet) Messages() int64 { return f.messages }

// Reads is how often a connection was read: Messages / Reads is how many
// messages came at once.
func (f *Fleet) Reads() int64 { return f.reads }

// Size is the number of connections.
func (f *Fleet) Size() int { return len(f.conns) }

// Close closes all connections at once, without a close frame.
func (f *Fleet) Close() error {
	var errs []error
	for i := range f.conns {
		if f.conns[i].fd >= 0 {
			errs = append(errs, syscall.Close(f.conns[i].fd))
		}
	}
	for _, w := range f.watchers {
		if c, ok := w.(interface{ close() error }); ok {
			errs = append(errs, c.close())
		}
	}
	errs = append(errs, syscall.Close(f.epoll))
	f.conns, f.watchers = nil, nil
	return errors.Join(errs...)
}
