// Package fleet is thousands of client connections on one epoll loop, in the
// caller's goroutine: it connects, subscribes, keeps alive, counts and checks
// what arrives. It is built to cost less per message than any server does. It
// must not know what is measured, nor how messages are published.
package fleet

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/tests/load/stamp"
)

// ConnectionsMax is how many connections one Fleet may have: a process has
// 20,000 descriptors on ordinary machines.
const ConnectionsMax = 19_600

// Plan says what connects where. It can be sent to another process as JSON.
type Plan struct {
	// Addrs are the servers, host:port with an IPv4 address; connection i goes
	// to Addrs[i % len(Addrs)].
	Addrs []string `json:"addrs"`
	// From are local addresses that connections are made from, in turns; none
	// leaves it to the system, but for many connections to loopback addresses.
	// One address has 28,000 ports towards one server unless the system was told
	// otherwise, and Linux gets slow at finding a free one beyond 14,000.
	From []netip.Addr `json:"from,omitempty"`
	// Dialect is pusher, centrifugo, centrifugo-protobuf or raw. Key names the app, Secret signs
	// subscriptions to Pusher's channels, Token tokens of Centrifugo's clients.
	Dialect string `json:"dialect"`
	Key     string `json:"key,omitempty"`
	Secret  string `json:"secret,omitempty"`
	Token   string `json:"token,omitempty"`
	Path    string `json:"path,omitempty"` // of the raw dialect

	// First is the number of the first connection: fleets that share a load
	// number their connections through.
	First       int `json:"first"`
	Connections int `json:"connections"`
	// Own is how many channels each connection has to itself, Shared how many
	// all have together, Spread over how many channels the connections are
	// spread, one for each connection. They may be combined.
	Own    int `json:"own,omitempty"`
	Shared int `json:"shared,omitempty"`
	Spread int `json:"spread,omitempty"`
	// Prefix begins the channels' names: it decides their kind.
	Prefix string `json:"prefix,omitempty"`

	// Rate is how many connections are begun a second, 0 for as fast as they
	// can be made. AtOnce bounds those under way, 0 is 256.
	Rate   float64 `json:"rate,omitempty"`
	AtOnce int     `json:"at_once,omitempty"`
	// Slow is the share of connections that stop reading when they are
	// subscribed, 0 to 1.
	Slow float64 `json:"slow,omitempty"`
	// Ping is how often each connection shows that it is there, 0 for never:
	// pings of the server are answered in any case.
	Ping time.Duration `json:"ping,omitempty"`
	// Pinned: of fleets that share a load, each connects to one server.
	Pinned bool `json:"pinned,omitempty"`
	// Again: connections that the server closes are made anew.
	Again bool `json:"again,omitempty"`
	// Failover: all connections go to the first server, and to the next one
	// after each failure.
	Failover bool `json:"failover,omitempty"`
	// Resume: connections keep their place in their one channel, and ask for
	// what they missed when they come back. What is checked goes on over that.
	Resume bool `json:"resume,omitempty"`
}

// Validate reports what can't be done.
func (p *Plan) Validate() error {
	switch {
	case len(p.Addrs) == 0:
		return errors.New("no server is named")
	case p.Connections < 1 || p.Connections > ConnectionsMax:
		return fmt.Errorf("%d connections in one process, want 1 to %d", p.Connections, ConnectionsMax)
	case p.Slow < 0 || p.Slow > 1:
		return fmt.Errorf("the share of slow connections is %g, want 0 to 1", p.Slow)
	case p.Own < 0 || p.Shared < 0 || p.Spread < 0:
		return errors.New("numbers of channels can't be negative")
	case p.channelsEnd() > stamp.ChannelsMax:
		return fmt.Errorf("%d channels, want up to %d", p.channelsEnd(), stamp.ChannelsMax)
	case p.Resume && p.subscriptions() != 1:
		return fmt.Errorf("%d channels for each connection, want one to resume", p.subscriptions())
	}
	d, err := p.dialect()
	if _, ok := d.(Resumer); p.Resume && err == nil && !ok {
		return fmt.Errorf("the dialect %s can't resume", p.Dialect)
	}
	return err
}

func (p *Plan) dialect() (Dialect, error) {
	switch p.Dialect {
	case "pusher", "":
		return Pusher{Key: p.Key, Secret: p.Secret}, nil
	case "centrifugo":
		return Centrifugo{Secret: p.Token, App: p.Key}, nil
	case "centrifugo-protobuf":
		return Centrifugo{Secret: p.Token, App: p.Key, Protobuf: true}, nil
	case "raw":
		return Raw{At: p.Path}, nil
	}
	return nil, fmt.Errorf("the dialect is %q, want pusher, centrifugo, centrifugo-protobuf or raw", p.Dialect)
}

// portsEasy is up to how many connections between two addresses Linux finds a
// free port at once: it tries every other one first.
const portsEasy = 10_000

// addresses gives the plan more loopback addresses to connect from where one
// would not do.
func (p *Plan) addresses() {
	if len(p.From) > 0 || len(p.Addrs) == 0 || p.Connections/len(p.Addrs) <= portsEasy {
		return
	}
	for _, addr := range p.Addrs {
		if at, err := netip.ParseAddrPort(addr); err != nil || !at.Addr().IsLoopback() {
			return
		}
	}
	next := netip.MustParseAddr("127.0.0.1")
	for range 1 + p.Connections/len(p.Addrs)/portsEasy {
		p.From = append(p.From, next)
		next = next.Next()
	}
}

// Channels are numbered: first the shared ones, then those that connections
// are spread over, then each connection's own.

// SharedChannel gives the number of a shared channel.
func (p *Plan) SharedChannel(i int) int { return i }

// SpreadChannel gives the number of a channel that connections are spread
// over.
func (p *Plan) SpreadChannel(i int) int { return p.Shared + i }

// OwnChannel gives the number of channel k of those that connection i has to
// itself.
func (p *Plan) OwnChannel(i, k int) int { return p.Shared + p.Spread + i*p.Own + k }

func (p *Plan) channelsEnd() int { return p.OwnChannel(p.First+p.Connections, 0) }

// Name gives the name of a channel.
func (p *Plan) Name(channel int) string { return fmt.Sprintf("%sbench-%d", p.Prefix, channel) }

// subscriptions is how many channels each connection has.
func (p *Plan) subscriptions() int { return p.Shared + p.Own + min(p.Spread, 1) }

// channel gives the number of the k-th channel of connection i.
func (p *Plan) channel(i, k int) int {
	switch {
	case k < p.Shared:
		return p.SharedChannel(k)
	case p.Spread > 0 && k == p.Shared:
		return p.SpreadChannel(i % p.Spread)
	}
	return p.OwnChannel(i, k-p.Shared-min(p.Spread, 1))
}

// ordinal is the reverse: which of its channels a channel is to connection i,
// -1 if it is none.
func (p *Plan) ordinal(i, channel int) int {
	spread := min(p.Spread, 1)
	switch {
	case channel < p.Shared:
		return channel
	case channel < p.Shared+p.Spread:
		if p.SpreadChannel(i%p.Spread) == channel {
			return p.Shared
		}
		return -1
	}
	k := channel - p.OwnChannel(i, 0)
	if k < 0 || k >= p.Own {
		return -1
	}
	return p.Shared + spread + k
}

// Subscribers is how many of the first n connections are subscribed to a
// channel.
func (p *Plan) Subscribers(channel, n int) int {
	switch {
	case channel < p.Shared:
		return n
	case channel < p.Shared+p.Spread:
		i := channel - p.Shared
		return (n - i + p.Spread - 1) / p.Spread
	}
	return 1
}

// slow says whether connection i stops reading. Slow ones are spread evenly.
func (p *Plan) slow(i int) bool {
	return math.Floor(float64(i+1)*p.Slow) > math.Floor(float64(i)*p.Slow)
}

// SlowConnections is how many of the first n connections stop reading.
func (p *Plan) SlowConnections(n int) int { return int(math.Floor(float64(n) * p.Slow)) }

// Split shares the plan among n fleets.
func (p *Plan) Split(n int) []Plan {
	p.addresses()
	parts := make([]Plan, n)
	next := p.First
	for i := range parts {
		parts[i] = *p
		parts[i].First = next
		parts[i].Connections = p.Connections / n
		if i < p.Connections%n {
			parts[i].Connections++
		}
		parts[i].Rate = p.Rate / float64(n)
		if p.Pinned {
			parts[i].Addrs = []string{p.Addrs[i%len(p.Addrs)]}
		}
		next += parts[i].Connections
	}
	return parts
}

// Published is the number of the last message on each channel, by lane.
type Published []map[int]uint32

// request is the head that opens a WebSocket.
func request(addr, path string) []byte {
	return []byte("GET " + path + " HTTP/1.1\r\nHost: " + addr + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
}

// answered reads the server's answer to request: size is the length of its
// head, 0 while it is incomplete.
func answered(b string) (size int, err error) {
	end := strings.Index(b, "\r\n\r\n")
	switch {
	case end < 0 && len(b) > 16<<10:
		return 0, errors.New("the answer to the request has no end")
	case end < 0:
		return 0, nil
	case !strings.HasPrefix(b, "HTTP/1.1 101 "):
		return 0, fmt.Errorf("the request was answered %.200q", b)
	}
	return end + 4, nil
}
