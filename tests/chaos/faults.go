package chaos

import (
	"fmt"
	"slices"
	"time"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/tests/chaos/record"
	"github.com/carillon-rt/carillon/tests/chaos/schedule"
	"github.com/carillon-rt/carillon/tests/env"
)

const (
	// mendedWithin is how long everything may take to be ready again.
	mendedWithin = 60 * time.Second
	slowness     = 40 * time.Millisecond
	// presenceSettles is how long after a fault of a presence node the other
	// one is left alone: what an owner and its standby that die within seconds
	// of each other have not said is not promised, and no page tells when a
	// standby has everything.
	presenceSettles = 6 * time.Second
)

// breakThings carries out rounds of faults until the time is over. The cluster
// is whole then.
func (w *world) breakThings(cfg Config) {
	w.t.Helper()
	plan, err := schedule.New(cfg.Seed, w.topology(cfg.Spare), cfg.Kinds)
	if err != nil {
		w.t.Fatalf("-faults and -spare: %v", err)
	}
	for over := time.Now().Add(cfg.For); time.Now().Before(over); {
		round := plan.Next()
		begun := time.Now()
		for _, step := range round.Steps() {
			if !wait(w.t.Context(), time.Until(begun.Add(step.At))) {
				return
			}
			w.carryOut(step)
		}
		w.awaitMended()
		w.stayQuiet(max(round.Pause, settles(round)))
	}
}

// settles is how long a round has effects that nothing shows.
func settles(r schedule.Round) time.Duration {
	for _, f := range r.Faults {
		if slices.ContainsFunc(f.Targets, func(name string) bool { return role(name) == "presence" }) {
			return presenceSettles
		}
	}
	return 0
}

// awaitMended waits until every process is ready and sees all others, without
// doing anything for it. One that has ended by itself is a violation, and is
// started again.
func (w *world) awaitMended() {
	w.t.Helper()
	var late process
	done := false
	defer func() {
		switch {
		case late != nil:
			w.explain(late)
		case !done:
			w.explainGossip()
		}
	}()
	await.Within(w.t, mendedWithin, "everything is ready again", func() bool {
		for _, p := range w.processes() {
			if !p.Running() && !w.ended[p.name()] {
				w.rec.Add(record.Entry{Kind: record.Died, Text: p.name()})
				p.StartAgain()
			}
			if !p.Ready() {
				late = p
				return false
			}
		}
		late, done = nil, w.allMeet()
		return done
	})
}

// allMeet says whether all processes see each other in the gossip.
func (w *world) allMeet() bool {
	for _, n := range w.cluster.Nodes {
		if len(n.Sees()) <= len(w.cluster.Nodes) { // and the seed
			return false
		}
	}
	return true
}

// process is what faults are done to.
type process interface {
	name() string
	Running() bool
	Ready() bool
	Kill()
	Terminate()
	Stop()
	Pause()
	Resume()
	StartAgain()
}

type (
	node   struct{ *env.Node }
	broker struct{ *env.Broker }
)

func (n node) name() string   { return n.Name }
func (b broker) name() string { return b.Name }

func (w *world) processes() (ps []process) {
	for _, b := range w.cluster.Brokers {
		ps = append(ps, broker{b})
	}
	for _, n := range w.cluster.Nodes {
		ps = append(ps, node{n})
	}
	return ps
}

// carryOut begins or ends a fault.
func (w *world) carryOut(step schedule.Step) {
	w.t.Helper()
	what := "begin "
	if step.End {
		what = "end "
	}
	w.rec.Add(record.Entry{Kind: record.Fault, Text: what + step.Fault.String(), Hard: hard(step)})
	w.t.Logf("%.3f s: %s%s", w.rec.Now().Seconds(), what, step.Fault)
	switch step.Fault.Kind {
	case schedule.CutGossip, schedule.SplitGossip, schedule.Isolate, schedule.SplitNATS:
		w.split(step)
		return
	}
	for _, target := range step.Fault.Targets {
		for _, p := range w.processes() {
			if p.name() == target {
				w.do(step.Fault.Kind, step.End, p)
			}
		}
	}
}

// hard says whether a step ends connections of clients, or may.
func hard(s schedule.Step) bool {
	switch s.Fault.Kind {
	case schedule.Kill, schedule.Stop, schedule.Pause, schedule.KillRole:
		return !s.End && slices.ContainsFunc(s.Fault.Targets, func(name string) bool { return role(name) == "gateway" })
	}
	return false
}

// split begins or ends a fault that has two sides.
func (w *world) split(step schedule.Step) {
	w.t.Helper()
	f, what := step.Fault, step.Fault.String()
	if step.End {
		w.heal[what]()
		delete(w.heal, what)
		return
	}
	switch f.Kind {
	case schedule.CutGossip, schedule.SplitGossip:
		w.heal[what] = w.cluster.Gossip.Split(false, f.Targets...)
	case schedule.Isolate:
		link, meet := w.cluster.Named(f.Targets[0]).Link, w.cluster.Gossip.Split(false, f.Targets...)
		link.Cut()
		w.heal[what] = func() { link.Heal(); meet() }
	case schedule.SplitNATS:
		w.heal[what] = w.cluster.SplitNATS(f.Targets[0], f.Targets[1:], f.Noticed)
	}
}

func (w *world) do(kind schedule.Kind, end bool, p process) {
	w.t.Helper()
	switch kind {
	case schedule.Kill, schedule.KillRole, schedule.KillBroker, schedule.KillBrokers:
		w.ended[p.name()] = !end
		if end {
			p.StartAgain()
		} else {
			p.Kill()
		}
	case schedule.Stop, schedule.StopBroker:
		w.ended[p.name()] = !end
		if end {
			p.Stop() // what Terminate began
			p.StartAgain()
		} else {
			p.Terminate()
		}
	case schedule.Pause, schedule.PauseBroker:
		if end {
			p.Resume()
		} else {
			p.Pause()
		}
	case schedule.Cut, schedule.Delay:
		link := p.(node).Link
		switch {
		case end:
			link.Heal()
		case kind == schedule.Cut:
			link.Cut()
		default:
			link.Delay(slowness)
		}
	default:
		panic(fmt.Sprintf("no way to do %s", kind))
	}
}
