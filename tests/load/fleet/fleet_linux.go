package fleet

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/carillon-rt/carillon/tests/load/clock"
	"github.com/carillon-rt/carillon/tests/load/tally"
)

const (
	// atOnceDefault is how many connections are being made at a time.
	atOnceDefault = 256
	// errorsKept is how many of the first errors a fleet remembers.
	errorsKept = 5
	// latencyMax is the longest time that histograms tell apart.
	latencyMax = 2 * time.Minute
)

// Watcher is told when its descriptor can be read.
type Watcher interface{ Readable() error }

// Counts is what a fleet has done and seen since it was made.
type Counts struct {
	Begun   int64 `json:"begun"`   // connections that were begun
	Joined  int64 `json:"joined"`  // completed all their subscriptions
	Refused int64 `json:"refused"` // subscriptions, or whole connections, that the server refused
	Lost    int64 `json:"lost"`    // connections that the server closed
	// Subscribed and Unsubscribed count those of churn.
	Subscribed   int64 `json:"subscribed"`
	Unsubscribed int64 `json:"unsubscribed"`
	// Delivered is how many stamped messages came to connections that read.
	Delivered int64 `json:"delivered"`
	// Recovered and Unrecovered count the connections that came back to their
	// place, or could not. A crew does not count them.
	Recovered   int64 `json:"recovered,omitempty"`
	Unrecovered int64 `json:"unrecovered,omitempty"`
}

// Add adds what others have done.
func (c *Counts) Add(o Counts) {
	c.Begun += o.Begun
	c.Joined += o.Joined
	c.Refused += o.Refused
	c.Lost += o.Lost
	c.Subscribed += o.Subscribed
	c.Unsubscribed += o.Unsubscribed
	c.Delivered += o.Delivered
	c.Recovered += o.Recovered
	c.Unrecovered += o.Unrecovered
}

// Fleet is a number of connections. It is for one goroutine, which should be
// locked to its thread.
type Fleet struct {
	// immutable after New
	plan     Plan
	dialect  Dialect
	packer   Packer // nil if each frame is one message
	clock    clock.Clock
	dialer   dialer
	requests [][]byte // by server
	slots    int      // subscriptions of a connection

	poller   poller
	input    []byte
	output   []byte
	conns    []conn
	underway int // connections that are being made
	live     int // those that are subscribed
	places   places
	watchers []Watcher // further descriptors on the loop; numbered below zero
	pings    pings
	again    []int32 // connections to be made anew
	churned  int     // whose turn it is with Churn
	began    int64   // when the first connection was begun
	settled  int64   // when the last one had joined

	counts  Counts
	errs    firstErrors
	joins   *hdrhistogram.Histogram // nanoseconds from connecting to the last subscription
	closes  map[int]int64           // by close code; 1006 without one
	measure measurement
}

// places is what connections that keep their place share.
type places struct {
	resumer Resumer // nil without Plan.Resume
	epoch   string
}

// measurement is what Measure begins.
type measurement struct {
	lanes   int // 0: stamped messages are counted and not checked
	tally   tally.Counts
	latency *hdrhistogram.Histogram
}

// New returns a fleet that has no connections yet.
func New(p Plan) (*Fleet, error) {
	if err := p.Validate(); err != nil {
		return nil, err
	}
	p.addresses()
	if p.AtOnce == 0 {
		p.AtOnce = atOnceDefault
	}
	f := &Fleet{
		plan: p, slots: p.subscriptions(), conns: make([]conn, 0, p.Connections),
		input: make([]byte, 256<<10), dialer: dialer{plan: p},
		joins: newHistogram(), closes: map[int]int64{},
	}
	f.measure.latency = newHistogram()
	var err error
	if f.dialect, err = p.dialect(); err != nil {
		return nil, err
	}
	f.packer, _ = f.dialect.(Packer)
	if p.Resume {
		f.places.resumer = f.dialect.(Resumer)
	}
	if f.clock, err = clock.New(); err != nil {
		return nil, err
	}
	for _, addr := range p.Addrs {
		a, err := resolve(addr)
		if err != nil {
			return nil, err
		}
		f.dialer.servers = append(f.dialer.servers, a)
		f.requests = append(f.requests, request(addr, f.dialect.Path()))
	}
	f.poller, err = newPoller()
	return f, err
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, latencyMax.Nanoseconds(), 3)
}

func resolve(addr string) (a syscall.SockaddrInet4, err error) {
	tcp, err := net.ResolveTCPAddr("tcp4", addr)
	if err != nil {
		return a, fmt.Errorf("server %s: %w", addr, err)
	}
	ip, ok := netip.AddrFromSlice(tcp.IP.To4())
	if !ok || ip.IsUnspecified() {
		ip = netip.MustParseAddr("127.0.0.1")
	}
	a.Port, a.Addr = tcp.Port, ip.As4()
	return a, nil
}

// Now is the time that stamps are made of.
func (f *Fleet) Now() int64 { return f.clock.Now() }

// Counts is what has happened so far.
func (f *Fleet) Counts() Counts { return f.counts }

// Live is how many connections are subscribed now.
func (f *Fleet) Live() int { return f.live }

// Err gives the first errors of connections, nil if there was none.
func (f *Fleet) Err() error { return errors.Join(f.errs...) }

// Watch puts a further descriptor on the loop.
func (f *Fleet) Watch(fd int, w Watcher) error {
	f.watchers = append(f.watchers, w)
	return f.poller.control(syscall.EPOLL_CTL_ADD, fd, -len(f.watchers), syscall.EPOLLIN)
}

// Poll goes on with what is due and reads what is there, after waiting for it
// up to timeout. What goes wrong with single connections is counted; an error
// is about the generator itself.
func (f *Fleet) Poll(timeout time.Duration) error {
	if wait := f.due(); wait >= 0 {
		timeout = min(timeout, wait)
	}
	events, err := f.poller.wait(timeout)
	if err != nil {
		return err
	}
	for i := range events {
		ev := &events[i]
		if number := int(ev.Fd); number < 0 {
			err = f.watchers[-number-1].Readable()
		} else {
			err = f.event(number, ev.Events)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// due begins connections and sends pings whose time has come, and says when
// there will be more to do, -1 for not before something happens.
func (f *Fleet) due() time.Duration {
	wait := f.ramp()
	if len(f.again) > 0 {
		f.reconnect()
	}
	if f.plan.Ping > 0 && f.live > 0 {
		next := f.ping()
		if wait < 0 || next < wait {
			wait = next
		}
	}
	return wait
}

// ramp begins the connections that are due by the plan's rate.
func (f *Fleet) ramp() time.Duration {
	now := f.clock.Now()
	if f.began == 0 {
		f.began = now
	}
	for len(f.conns) < f.plan.Connections && f.underway < f.plan.AtOnce {
		if f.plan.Rate > 0 {
			at := f.began + int64(float64(len(f.conns))/f.plan.Rate*1e9)
			if wait := at - f.clock.Now(); wait > 0 {
				return time.Duration(wait)
			}
		}
		f.conns = append(f.conns, conn{fd: -1})
		f.connect(len(f.conns) - 1)
	}
	return -1
}

// Connected says whether every connection was made, or has failed.
func (f *Fleet) Connected() bool {
	return len(f.conns) == f.plan.Connections && f.underway == 0 && len(f.again) == 0
}

// Settling is when connections were made, by the machine's clock.
type Settling struct {
	Began int64 `json:"began"` // the first was begun
	At    int64 `json:"at"`    // the last had completed its subscriptions
}

// Settling is when the fleet's connections were made.
func (f *Fleet) Settling() Settling { return Settling{f.began, f.settled} }

// Took is how long it took until the last connection had completed its
// subscriptions.
func (s Settling) Took() time.Duration { return time.Duration(s.At - s.Began) }

// Close closes all connections at once, without a close frame.
func (f *Fleet) Close() error {
	var errs []error
	for i := range f.conns {
		if c := &f.conns[i]; c.fd >= 0 {
			errs = append(errs, hangUp(int(c.fd)))
			c.fd = -1
		}
	}
	errs = append(errs, f.poller.close())
	f.conns, f.watchers = nil, nil
	return errors.Join(errs...)
}

// firstErrors remembers the first errors.
type firstErrors []error

func (e *firstErrors) add(err error) {
	if len(*e) < errorsKept {
		*e = append(*e, err)
	}
}
