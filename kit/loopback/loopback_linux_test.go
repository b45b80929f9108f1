package loopback_test

import (
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/carillon-rt/carillon/kit/loopback"
)

// Clients that reach for an address before it is served don't take it, not even from its own port of 127.0.0.1.
func TestClientsDontTakeTheAddress(t *testing.T) {
	addr := loopback.Addr(t)
	if _, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Fatalf("somebody answers at %s: %v", addr, err)
	}
	_, port, _ := net.SplitHostPort(addr)
	l, err := net.Listen("tcp", loopback.IP()+":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	local, err := net.ResolveTCPAddr("tcp", "127.0.0.1:"+port)
	if err != nil {
		t.Fatal(err)
	}
	client, err := (&net.Dialer{LocalAddr: local}).Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	served, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	served.Close()
}

func TestAddressesDiffer(t *testing.T) {
	seen := map[string]bool{}
	for range 100 {
		addr := loopback.Addr(t)
		if seen[addr] || !strings.HasPrefix(addr, "127.") {
			t.Errorf("%s after %v", addr, seen)
		}
		seen[addr] = true
	}
}
