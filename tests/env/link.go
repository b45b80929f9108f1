package env

import (
	"slices"
	"testing"
	"time"
)

// Link is the way from one process to the NATS servers, which tests may cut.
type Link struct{ proxies []*proxy }

func newLink(t testing.TB, brokers []*Broker) *Link {
	t.Helper()
	l := &Link{}
	for _, b := range brokers {
		p := startProxy(t, b.client)
		p.name = b.Name
		l.proxies = append(l.proxies, p)
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
		p.hangUp(p.gate)
	}
}

// Only severs the link to all NATS servers but those with these names.
func (l *Link) Only(servers ...string) {
	for _, p := range l.proxies {
		if !slices.Contains(servers, p.name) {
			p.gate.set(condition{cut: true})
			p.hangUp(p.gate)
		}
	}
}

// Delay holds everything up by d in each direction.
func (l *Link) Delay(d time.Duration) { l.set(condition{delay: d}) }

// Heal ends Cut, Sever, Only and Delay: what was held up arrives, on
// connections that neither side has given up.
func (l *Link) Heal() { l.set(condition{}) }

func (l *Link) set(c condition) {
	for _, p := range l.proxies {
		p.gate.set(c)
	}
}
