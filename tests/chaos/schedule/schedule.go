// Package schedule makes up what is broken in a chaos run, and when. It is
// pure: the same seed gives the same faults. Who carries them out is not its
// business.
package schedule

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Kind is a way to break something.
type Kind string

// Kinds of faults. What is killed or stopped is started again at the end of
// the fault.
const (
	Kill  Kind = "kill"  // SIGKILL
	Stop  Kind = "stop"  // SIGTERM
	Pause Kind = "pause" // SIGSTOP, and SIGCONT at the end
	Cut   Kind = "cut"   // nothing passes between a process and NATS
	Delay Kind = "delay" // everything between them takes longer

	KillBroker  Kind = "kill-broker"
	StopBroker  Kind = "stop-broker"
	PauseBroker Kind = "pause-broker"

	// KillRole kills all processes of one role at once.
	KillRole Kind = "kill-role"
	// KillBrokers kills all NATS servers at once.
	KillBrokers Kind = "kill-brokers"

	// CutGossip: nothing of the gossip passes between a process and all others;
	// both reach NATS.
	CutGossip Kind = "cut-gossip"
	// SplitGossip: nothing of it passes between some processes and the others.
	SplitGossip Kind = "split-gossip"
	// Isolate: neither gossip nor NATS reaches a process, as when its machine
	// has lost the network.
	Isolate Kind = "isolate"
	// SplitNATS: one NATS server and a process of each role on one side, all
	// others on the other side; gossip knows of no sides.
	SplitNATS Kind = "split-nats"
)

// Kinds are all of them.
func Kinds() []Kind {
	return []Kind{Kill, Stop, Pause, Cut, Delay, KillBroker, StopBroker, PauseBroker, KillRole, KillBrokers, CutGossip, SplitGossip, Isolate, SplitNATS}
}

// Topology is what there is to break.
type Topology struct {
	// Roles are the names of the processes of each role.
	Roles   map[string][]string
	Brokers []string
	// Indispensable are roles of which KillRole may not take all: nobody else
	// knows what they know.
	Indispensable []string
}

// Fault is one thing broken.
type Fault struct {
	Kind    Kind
	Targets []string
	After   time.Duration // from the beginning of the round
	For     time.Duration
	// Noticed: connections that a split lies across end, else they stay, and
	// nothing comes.
	Noticed bool
}

func (f Fault) String() string {
	noticed := ""
	if f.Noticed {
		noticed = ", noticed at once"
	}
	return fmt.Sprintf("%s %s for %s%s", f.Kind, strings.Join(f.Targets, ", "), f.For, noticed)
}

// alone says whether a kind of fault goes with no other.
func (k Kind) alone() bool { return k == KillBrokers || k == SplitNATS || k == SplitGossip }

// Round is faults that overlap. Everything is mended and well before the next
// one: the promises cover so much at a time.
type Round struct {
	Faults []Fault
	Pause  time.Duration // after the round, with nothing broken
}

// Schedule makes one round after the other.
type Schedule struct {
	rng   *rand.Rand
	top   Topology
	kinds []Kind
	roles []string // sorted
	// dispensable are those of the roles that KillRole may take.
	dispensable []string
}

// New makes the schedule of a seed, of these kinds of faults only. Kinds for
// which the topology has nothing to break are left out; it is an error when
// none is left.
func New(seed uint64, top Topology, kinds []Kind) (*Schedule, error) {
	s := &Schedule{rng: rand.New(rand.NewPCG(seed, 0)), top: top}
	for role := range top.Roles {
		s.roles = append(s.roles, role)
		if !slices.Contains(top.Indispensable, role) {
			s.dispensable = append(s.dispensable, role)
		}
	}
	slices.Sort(s.roles)
	slices.Sort(s.dispensable)
	for _, k := range kinds {
		if s.possible(k) {
			s.kinds = append(s.kinds, k)
		}
	}
	if len(s.kinds) == 0 {
		return nil, fmt.Errorf("there is nothing to do %v to: the roles %v may be broken, all of %v at once, and the NATS servers %v",
			kinds, s.roles, s.dispensable, top.Brokers)
	}
	return s, nil
}

// possible says whether there is something that k can be done to.
func (s *Schedule) possible(k Kind) bool {
	switch k {
	case KillBroker, StopBroker, PauseBroker, KillBrokers:
		return len(s.top.Brokers) > 0
	case KillRole:
		return len(s.dispensable) > 0
	case SplitNATS:
		return len(s.top.Brokers) > 2 && len(s.roles) > 0
	}
	return len(s.roles) > 0
}

// Next makes the next round. At most one process of a role and one NATS server
// are broken at a time, unless all of them are; with all NATS servers, and with
// a split, nothing else is.
func (s *Schedule) Next() Round {
	r := Round{Pause: s.between(time.Second, 3*time.Second)}
	taken := map[string]bool{} // roles, and "" for NATS
	for range 1 + s.rng.IntN(2) {
		f, of := s.fault()
		if taken[of] || (f.Kind.alone() && len(r.Faults) > 0) {
			continue
		}
		taken[of] = true
		r.Faults = append(r.Faults, f)
		if f.Kind.alone() {
			break
		}
	}
	return r
}

// fault makes one, and says which role it is of.
func (s *Schedule) fault() (f Fault, of string) {
	f = Fault{Kind: s.kinds[s.rng.IntN(len(s.kinds))], After: s.between(0, 2*time.Second)}
	switch f.Kind {
	case KillBrokers:
		f.Targets, f.For = s.top.Brokers, s.between(time.Second, 6*time.Second)
		return f, ""
	case KillBroker, StopBroker, PauseBroker:
		f.Targets, f.For = []string{s.one(s.top.Brokers)}, s.between(500*time.Millisecond, 6*time.Second)
		return f, ""
	case KillRole:
		of = s.one(s.dispensable)
		f.Targets, f.For = s.top.Roles[of], s.between(500*time.Millisecond, 4*time.Second)
		return f, of
	case SplitNATS:
		f.Targets, f.For, f.Noticed = []string{s.one(s.top.Brokers)}, s.between(2*time.Second, 12*time.Second), s.rng.IntN(2) == 0
		for _, role := range s.roles {
			f.Targets = append(f.Targets, s.one(s.top.Roles[role]))
		}
		return f, ""
	case SplitGossip:
		f.Targets, f.For = s.some(), s.cutFor()
		return f, ""
	}
	of = s.one(s.roles)
	f.Targets, f.For = []string{s.one(s.top.Roles[of])}, s.between(500*time.Millisecond, 6*time.Second)
	if f.Kind == Cut || f.Kind == CutGossip || f.Kind == Isolate {
		f.For = s.cutFor()
	}
	return f, of
}

// cutFor is how long a way is cut: shortly, or longer than either side of a
// connection waits.
func (s *Schedule) cutFor() time.Duration {
	if s.rng.IntN(3) == 0 {
		return s.between(12*time.Second, 18*time.Second)
	}
	return s.between(500*time.Millisecond, 6*time.Second)
}

// some are one or more of the processes, and not all of them if there are
// several.
func (s *Schedule) some() (names []string) {
	for _, role := range s.roles {
		names = append(names, s.top.Roles[role]...)
	}
	s.rng.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	names = names[:1+s.rng.IntN(max(1, len(names)-1))]
	slices.Sort(names)
	return names
}

func (s *Schedule) one(of []string) string { return of[s.rng.IntN(len(of))] }

// between gives a duration in whole milliseconds.
func (s *Schedule) between(least, most time.Duration) time.Duration {
	return least + time.Duration(s.rng.Int64N(int64((most-least)/time.Millisecond)))*time.Millisecond
}

// Step is the beginning or the end of a fault.
type Step struct {
	At    time.Duration // from the beginning of the round
	Fault Fault
	End   bool
}

// Steps are what has to be done in a round, in order.
func (r Round) Steps() (steps []Step) {
	for _, f := range r.Faults {
		steps = append(steps, Step{At: f.After, Fault: f}, Step{At: f.After + f.For, Fault: f, End: true})
	}
	slices.SortStableFunc(steps, func(a, b Step) int { return int(a.At - b.At) })
	return steps
}
