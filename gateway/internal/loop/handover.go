package loop

import (
	"bytes"
	"net"
	"sync"

	"github.com/carillon-rt/carillon/gateway/internal/netpoll"
)

// HandOverListener is a net.Listener whose connections are those that loops
// hand over: an http.Server serves it. It is bounded: when pendingMax
// connections wait for Accept, loops answer 503.
type HandOverListener struct {
	// immutable
	addr  net.Addr
	conns chan net.Conn // capacity is pendingMax
	done  chan struct{}

	mu sync.Mutex
	// guarded by mu
	reserved int // places in conns that are taken or promised
	closed   bool
}

// NewHandOverListener makes a listener that says it listens on addr.
func NewHandOverListener(addr net.Addr, pendingMax int) *HandOverListener {
	return &HandOverListener{
		addr:  addr,
		conns: make(chan net.Conn, max(pendingMax, 1)),
		done:  make(chan struct{}),
	}
}

// Accept implements net.Listener. After Close it returns net.ErrClosed.
func (h *HandOverListener) Accept() (net.Conn, error) {
	select {
	case conn := <-h.conns:
		h.release()
		return conn, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener: it closes what nobody accepted. Loops answer
// 503 from then on.
func (h *HandOverListener) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	h.closed = true
	close(h.done)
	for {
		select {
		case conn := <-h.conns:
			_ = conn.Close()
		default:
			return nil
		}
	}
}

// Addr implements net.Listener.
func (h *HandOverListener) Addr() net.Addr { return h.addr }

// reserve promises a place for one connection, if there is one.
func (h *HandOverListener) reserve() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.reserved == cap(h.conns) {
		return false
	}
	h.reserved++
	return true
}

// release gives a place back.
func (h *HandOverListener) release() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reserved--
}

// push uses a promised place. It does not block.
func (h *HandOverListener) push(conn net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		_ = conn.Close()
		return
	}
	h.conns <- conn
}

// handOver gives a connection to net/http, which begins by reading replay.
func (c *core) handOver(s *Conn, replay []byte) {
	h := c.cfg.HandOver
	if h == nil {
		c.refuse(s, 404, "not found")
		return
	}
	if s.dirty { // the answer to the request before it
		c.writer.write(s)
	}
	if s.state != stateHead {
		return // lost
	}
	if s.out != nil {
		c.refuse(s, 503, "the answers before this one have not been read")
		return
	}
	if !h.reserve() {
		c.refuse(s, 503, "too many requests")
		return
	}
	conn, err := c.detach(s)
	c.kill(s)
	if err != nil {
		h.release()
		c.log.Error("hand over connection", "err", err)
		return
	}
	c.stats.handedOver.Add(1)
	h.push(&replayConn{Conn: conn, replay: bytes.Clone(replay)})
}

// detach takes the socket out of the loop.
func (c *core) detach(s *Conn) (net.Conn, error) {
	s.flags |= flagDetached
	if s.pipe != nil {
		return s.pipe.Detach(), nil
	}
	if err := s.watch(netpoll.Read, netpoll.None); err != nil {
		_ = netpoll.CloseFD(int(s.fd))
		return nil, err
	}
	return netpoll.ConnFD(int(s.fd))
}

// replayConn is a net.Conn of which some input was read already.
type replayConn struct {
	net.Conn
	replay []byte // owned by the reader
}

// Read implements net.Conn.
func (r *replayConn) Read(b []byte) (int, error) {
	if len(r.replay) > 0 {
		n := copy(b, r.replay)
		r.replay = r.replay[n:]
		if len(r.replay) == 0 {
			r.replay = nil
		}
		return n, nil
	}
	return r.Conn.Read(b)
}

// CloseWrite ends the sending side where the connection can do that; net/http
// uses it to let a client read an early answer.
func (r *replayConn) CloseWrite() error {
	if c, ok := r.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return nil
}

// TakeBack makes a connection that was handed over one of the loop again,
// because its next request is the handler's. read is what was read of that
// request. It may be called from any goroutine; the connection is the loop's
// from then on, or closed when the loop does not take it, which it reports.
func (c *core) TakeBack(conn net.Conn, read []byte) bool {
	a := arrival{fd: -1, read: bytes.Clone(read)}
	if r, ok := conn.(*replayConn); ok {
		a.read, conn = append(a.read, r.replay...), r.Conn
	}
	if addr, ok := conn.RemoteAddr().(*net.TCPAddr); ok {
		a.addr = addr.AddrPort()
	}
	_, portable := c.poller.(*netpoll.Portable)
	if tcp, ok := conn.(*net.TCPConn); ok && netpoll.Descriptors && !portable {
		fd, err := netpoll.TakeFD(tcp)
		if err != nil {
			c.log.Error("take connection back", "err", err)
			return false
		}
		a.fd = fd
	} else {
		a.conn = conn
	}
	if !c.arrivals.add(a) {
		a.drop()
		return false
	}
	return true
}
