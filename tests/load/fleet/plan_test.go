package fleet

import (
	"net/netip"
	"testing"
)

func TestChannelsAndOrdinals(t *testing.T) {
	for _, p := range []Plan{
		{Shared: 1}, {Own: 1}, {Spread: 3}, {Shared: 10, Own: 1}, {Shared: 2, Spread: 5, Own: 3}, {},
	} {
		p.Connections = 20
		for i := range p.Connections {
			seen := map[int]bool{}
			for k := range p.subscriptions() {
				ch := p.channel(i, k)
				if seen[ch] {
					t.Errorf("%+v: connection %d has channel %d twice", p, i, ch)
				}
				seen[ch] = true
			}
			for ch := range p.channelsEnd() {
				k := p.ordinal(i, ch)
				if seen[ch] != (k >= 0) || (k >= 0 && p.channel(i, k) != ch) {
					t.Errorf("%+v: channel %d is number %d of connection %d, subscribed %v", p, ch, k, i, seen[ch])
				}
			}
		}
		for ch := range p.channelsEnd() {
			n := 0
			for i := range p.Connections {
				if p.ordinal(i, ch) >= 0 {
					n++
				}
			}
			if got := p.Subscribers(ch, p.Connections); got != n {
				t.Errorf("%+v: channel %d has %d subscribers, want %d", p, ch, got, n)
			}
		}
	}
}

func TestSplit(t *testing.T) {
	p := Plan{First: 5, Connections: 10, Rate: 9}
	next := 5
	for _, part := range p.Split(3) {
		if part.First != next || part.Rate != 3 {
			t.Errorf("%+v, want it to begin with %d", part, next)
		}
		next += part.Connections
	}
	if next != 15 {
		t.Errorf("the parts end at %d, want 15", next)
	}
}

// TestAddresses: many connections between two loopback addresses need more of
// them; others are left alone.
func TestAddresses(t *testing.T) {
	for name, c := range map[string]struct {
		plan Plan
		want int
	}{
		"few":             {Plan{Addrs: []string{"127.0.0.1:1"}, Connections: 5000}, 0},
		"many":            {Plan{Addrs: []string{"127.0.0.1:1"}, Connections: 15_000}, 2},
		"many per server": {Plan{Addrs: []string{"127.0.0.1:1", "127.0.0.1:2"}, Connections: 45_000}, 3},
		"far away":        {Plan{Addrs: []string{"192.0.2.1:1"}, Connections: 15_000}, 0},
		"told otherwise":  {Plan{Addrs: []string{"127.0.0.1:1"}, Connections: 15_000, From: []netip.Addr{netip.MustParseAddr("127.0.0.9")}}, 1},
	} {
		if c.plan.addresses(); len(c.plan.From) != c.want {
			t.Errorf("%s: %v, want %d addresses", name, c.plan.From, c.want)
		}
	}
}

func TestSlowShare(t *testing.T) {
	p := Plan{Slow: 0.05}
	n := 0
	for i := range 1000 {
		if p.slow(i) {
			n++
		}
	}
	if n != 50 || p.SlowConnections(1000) != 50 {
		t.Errorf("%d and %d of 1000 are slow, want 50", n, p.SlowConnections(1000))
	}
}

func TestRefusals(t *testing.T) {
	good := Plan{Addrs: []string{"127.0.0.1:1"}, Connections: 1}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Plan){
		"no server":         func(p *Plan) { p.Addrs = nil },
		"too many":          func(p *Plan) { p.Connections = ConnectionsMax + 1 },
		"none":              func(p *Plan) { p.Connections = 0 },
		"unknown dialect":   func(p *Plan) { p.Dialect = "smoke" },
		"slow share":        func(p *Plan) { p.Slow = 2 },
		"too many channels": func(p *Plan) { p.Own = 1 << 25 },
	} {
		p := good
		change(&p)
		if p.Validate() == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
