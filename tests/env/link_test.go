package env

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// echo starts a server that sends back what it gets.
func echo(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	return l.Addr().String()
}

func dialProxy(t *testing.T, p *proxy) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", p.addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// exchange sends a word and wants it back.
func exchange(t *testing.T, c net.Conn, word string) {
	t.Helper()
	send(t, c, word)
	receive(t, c, word)
}

func send(t *testing.T, c net.Conn, word string) {
	t.Helper()
	if _, err := io.WriteString(c, word); err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("got %q, want %q (%v)", got, want, err)
	}
}

func TestCutHoldsEverythingUntilHealed(t *testing.T) {
	cut, other := startProxy(t, echo(t)), startProxy(t, echo(t))
	l := &Link{proxies: []*proxy{cut}}
	before, aside := dialProxy(t, cut), dialProxy(t, other)
	exchange(t, before, "one")
	l.Cut()
	during := dialProxy(t, cut)
	send(t, before, "two")
	send(t, during, "three")
	for range 100 { // as much as the other way takes, the cut one brings nothing
		exchange(t, aside, "x")
	}
	for _, c := range []net.Conn{before, during} {
		if err := c.SetReadDeadline(time.Now()); err != nil {
			t.Fatal(err)
		}
		if n, err := c.Read(make([]byte, 8)); err == nil {
			t.Errorf("%d bytes came through a cut", n)
		}
		if err := c.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	l.Heal()
	receive(t, before, "two")
	receive(t, during, "three")
	exchange(t, before, "four")
}

func TestEndIsHeldByACut(t *testing.T) {
	p := startProxy(t, echo(t))
	l := &Link{proxies: []*proxy{p}}
	c := dialProxy(t, p)
	exchange(t, c, "one")
	l.Cut()
	c.Close()
	l.Heal()
	exchange(t, dialProxy(t, p), "two")
}

func TestSeverEndsConnections(t *testing.T) {
	p := startProxy(t, echo(t))
	l := &Link{proxies: []*proxy{p}}
	c := dialProxy(t, p)
	exchange(t, c, "one")
	l.Sever()
	if n, err := c.Read(make([]byte, 8)); err == nil {
		t.Errorf("%d bytes came through a severed link", n)
	}
	during := dialProxy(t, p)
	send(t, during, "two")
	l.Heal()
	receive(t, during, "two")
}

func TestDelay(t *testing.T) {
	const delay = 20 * time.Millisecond
	p := startProxy(t, echo(t))
	l := &Link{proxies: []*proxy{p}}
	c := dialProxy(t, p)
	l.Delay(delay)
	begun := time.Now()
	exchange(t, c, "slow")
	if took := time.Since(begun); took < 2*delay {
		t.Errorf("there and back took %s, want at least %s", took, 2*delay)
	}
	l.Heal()
	exchange(t, c, "quick")
}

func TestNobodyListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := startProxy(t, l.Addr().String())
	l.Close()
	if n, err := dialProxy(t, p).Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes from nobody", n)
	}
}
