package env

import (
	"net"
	"sync"
	"testing"
	"time"
)

// condition is what a gate does with bytes.
type condition struct {
	cut   bool
	delay time.Duration
}

// gate is what bytes pass on their way, unless it is shut. Any goroutine may
// use it.
type gate struct {
	mu sync.Mutex
	// guarded by mu
	now     condition
	changed chan struct{} // closed at the next change
}

func newGate() *gate { return &gate{changed: make(chan struct{})} }

func (g *gate) set(c condition) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now = c
	close(g.changed)
	g.changed = make(chan struct{})
}

func (g *gate) state() (now condition, changed <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.now, g.changed
}

// pass returns when something may go through; false when given up before.
func (g *gate) pass(giveUp <-chan struct{}) bool {
	waited := false
	for {
		now, changed := g.state()
		var delayed <-chan time.Time
		if !now.cut {
			if now.delay == 0 || waited {
				return true
			}
			delayed = time.After(now.delay)
		}
		select {
		case <-giveUp:
			return false
		case <-changed:
		case <-delayed:
			waited = true
		}
	}
}

const proxyBuffer = 32 << 10

// proxy passes TCP connections on to one address.
type proxy struct {
	// immutable after newProxy
	name     string // of who listens there
	target   string
	listener net.Listener
	gate     *gate                       // of all connections, unless gateOf says otherwise
	gateOf   func(client net.Conn) *gate // nil: the connection is refused
	closed   chan struct{}
	running  sync.WaitGroup

	mu sync.Mutex
	// guarded by mu
	conns map[net.Conn]*gate
}

// startProxy starts a proxy that ends with the test.
func startProxy(t testing.TB, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("start a proxy: %v", err)
	}
	p := newProxy(l, target)
	p.start(t)
	return p
}

func newProxy(l net.Listener, target string) *proxy {
	p := &proxy{target: target, listener: l, gate: newGate(), closed: make(chan struct{}), conns: map[net.Conn]*gate{}}
	p.gateOf = func(net.Conn) *gate { return p.gate }
	return p
}

// start accepts until the test ends.
func (p *proxy) start(t testing.TB) {
	p.running.Go(p.accept)
	t.Cleanup(p.close)
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) close() {
	close(p.closed)
	p.listener.Close()
	p.hangUp(nil)
	p.running.Wait()
}

// hangUp ends the connections that there are, of one gate or of all (nil).
func (p *proxy) hangUp(of *gate) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c, g := range p.conns {
		if of == nil || g == of {
			c.Close()
		}
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
	gate := p.gateOf(client)
	if gate == nil || !gate.pass(p.closed) {
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		return // as if nobody listened
	}
	defer server.Close()
	if !p.keep(gate, client, server) {
		return
	}
	defer p.forget(client, server)
	var both sync.WaitGroup
	both.Go(func() { p.copy(gate, server, client) })
	p.copy(gate, client, server)
	both.Wait()
}

// keep has close end the connections too; false when it has been called.
func (p *proxy) keep(gate *gate, conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		p.conns[c] = gate
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
func (p *proxy) copy(gate *gate, to, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, proxyBuffer)
	for {
		n, err := from.Read(buf)
		if n > 0 && gate.pass(p.closed) {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			gate.pass(p.closed) // the end comes through a cut as little as bytes do
			return
		}
	}
}
