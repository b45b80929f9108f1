package edge

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
)

// Limits bound who may connect to the node; 0 is no limit.
type Limits struct {
	// ConnectRate is how many connections a second are admitted; a second's
	// worth may come at once.
	ConnectRate int
	// PerAddress is how many connections one peer address may have. Of an
	// IPv6 address its first 64 bits count: that is what a host has.
	PerAddress int
}

// Refusal is why a connection was refused at the door.
type Refusal uint8

// Refusals.
const (
	RefusedRate    Refusal = iota // too many are connecting
	RefusedAddress                // the peer's address has too many
	RefusedMemory                 // the connections take all the memory they may
	refusals
)

// String is the metric label.
func (r Refusal) String() string { return [refusals]string{"connect_rate", "address", "memory"}[r] }

// admission decides about connections while they are nothing but a request
// head: a refused one has cost no session.
type admission struct {
	limits Limits // immutable after New

	// atomic
	rate    pace
	refused [refusals]atomic.Uint64

	addresses counts[netip.Addr]
	users     counts[channel.Key] // signed in; of apps that limit them
}

func newAdmission(limits Limits) *admission {
	return &admission{limits: limits, addresses: newCounts[netip.Addr](), users: newCounts[channel.Key]()}
}

// enter admits a connection, or gives the answer to its request. full says
// whether there is no memory for more. Whoever was admitted leaves with leave.
func (a *admission) enter(from netip.Addr, now time.Duration, full bool) (no loop.Verdict, ok bool) {
	if full {
		return a.refuse(RefusedMemory, 503, "the node is short of memory, try again in a few seconds"), false
	}
	if n := a.limits.PerAddress; n > 0 && !a.addresses.add(host(from), n) {
		return a.refuse(RefusedAddress, 429, "too many connections from your address"), false
	}
	if !a.rate.take(now, a.limits.ConnectRate) {
		a.leave(from)
		return a.refuse(RefusedRate, 503, "too many clients are connecting, try again in a few seconds"), false
	}
	return loop.Verdict{}, true
}

func (a *admission) refuse(why Refusal, status int, text string) loop.Verdict {
	a.refused[why].Add(1)
	return loop.Verdict{Action: loop.Refuse, Status: status, Body: text}
}

func (a *admission) leave(from netip.Addr) {
	if a.limits.PerAddress > 0 {
		a.addresses.done(host(from))
	}
}

// signIn counts one more connection of a user, unless those are as many as
// the app allows. signOut takes it back.
func (a *admission) signIn(of *app.App, user string) bool {
	n := of.Limits.ConnectionsPerUser
	return n == 0 || a.users.add(channel.Key{App: of.ID, Name: user}, n)
}

func (a *admission) signOut(of *app.App, user string) {
	if of.Limits.ConnectionsPerUser > 0 {
		a.users.done(channel.Key{App: of.ID, Name: user})
	}
}

// host is what stands for a peer.
func host(addr netip.Addr) netip.Addr {
	if addr = addr.Unmap(); addr.Is4() {
		return addr
	}
	prefix, err := addr.WithZone("").Prefix(64)
	if err != nil {
		return addr // invalid: all of those are one
	}
	return prefix.Addr()
}

// counts are numbers of connections by what they have in common.
type counts[K comparable] struct {
	mu sync.Mutex
	// guarded by mu
	of map[K]int
}

func newCounts[K comparable]() counts[K] { return counts[K]{of: map[K]int{}} }

// add counts one more, unless there are most of them.
func (c *counts[K]) add(key K, most int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[key] >= most {
		return false
	}
	c.of[key]++
	return true
}

func (c *counts[K]) done(key K) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.of[key]--; c.of[key] <= 0 {
		delete(c.of, key)
	}
}

// pace limits a rate for all loops: it is the time at which it will be empty
// again.
type pace struct{ empty atomic.Int64 }

// take takes one, unless a second's worth has been taken ahead; a rate of 0 is
// no limit.
func (p *pace) take(now time.Duration, rate int) bool {
	if rate <= 0 {
		return true
	}
	for {
		have := p.empty.Load()
		next := max(have, int64(now)) + max(1, int64(time.Second)/int64(rate))
		if next > int64(now+time.Second) {
			return false
		}
		if p.empty.CompareAndSwap(have, next) {
			return true
		}
	}
}
