package env

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// Balancer is a TCP balancer that gives each connection to the next target in
// turn, whoever it comes from.
type Balancer struct {
	// immutable after NewBalancer
	listener net.Listener
	running  sync.WaitGroup

	next atomic.Uint64

	mu sync.Mutex
	// guarded by mu
	targets []string
	closed  bool
	conns   map[net.Conn]struct{}
}

// NewBalancer starts a balancer that ends with the test. Targets are host:port.
func NewBalancer(t testing.TB, targets ...string) *Balancer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("start a balancer: %v", err)
	}
	b := &Balancer{targets: targets, listener: l, conns: map[net.Conn]struct{}{}}
	b.running.Go(b.accept)
	t.Cleanup(b.close)
	return b
}

// Use has the next connections go to these targets. Those that there are stay.
func (b *Balancer) Use(targets ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.targets = targets
}

// target is whose turn it is.
func (b *Balancer) target() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.targets[int(b.next.Add(1)-1)%len(b.targets)]
}

// Addr is host:port of the balancer.
func (b *Balancer) Addr() string { return b.listener.Addr().String() }

// Connections is how many connections have come so far.
func (b *Balancer) Connections() int { return int(b.next.Load()) }

func (b *Balancer) accept() {
	for {
		client, err := b.listener.Accept()
		if err != nil {
			return // closed
		}
		target := b.target()
		b.running.Go(func() { b.serve(client, target) })
	}
}

// serve passes one connection on, until both sides have ended it.
func (b *Balancer) serve(client net.Conn, target string) {
	defer client.Close()
	server, err := net.Dial("tcp", target)
	if err != nil {
		return // as if nobody listened
	}
	defer server.Close()
	if !b.keep(client, server) {
		return
	}
	defer b.forget(client, server)
	var both sync.WaitGroup
	both.Go(func() { pass(server, client) })
	pass(client, server)
	both.Wait()
}

// pass passes on what one side sends, and its end.
func pass(to, from net.Conn) {
	_, _ = io.Copy(to, from) // an error ends it as an end does
	if tcp, ok := to.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}

func (b *Balancer) keep(conns ...net.Conn) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range conns {
		b.conns[c] = struct{}{}
	}
	return !b.closed
}

func (b *Balancer) forget(conns ...net.Conn) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range conns {
		delete(b.conns, c)
	}
}

func (b *Balancer) close() {
	_ = b.listener.Close()
	b.mu.Lock()
	b.closed = true
	for c := range b.conns {
		_ = c.Close()
	}
	b.mu.Unlock()
	b.running.Wait()
}
