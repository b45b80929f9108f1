package env

import (
	"net"
	"os"
	"testing"
	"time"
)

func nobody() int { return 0 }

// mesh makes one of a, which this process is, and b, which is an echo.
func mesh(t *testing.T) (m *Mesh, b *proxy) {
	t.Helper()
	m = newMesh(t)
	m.join("a", echo(t), os.Getpid, false)
	m.join("b", echo(t), nobody, false)
	return m, m.members[1].proxy
}

func TestSplitHoldsEverythingUntilHealed(t *testing.T) {
	m, b := mesh(t)
	before := dialProxy(t, b)
	exchange(t, before, "one")
	heal := m.Split(false, "b")
	during := dialProxy(t, b)
	send(t, before, "two")
	send(t, during, "three")
	for _, c := range []net.Conn{before, during} {
		if err := c.SetReadDeadline(time.Now()); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 8)); err == nil {
			t.Errorf("%d bytes came through a split", n)
		}
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	heal()
	receive(t, before, "two")
	receive(t, during, "three")
}

func TestSplitThatIsNoticedEndsConnections(t *testing.T) {
	m, b := mesh(t)
	c := dialProxy(t, b)
	exchange(t, c, "one")
	heal := m.Split(true, "a")
	if n, err := c.Read(make([]byte, 8)); err == nil {
		t.Errorf("%d bytes came through a split", n)
	}
	heal()
	exchange(t, dialProxy(t, b), "two")
}

// Two splits that lie between the same members are healed when both are.
func TestSplitsOverlap(t *testing.T) {
	m, b := mesh(t)
	c := dialProxy(t, b)
	first, second := m.Split(false, "a"), m.Split(false, "b")
	first()
	if now, _ := m.between("a", "b").state(); !now.cut {
		t.Error("the second split is healed with the first one")
	}
	second()
	exchange(t, c, "one")
	both := m.Split(true, "a", "b")
	exchange(t, c, "two") // on the same side
	both()
}

func TestStrangersAreRefused(t *testing.T) {
	m := newMesh(t)
	m.join("b", echo(t), nobody, false)
	if n, err := dialProxy(t, m.members[0].proxy).Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes from b for who is not in the mesh", n)
	}
}

// packets listens at a port of its own.
func packets(t *testing.T) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// Packets between two sides of a split are lost; others are not.
func TestSplitLosesPackets(t *testing.T) {
	m := newMesh(t)
	a, b, c, stranger := packets(t), packets(t), packets(t), packets(t)
	var toB net.Addr
	for name, at := range map[string]*net.UDPConn{"a": a, "b": b, "c": c} {
		addr := m.join(name, at.LocalAddr().String(), nobody, true)
		if name == "b" {
			toB, _ = net.ResolveUDPAddr("udp", addr)
		}
	}
	say := func(from *net.UDPConn, word string) {
		t.Helper()
		if _, err := from.WriteTo([]byte(word), toB); err != nil {
			t.Fatal(err)
		}
	}
	hear := func(want string) {
		t.Helper()
		buf := make([]byte, 64)
		n, _, err := b.ReadFromUDP(buf)
		if err != nil || string(buf[:n]) != want {
			t.Fatalf("b got %q (%v), want %q", buf[:n], err, want)
		}
	}
	say(a, "one")
	hear("one")
	heal := m.Split(false, "a")
	say(a, "lost")
	say(stranger, "not of the mesh")
	say(c, "two") // behind the others in one queue
	hear("two")
	heal()
	say(a, "three")
	hear("three")
}
