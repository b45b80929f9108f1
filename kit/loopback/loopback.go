// Package loopback gives addresses that have to be known before anybody listens there, and that nothing else takes until
// then. It starts nothing and keeps nothing open.
//
// A port of 127.0.0.1 is not such an address: it may become the local end of any outgoing connection, even of a client that
// keeps trying to reach that very port. Connections to the loopback network come from 127.0.0.1 when nothing else is said
// (RFC 6890 gives all of 127.0.0.0/8 to it), so every address here has an IP of its own.
package loopback

import (
	"math/rand/v2"
	"net"
	"net/netip"
)

// only is what there is on systems that give the loopback network one IP.
const only = "127.0.0.1"

// IP returns one of 4 million IPs of the loopback network, for a server that is stopped and started on the same port.
func IP() string {
	n := rand.Uint32()
	own := netip.AddrFrom4([4]byte{127, 64 | byte(n>>16)&63, byte(n >> 8), byte(n)}).String()
	l, err := net.Listen("tcp", net.JoinHostPort(own, "0"))
	if err != nil {
		return only
	}
	l.Close()
	return own
}

// Test is what Addr needs of a testing.TB; programs that import this package don't import testing.
type Test interface {
	Helper()
	Fatal(args ...any)
}

// Addr returns host:port that nobody listens at; it ends the test if there is none.
func Addr(t Test) string {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(IP(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
