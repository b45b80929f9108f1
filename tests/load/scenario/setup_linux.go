// Package scenario is what a load test does: it has connections made, has
// messages published, and reports what that cost and whether everything
// arrived. It does not know how many processes the connections are in.
package scenario

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/carillon-rt/carillon/tests/load/fleet"
	"github.com/carillon-rt/carillon/tests/load/publish"
	"github.com/carillon-rt/carillon/tests/load/tally"
)

// Audience is the connections: a fleet.Fleet, or a crew of them.
type Audience interface {
	// Poll goes on for up to timeout, less if something happens.
	Poll(timeout time.Duration) error
	// Watch has Poll tell w when fd can be read.
	Watch(fd int, w fleet.Watcher) error
	// Connected says whether every connection was made or has failed.
	Connected() bool
	Counts() fleet.Counts
	Live() int
	// Err gives the first errors of connections.
	Err() error
	Now() int64
	Measure(lanes int) error
	Tally(published fleet.Published) (tally.Counts, error)
	Latency() (*hdrhistogram.Histogram, error)
	Joins() (*hdrhistogram.Histogram, error)
	Closes() (map[int]int64, error)
	// Settling is when connections were made.
	Settling() fleet.Settling
	StopReading() error
	ResumeReading() error
	// Churn has n connections leave and join a channel, as soon as they can.
	Churn(n int) error
	// HangAll closes all connections without a word; they are made anew.
	HangAll() error
	// Busy is the CPU time of the busiest thread that holds connections.
	Busy() (time.Duration, error)
	Close() error
}

// Kind names a scenario.
type Kind string

// Kinds.
const (
	Connect  Kind = "connect"  // connections are made, at a rate or as fast as it goes
	Idle     Kind = "idle"     // connections are there, and kept alive
	Fanout   Kind = "fanout"   // one channel, everybody gets everything
	Channels Kind = "channels" // many channels, messages to random ones
	Churn    Kind = "churn"    // connections leave channels and join them again
	Storm    Kind = "storm"    // all connections are lost at once and come back
	Slow     Kind = "slow"     // some stop reading; what do the others notice?
	Publish  Kind = "publish"  // what a publication costs that nobody gets
)

// Kinds are all scenarios.
func Kinds() []Kind { return []Kind{Connect, Idle, Fanout, Channels, Churn, Storm, Slow, Publish} }

// Setup is what a scenario needs to know.
type Setup struct {
	Kind Kind
	Plan fleet.Plan
	// Length is how long the scenario's part after connecting lasts.
	Length time.Duration
	// Warmup is how long the same is done before it counts.
	Warmup time.Duration
	// Within is how long connecting, and the last messages, may take.
	Within time.Duration
	// Rate is messages (or changes, with Churn) a second; 0: as soon as those
	// before have arrived, see Window.
	Rate float64
	// Cores is how much of the processor the servers may take, with Slow: where
	// they take more, the rate becomes less and the length more. 0 is no limit.
	Cores float64
	// Window is how many messages may be on their way with Rate 0.
	Window int
	// Mix is the share of messages to shared channels, with Channels.
	Mix float64
	// Each is how many messages are published at once.
	Each int
	// Servers are the processes whose CPU and memory are read, if they are on
	// this machine.
	Servers []int
	// Progress is told what is going on, now and then; nil is fine.
	Progress func(Progress)
}

// Progress is where a scenario is.
type Progress struct {
	Phase     string
	Elapsed   time.Duration
	Counts    fleet.Counts
	Live      int
	Published int64
}

// Validate reports what can't be done.
func (s *Setup) Validate() error {
	switch {
	case !slices.Contains(Kinds(), s.Kind):
		return fmt.Errorf("the scenario is %q, want one of %v", s.Kind, Kinds())
	case s.Length <= 0 && s.Kind != Connect && s.Kind != Storm:
		return errors.New("the length is 0")
	case s.Rate < 0 || s.Mix < 0 || s.Mix > 1:
		return errors.New("rate must not be negative, mix is 0 to 1")
	case s.Rate == 0 && s.Kind == Slow:
		return errors.New("slow readers need a rate: the others' latency is compared")
	case s.Cores < 0 || s.Cores > 0 && len(s.Servers) == 0:
		return errors.New("cores must not be negative, and need servers on this machine")
	case s.Kind == Slow && s.Plan.Slow == 0:
		return errors.New("no connection is slow")
	}
	return nil
}

// run is a scenario that runs.
type run struct {
	Setup
	ctx    context.Context
	a      Audience
	p      publish.Publisher // nil if nothing is published
	r      *Result
	began  time.Time
	phase  string
	told   time.Time
	expect int64 // deliveries that are due of what was published
	pick   func() int
}

// Run runs a scenario with connections that are not made yet. p may be nil
// for scenarios that publish nothing.
func Run(ctx context.Context, s Setup, a Audience, p publish.Publisher) (*Result, error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	x := &run{Setup: s, ctx: ctx, a: a, p: p, began: time.Now()}
	x.r = &Result{Scenario: s.Kind, Connections: s.Plan.Connections, started: x.began}
	body := map[Kind]func() error{
		Connect: x.nothing, Idle: x.idle, Fanout: x.traffic, Channels: x.traffic, Publish: x.traffic,
		Churn: x.churn, Storm: x.storm, Slow: x.slow,
	}[s.Kind]
	if p != nil && p.FD() >= 0 {
		if err := a.Watch(p.FD(), watch(p.Poll)); err != nil {
			return nil, err
		}
	}
	if err := x.connect(); err != nil {
		return nil, err
	}
	if err := body(); err != nil {
		return nil, fmt.Errorf("%s: %w", s.Kind, err)
	}
	return x.r, x.finish()
}

// watch is a function that is called when a descriptor can be read.
type watch func() error

// Readable implements fleet.Watcher.
func (w watch) Readable() error { return w() }

func (x *run) nothing() error { return nil }

// connect makes all connections and says what one costs.
func (x *run) connect() error {
	x.phase = "connecting"
	before, err := read(x.Servers)
	if err != nil {
		return err
	}
	if err := x.until(x.a.Connected, x.Within); err != nil {
		return fmt.Errorf("%w: %d of %d connections are there, %w", err, x.a.Live(), x.Plan.Connections, orNone(x.a.Err()))
	}
	if x.a.Live() == 0 {
		return fmt.Errorf("no connection could be made: %w", orNone(x.a.Err()))
	}
	after, err := read(x.Servers)
	if err != nil {
		return err
	}
	x.r.connected(before, after, x.a)
	joins, err := x.a.Joins()
	if err != nil {
		return err
	}
	x.r.Joins = quantiles(joins)
	return nil
}

func orNone(err error) error {
	if err == nil {
		return errors.New("without an error")
	}
	return err
}

// until polls until done says so.
func (x *run) until(done func() bool, within time.Duration) error {
	deadline := time.Now().Add(within)
	for !done() {
		if err := x.poll(50 * time.Millisecond); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not done within %s", within)
		}
	}
	return nil
}

// poll goes on with everything for up to timeout.
func (x *run) poll(timeout time.Duration) error {
	if x.p != nil {
		if err := x.p.Poll(); err != nil {
			return err
		}
	}
	if err := x.a.Poll(timeout); err != nil {
		return err
	}
	x.tell()
	return x.ctx.Err()
}

// tell reports progress, some times a second.
func (x *run) tell() {
	if now := time.Now(); x.Progress != nil && now.Sub(x.told) > 200*time.Millisecond {
		x.told = now
		p := Progress{Phase: x.phase, Elapsed: now.Sub(x.began), Counts: x.a.Counts(), Live: x.a.Live()}
		if x.p != nil {
			p.Published = x.p.Stats().Published
		}
		x.Progress(p)
	}
}

func (x *run) finish() error {
	closes, err := x.a.Closes()
	if err != nil {
		return err
	}
	x.r.Closes, x.r.Counts = closes, x.a.Counts()
	if err := x.a.Err(); err != nil {
		x.r.Notes = append(x.r.Notes, "errors of connections: "+err.Error())
	}
	return nil
}
