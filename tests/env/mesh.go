package env

import (
	"net"
	"slices"
	"sync"
	"testing"
)

// Mesh is the ways between processes of which each speaks with all others:
// gossip, or the routes of NATS servers. Each is reached through a proxy of
// its own, whose address it gives as its own; who is at the other end of a
// connection is found out from the system. Tests may cut the ways between
// some and all others.
type Mesh struct {
	t testing.TB

	mu sync.Mutex
	// guarded by mu
	members []*meshMember
	gates   map[[2]string]*gate
	splits  map[*[]string]struct{} // those that are not healed
}

// meshMember is one process of a Mesh.
type meshMember struct {
	name    string
	process func() int // its id, 0 while it has none
	target  string     // where it listens
	proxy   *proxy
	packets *net.UDPConn // takes those to it; nil without
}

func newMesh(t testing.TB) *Mesh {
	return &Mesh{t: t, gates: map[[2]string]*gate{}, splits: map[*[]string]struct{}{}}
}

// join adds a process that listens at target, and says where the others reach
// it. With packets it has UDP at the same port, which it also sends from.
func (m *Mesh) join(name, target string, process func() int, packets bool) (addr string) {
	m.t.Helper()
	member := &meshMember{name: name, process: process, target: target}
	var l net.Listener
	var err error
	for range 100 { // the port may be taken for UDP
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil || !packets {
			break
		}
		at := l.Addr().(*net.TCPAddr)
		if member.packets, err = net.ListenUDP("udp", &net.UDPAddr{IP: at.IP, Port: at.Port}); err == nil {
			break
		}
		l.Close()
	}
	if err != nil {
		m.t.Fatalf("start a proxy of %s: %v", name, err)
	}
	member.proxy = newProxy(l, target)
	member.proxy.gateOf = func(c net.Conn) *gate { return m.between(m.caller(c), name) }
	m.mu.Lock()
	m.members = append(m.members, member)
	m.mu.Unlock()
	member.proxy.start(m.t)
	if packets {
		m.passPackets(member)
	}
	return member.proxy.addr()
}

// passPackets passes on what comes for a member, until the test ends.
func (m *Mesh) passPackets(to *meshMember) {
	target, err := net.ResolveUDPAddr("udp", to.target)
	if err != nil {
		m.t.Fatalf("%s listens at %s: %v", to.name, to.target, err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		buf := make([]byte, proxyBuffer<<1)
		for {
			n, from, err := to.packets.ReadFromUDP(buf)
			if err != nil {
				return // closed
			}
			g := m.between(m.sender(from), to.name)
			if g == nil {
				continue
			}
			if now, _ := g.state(); !now.cut {
				_, _ = to.packets.WriteToUDP(buf[:n], target) // packets may be lost
			}
		}
	}()
	m.t.Cleanup(func() {
		to.packets.Close()
		<-ended
	})
}

// sender is the member that sends packets from this address; "" if none does.
func (m *Mesh) sender(from net.Addr) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, member := range m.members {
		if member.target == from.String() {
			return member.name
		}
	}
	return ""
}

// caller is the member that made a connection; "" if none did.
func (m *Mesh) caller(c net.Conn) string {
	m.mu.Lock()
	members := slices.Clone(m.members)
	m.mu.Unlock()
	socket := socketOf(c.RemoteAddr(), c.LocalAddr())
	if socket == "" {
		return ""
	}
	for _, member := range members {
		if hasOpen(member.process(), socket) {
			return member.name
		}
	}
	return ""
}

// between is the gate on the way between two members, nil when either is
// nobody.
func (m *Mesh) between(a, b string) *gate {
	if a == "" || b == "" {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	pair := pairOf(a, b)
	g := m.gates[pair]
	if g == nil {
		g = newGate()
		g.set(condition{cut: m.apart(pair)})
		m.gates[pair] = g
	}
	return g
}

func pairOf(a, b string) [2]string {
	return [2]string{min(a, b), max(a, b)}
}

// apart says whether a split lies between two members.
func (m *Mesh) apart(pair [2]string) bool {
	for side := range m.splits {
		if slices.Contains(*side, pair[0]) != slices.Contains(*side, pair[1]) {
			return true
		}
	}
	return false
}

// Split lets nothing through between these members and all others, and ends
// the connections that there are if they are to notice. Splits may overlap.
func (m *Mesh) Split(notice bool, side ...string) (heal func()) {
	m.t.Helper()
	for _, name := range side {
		if !m.has(name) {
			m.t.Fatalf("split a mesh: %s is not in it", name)
		}
	}
	m.change(func() { m.splits[&side] = struct{}{} }, notice)
	return func() { m.change(func() { delete(m.splits, &side) }, false) }
}

func (m *Mesh) has(name string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.ContainsFunc(m.members, func(of *meshMember) bool { return of.name == name })
}

// change makes a change of the splits true for all gates.
func (m *Mesh) change(how func(), notice bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	how()
	for pair, g := range m.gates {
		now, _ := g.state()
		if cut := m.apart(pair); cut != now.cut {
			g.set(condition{cut: cut})
			if cut && notice {
				m.hangUp(g)
			}
		}
	}
}

func (m *Mesh) hangUp(of *gate) {
	for _, member := range m.members {
		member.proxy.hangUp(of)
	}
}
