package edge

import (
	"errors"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/carillon-rt/carillon/proto/app"
)

func TestHost(t *testing.T) {
	for _, tt := range []struct{ addr, want string }{
		{"192.0.2.7", "192.0.2.7"},
		{"::ffff:192.0.2.7", "192.0.2.7"},
		{"2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"},
		{"2001:db8:1:2::9", "2001:db8:1:2::"},
		{"2001:db8:1:3::9", "2001:db8:1:3::"},
		{"fe80::1%eth0", "fe80::"},
	} {
		if got := host(netip.MustParseAddr(tt.addr)); got.String() != tt.want {
			t.Errorf("host of %s is %s, want %s", tt.addr, got, tt.want)
		}
	}
	host(netip.Addr{}) // a socket that has gone already
}

func TestPace(t *testing.T) {
	var p pace
	taken := func(now time.Duration, asked int) (n int) {
		for range asked {
			if p.take(now, 100) {
				n++
			}
		}
		return n
	}
	if n := taken(0, 1000); n != 100 {
		t.Errorf("%d at once, want a second's worth", n)
	}
	if n := taken(250*time.Millisecond, 1000); n != 25 {
		t.Errorf("%d after a quarter of a second, want 25", n)
	}
	if n := taken(time.Hour, 1000); n != 100 {
		t.Errorf("%d after an hour, want a second's worth", n)
	}
	for range 1000 {
		if !p.take(time.Hour, 0) {
			t.Fatal("a rate of 0 is no limit")
		}
	}
}

func TestAdmission(t *testing.T) {
	a := newAdmission(Limits{ConnectRate: 5, PerAddress: 3})
	one, two := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	enter := func(from netip.Addr, now time.Duration, status int) {
		t.Helper()
		v, ok := a.enter(from, now, false)
		if ok != (status == 0) || v.Status != status {
			t.Errorf("%s is answered %d %q, want %d", from, v.Status, v.Body, status)
		}
	}
	for range 3 {
		enter(one, 0, 0)
	}
	enter(one, 0, 429)
	enter(two, 0, 0)
	a.leave(one)
	enter(one, 0, 0)
	enter(two, 0, 503) // does not count for the address
	enter(two, time.Second, 0)
	enter(two, time.Second, 0)
	enter(two, time.Second, 429)
	if v, ok := a.enter(two, time.Hour, true); ok || v.Status != 503 || a.refused[RefusedMemory].Load() != 1 {
		t.Errorf("without memory a connection is answered %d, %v, want 503", v.Status, ok)
	}
	for range 3 {
		a.leave(one)
		a.leave(two)
	}
	if n := len(a.addresses.of); n != 0 {
		t.Errorf("%d addresses are remembered without connections", n)
	}
	if r, n := a.refused[RefusedRate].Load(), a.refused[RefusedAddress].Load(); r != 1 || n != 2 {
		t.Errorf("counted %d and %d refusals, want 1 and 2", r, n)
	}
}

// refused wants a connection to be answered with an HTTP status.
func (f *fixture) refused(want int) {
	f.Helper()
	var answer []byte
	d := ws.Dialer{OnStatusError: func(_ int, _ []byte, resp io.Reader) { answer, _ = io.ReadAll(resp) }}
	conn, _, _, err := d.Dial(f.Context(), "ws://"+f.addr+"/app/k?protocol=7")
	if err == nil {
		conn.Close()
	}
	var status ws.StatusError
	if !errors.As(err, &status) || int(status) != want || !strings.Contains(string(answer), "Retry-After: ") {
		f.Errorf("the connection ended with %v, answered %q, want %d and a Retry-After", err, answer, want)
	}
}

func TestConnectionsPerAddress(t *testing.T) {
	f := startWith(t, func(c *Config) { c.Limits.PerAddress = 2 })
	first := f.dial()
	f.dial().subscribe("news")
	f.refused(429)
	if n := f.edge.Stats().Turned[RefusedAddress]; n != 1 {
		t.Errorf("counted %d, want 1", n)
	}
	first.conn.Close()
	f.until("the place is free", func() bool { return f.edge.Stats().Closed == 1 })
	f.dial().subscribe("news")
}

// Without memory for more, newcomers are refused and those that are there
// stay.
func TestFull(t *testing.T) {
	f := startWith(t, func(c *Config) { c.Loops, c.Loop.MemoryMax = 1, 3<<10 })
	first, second := f.dial(), f.dial()
	f.refused(503)
	if n := f.edge.Stats().Turned[RefusedMemory]; n != 1 {
		t.Errorf("counted %d, want 1", n)
	}
	first.subscribe("news")
	second.conn.Close()
	f.until("a connection has gone", func() bool { return f.edge.Stats().Loops[0].Connections == 1 })
	f.dial().subscribe("news")
}

func TestConnectRate(t *testing.T) {
	f := startWith(t, func(c *Config) { c.Limits.ConnectRate = 1 })
	f.dial()
	for f.edge.Stats().Turned[RefusedRate] == 0 { // more than one in a second: soon
		conn, _, _, err := ws.Dial(f.Context(), "ws://"+f.addr+"/app/k?protocol=7")
		if err == nil {
			conn.Close()
			continue
		}
		var status ws.StatusError
		if !errors.As(err, &status) || status != 503 {
			t.Fatalf("the connection ended with %v, want 503", err)
		}
	}
}

// A user's further connection is closed, and costs those that are there
// nothing.
func TestConnectionsPerUser(t *testing.T) {
	f := start(t, func(a *app.App) { a.Limits.ConnectionsPerUser, a.Watchlist = 2, false })
	signIn := func(user string) *wsClient {
		c := f.dial()
		c.send(`{"event":"pusher:signin","data":{"auth":"ok","user_data":%q}}`, user)
		return c
	}
	first, second := signIn("ann"), signIn("ann")
	first.expect("signin_success")
	second.expect("signin_success")
	second.send(`{"event":"pusher:signin","data":{"auth":"ok","user_data":"ann"}}`) // again, which is no other connection
	second.expect("signin_success")
	third := signIn("ann")
	third.expect("User is over its connection quota")
	third.expectClose(4004)
	other := signIn("bob")
	other.expect("signin_success")
	other.send(`{"event":"pusher:signin","data":{"auth":"ok","user_data":"ann"}}`) // refused otherwise
	other.expect("another user")
	first.subscribe("news")
	first.conn.Close()
	f.until("the place is free", func() bool { return f.edge.Stats().Closed == 2 })
	signIn("ann").expect("signin_success")
}
