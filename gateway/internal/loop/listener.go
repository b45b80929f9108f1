package loop

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/netpoll"
)

// placeRetry is the pause when all loops have all the arrivals they can take,
// or no descriptors are left; the kernel's backlog holds the rest.
const placeRetry = time.Millisecond

// Listener gives every connection to the loop with the fewest: for connections
// that live for hours, balance matters more than the hand-over of a
// descriptor, which is why loops don't listen for themselves (SO_REUSEPORT
// would spread by hash, lose the backlog of a closed socket, and let a second
// process share the port unnoticed).
//
// Descriptors are accepted by the loops (door.go): whichever the kernel wakes
// keeps most of what it takes, so that a connection costs no other thread. Run
// then only lends a hand when that fails. net.Conns are accepted by Run.
type Listener struct {
	// immutable
	addr     net.Addr
	loops    []*core
	ln       net.Listener      // of net.Conns; nil with fds
	tls      *tls.Config       // nil: no TLS
	fds      *netpoll.Acceptor // nil: connections are net.Conns
	closed   chan struct{}     // closed by Close
	troubles chan trouble      // from loops; room for one of each

	// owned by Run
	reserve *os.File // given up for a moment when descriptors run out

	// atomic
	starved atomic.Int64
	closing sync.Once
}

// Listen binds addr ("host:port", port 0 for any) for loops. Run accepts.
func Listen[M any](addr string, loops ...*Loop[M]) (*Listener, error) {
	return listen(addr, nil, cores(loops))
}

// ListenTLS is Listen with TLS ended here: each connection has a goroutine
// that reads it, and runs on the same loops as all others. Unless cfg says
// otherwise only HTTP/1.1 is negotiated.
func ListenTLS[M any](addr string, cfg *tls.Config, loops ...*Loop[M]) (*Listener, error) {
	if cfg == nil {
		return nil, errors.New("listen with TLS: no TLS configuration")
	}
	cfg = cfg.Clone()
	if len(cfg.NextProtos) == 0 {
		cfg.NextProtos = []string{"http/1.1"}
	}
	return listen(addr, cfg, cores(loops))
}

func cores[M any](loops []*Loop[M]) []*core {
	out := make([]*core, len(loops))
	for i, l := range loops {
		out[i] = &l.core
	}
	return out
}

func listen(addr string, cfg *tls.Config, loops []*core) (*Listener, error) {
	if len(loops) == 0 {
		return nil, errors.New("listen: no loops to give connections to")
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // a slower path through the kernel for every connection
	ln, err := lc.Listen(context.Background(), "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	l := &Listener{
		addr: ln.Addr(), loops: loops, ln: ln, tls: cfg,
		closed: make(chan struct{}), troubles: make(chan trouble, len(loops)),
	}
	if !l.descriptors() {
		return l, nil
	}
	l.ln = nil
	if l.fds, err = netpoll.NewAcceptor(ln, loops[0].cfg.SendBufferBytes); err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	return l, nil
}

// descriptors reports whether connections are watched as descriptors.
func (l *Listener) descriptors() bool {
	_, portable := l.loops[0].poller.(*netpoll.Portable)
	return netpoll.Descriptors && l.tls == nil && !portable
}

// Addr is the address that is listened on.
func (l *Listener) Addr() net.Addr { return l.addr }

// Starved is how many connections were closed for lack of descriptors.
func (l *Listener) Starved() int64 { return l.starved.Load() }

// Close stops accepting; connections live on. Run then returns nil.
func (l *Listener) Close() error {
	var err error
	l.closing.Do(func() {
		close(l.closed)
		if l.fds != nil {
			err = l.fds.Close()
		} else {
			err = l.ln.Close()
		}
	})
	if err != nil {
		return fmt.Errorf("close listener: %w", err)
	}
	return nil
}

// Run accepts until ctx is done or Close is called, and then returns nil.
func (l *Listener) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { _ = l.Close() })()
	l.openReserve()
	defer l.closeReserve()
	if l.fds != nil {
		return l.runDoors(ctx)
	}
	for {
		if err := l.acceptConn(ctx); err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			l.retry(ctx, err)
		}
	}
}

// retry deals with an error of accepting, and pauses before the next try.
func (l *Listener) retry(ctx context.Context, err error) {
	if netpoll.OutOfFiles(err) {
		l.starve()
		pause(ctx, placeRetry)
		return
	}
	l.loops[0].log.Error("accept", "err", err)
	pause(ctx, 10*placeRetry)
}

// acceptConn accepts one net.Conn.
func (l *Listener) acceptConn(ctx context.Context) error {
	conn, err := l.ln.Accept()
	if err != nil {
		return err
	}
	var addr netip.AddrPort
	if tcp, ok := conn.(*net.TCPConn); ok {
		addr = tcp.RemoteAddr().(*net.TCPAddr).AddrPort()
		_ = tcp.SetWriteBuffer(l.loops[0].cfg.SendBufferBytes)
	}
	if l.tls != nil {
		conn = tls.Server(conn, l.tls)
	}
	l.place(ctx, arrival{fd: -1, conn: conn, addr: addr})
	return nil
}

// place gives a net.Conn to the loop with the fewest connections, and waits
// while that one's queue is full.
func (l *Listener) place(ctx context.Context, a arrival) {
	for ctx.Err() == nil {
		best := l.leastLoaded()
		if best == nil {
			break
		}
		if best.arrivals.add(a) {
			return
		}
		pause(ctx, placeRetry)
	}
	a.drop()
}

// leastLoaded returns nil when all loops have stopped.
func (l *Listener) leastLoaded() *core {
	var best *core
	var least int64
	for _, c := range l.loops {
		if len(l.loops) == 1 && !c.arrivals.closed.Load() {
			return c
		}
		if load := c.load(); (best == nil || load < least) && !c.arrivals.closed.Load() {
			best, least = c, load
		}
	}
	return best
}

// starvedAnswer is for clients for whom there is no descriptor.
const starvedAnswer = "HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nRetry-After: 5\r\nContent-Length: 0\r\n\r\n"

// starve frees a descriptor for a moment, to accept one connection and close
// it: its client learns that it was refused instead of waiting in the backlog.
func (l *Listener) starve() {
	l.closeReserve()
	if l.refuseOne() {
		l.starved.Add(1)
	}
	l.openReserve()
}

// refuseOne refuses a connection, if one waits: others may have been faster.
func (l *Listener) refuseOne() bool {
	if l.fds != nil {
		a, err := l.fds.Accept()
		if err != nil {
			return false
		}
		_, _ = netpoll.SendFD(a.FD, []byte(starvedAnswer)) // a courtesy
		_ = netpoll.CloseFD(a.FD)
		return true
	}
	if tcp, ok := l.ln.(*net.TCPListener); ok {
		_ = tcp.SetDeadline(time.Now().Add(10 * placeRetry))
		defer tcp.SetDeadline(time.Time{})
	}
	conn, err := l.ln.Accept()
	if err != nil {
		return false
	}
	_ = conn.SetWriteDeadline(time.Now().Add(10 * placeRetry))
	_, _ = conn.Write([]byte(starvedAnswer))
	_ = conn.Close()
	return true
}

func (l *Listener) openReserve() {
	l.reserve, _ = os.Open(os.DevNull) // without it, starving clients wait
}

func (l *Listener) closeReserve() {
	if l.reserve != nil {
		_ = l.reserve.Close()
		l.reserve = nil
	}
}

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
