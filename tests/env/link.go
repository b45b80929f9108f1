package env

import (
	"net"
	"sync"
	"testing"
	"time"
)

// Link is the way from one process to the NATS servers, which tests may cut.
type Link struct{ proxies []*proxy }

func newLink(t testing.TB, brokers []*Broker) *Link {
	t.Helper()
	l := &Link{}
	for _, b := range brokers {
		l.proxies = append(l.proxies, newProxy(t, b.client))
	}
	return l
}

// Cut lets nothing through in either direction any more, and tells nobody:
// connections stay, as with a broken cable.
func (l *Link) Cut() { l.set(condition{cut: true}) }

// Sever is Cut that ends the connections, as both sides see at once.
func (l *Link) Sever() {
	l.Cut()
	for _, p := range l.proxies {
		p.hangUp()
	}
}

// Delay holds everything up by d in each direction.
func (l *Link) Delay(d time.Duration) { l.set(condition{delay: d}) }

// Heal ends Cut, Sever and Delay: what was held up arrives, on connections that
// neither side has given up.
func (l *Link) Heal() { l.set(condition{}) }

func (l *Link) set(c condition) {
	for _, p := range l.proxies {
		p.set(c)
	}
}

// condition is what a proxy does with bytes.
type condition struct {
	cut   bool
	delay time.Duration
}

const proxyBuffer = 32 << 10

// proxy passes TCP connections on to one address.
type proxy struct {
	// immutable after newProxy
	target   string
	listener net.Listener
	closed   chan struct{}
	running  sync.WaitGroup

	mu sync.Mutex
	// guarded by mu
	now     condition
	changed chan struct{} // closed at the next change
	conns   map[net.Conn]struct{}
}

// newProxy starts a proxy that ends with the test.
func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("start a proxy: %v", err)
	}
	p := &proxy{
		target: target, listener: l, closed: make(chan struct{}), changed: make(chan struct{}), conns: map[net.Conn]struct{}{},
	}
	p.running.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) set(c condition) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = c
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *proxy) close() {
	close(p.closed)
	p.listener.Close()
	p.hangUp()
	p.running.Wait()
}

// hangUp ends the connections that there are.
func (p *proxy) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return // closed
		}
		p.running.Go(func() { p.serve(client) })
	}
}

// serve passes one connection on, until either side ends it.
func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	if !p.pass() {
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return // as if nobody listened
	}
	defer server.Close()
	if !p.keep(client, server) {
		return
	}
	defer p.forget(client, server)
	var both sync.WaitGroup
	both.Go(func() { p.copy(server, client) })
	p.copy(client, server)
	both.Wait()
}

// keep has close end the connections too; false when it has been called.
func (p *proxy) keep(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = struct{}{}
	}
	select {
	case <-p.closed:
		return false
	default:
		return true
	}
}

func (p *proxy) forget(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		delete(p.conns, c)
	}
}

// copy passes on what one side sends, and its end.
func (p *proxy) copy(to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, proxyBuffer)
	for {
		n, err := from.Read(buf)
		if n > 0 && p.pass() {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			p.pass() // the end comes through a cut as little as bytes do
			return
		}
	}
}

// pass returns when something may go through; false when the proxy is closed.
func (p *proxy) pass() bool {
	waited := false
	for {
		p.mu.Lock()
		now, changed := p.now, p.changed
		p.mu.Unlock()
		var delayed <-chan time.Time
		if !now.cut {
			if now.delay == 0 || waited {
				return true
			}
			delayed = time.After(now.delay)
		}
		select {
		case <-p.closed:
			return false
		case <-changed:
		case <-delayed:
			waited = true
		}
	}
}
