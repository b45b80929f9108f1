package schedule_test

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/tests/chaos/schedule"
)

var topology = schedule.Topology{
	Roles: map[string][]string{
		"gateway": {"gateway-0", "gateway-1"}, "router": {"router", "router-1"}, "presence": {"presence", "presence-1"},
	},
	Brokers:       []string{"nats-0", "nats-1", "nats-2"},
	Indispensable: []string{"gateway", "presence"},
}

// brokerKinds are what NATS servers suffer alone.
var brokerKinds = []schedule.Kind{schedule.KillBroker, schedule.StopBroker, schedule.PauseBroker, schedule.KillBrokers}

func rounds(t *testing.T, seed uint64, n int, kinds ...schedule.Kind) (rs []schedule.Round) {
	t.Helper()
	s, err := schedule.New(seed, topology, kinds)
	if err != nil {
		t.Fatal(err)
	}
	for range n {
		rs = append(rs, s.Next())
	}
	return rs
}

func TestSeedRepeats(t *testing.T) {
	if a, b := rounds(t, 7, 50, schedule.Kinds()...), rounds(t, 7, 50, schedule.Kinds()...); !reflect.DeepEqual(a, b) {
		t.Error("one seed gives two schedules")
	}
	if a, b := rounds(t, 7, 50, schedule.Kinds()...), rounds(t, 8, 50, schedule.Kinds()...); reflect.DeepEqual(a, b) {
		t.Error("two seeds give one schedule")
	}
}

// roleOf gives the role of a process, "" for a NATS server.
func roleOf(name string) string {
	for role, names := range topology.Roles {
		if slices.Contains(names, name) {
			return role
		}
	}
	return ""
}

// Whatever the seed: no more is broken at a time than the promises cover, and
// every kind has its turn.
func TestFaultsKeepWithinThePromises(t *testing.T) {
	met := map[schedule.Kind]bool{}
	for seed := range uint64(50) {
		for _, r := range rounds(t, seed, 40, schedule.Kinds()...) {
			if len(r.Faults) == 0 || len(r.Faults) > 2 || r.Pause <= 0 {
				t.Fatalf("seed %d: round %+v", seed, r)
			}
			roles := map[string]bool{}
			for _, f := range r.Faults {
				met[f.Kind] = true
				role := roleOf(f.Targets[0])
				if roles[role] {
					t.Errorf("seed %d: %v breaks a role twice", seed, r.Faults)
				}
				roles[role] = true
				if f.Kind == schedule.KillRole && slices.Contains(topology.Indispensable, role) {
					t.Errorf("seed %d: %v takes all of an indispensable role", seed, f)
				}
				checkWidth(t, r, f)
				if f.For <= 0 || f.For > 20*time.Second {
					t.Errorf("seed %d: %v", seed, f)
				}
			}
		}
	}
	for _, k := range schedule.Kinds() {
		if !met[k] {
			t.Errorf("no %s in all these rounds", k)
		}
	}
}

// checkWidth wants a fault to be as wide as its kind is.
func checkWidth(t *testing.T, r schedule.Round, f schedule.Fault) {
	t.Helper()
	processes := 0
	for _, names := range topology.Roles {
		processes += len(names)
	}
	switch f.Kind {
	case schedule.KillRole:
		return
	case schedule.KillBrokers:
	case schedule.SplitGossip:
		if len(f.Targets) < 1 || len(f.Targets) >= processes {
			t.Errorf("%v has not two sides", f)
		}
	case schedule.SplitNATS:
		if len(f.Targets) != 1+len(topology.Roles) || !slices.Contains(topology.Brokers, f.Targets[0]) {
			t.Errorf("%v, want one NATS server and a process of each role", f)
		}
	default:
		if len(f.Targets) != 1 {
			t.Errorf("%v breaks several", f)
		}
		return
	}
	if len(r.Faults) > 1 {
		t.Errorf("%v breaks more than one thing", r.Faults)
	}
}

func TestOnlyTheKindsAskedFor(t *testing.T) {
	for _, r := range rounds(t, 1, 50, schedule.Pause, schedule.KillBroker) {
		for _, f := range r.Faults {
			if f.Kind != schedule.Pause && f.Kind != schedule.KillBroker {
				t.Errorf("got %v", f)
			}
		}
	}
}

// Whatever roles are spared: kinds that have nothing left to break are left
// out, and a schedule of nothing is refused.
func TestSparedRoles(t *testing.T) {
	presence := schedule.Topology{Roles: map[string][]string{"presence": {"presence", "presence-1"}}, Indispensable: []string{"presence"}}
	for name, c := range map[string]struct {
		top   schedule.Topology
		kinds []schedule.Kind
		left  []schedule.Kind // none: it is refused
	}{
		"only an indispensable role, and kill-role":  {presence, []schedule.Kind{schedule.KillRole}, nil},
		"an indispensable role, and more kinds":      {presence, []schedule.Kind{schedule.KillRole, schedule.Pause}, []schedule.Kind{schedule.Pause}},
		"no role, and kinds that need one":           {schedule.Topology{Brokers: topology.Brokers}, []schedule.Kind{schedule.Cut, schedule.KillRole}, nil},
		"no role, and a kind that needs none":        {schedule.Topology{Brokers: topology.Brokers}, schedule.Kinds(), brokerKinds},
		"no NATS server, and a kind that needs them": {presence, []schedule.Kind{schedule.KillBrokers}, nil},
		"no kind":    {topology, nil, nil},
		"everything": {topology, schedule.Kinds(), schedule.Kinds()},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := schedule.New(1, c.top, c.kinds)
			if (err != nil) != (len(c.left) == 0) {
				t.Fatalf("error %v, want %v to be left", err, c.left)
			}
			if err != nil {
				return
			}
			met := map[schedule.Kind]bool{}
			for range 400 {
				for _, f := range s.Next().Faults {
					met[f.Kind] = true
					if !slices.Contains(c.left, f.Kind) || len(f.Targets) == 0 {
						t.Fatalf("got %v", f)
					}
				}
			}
			if len(met) != len(c.left) {
				t.Errorf("got %v, want %v", met, c.left)
			}
		})
	}
}

func TestStepsAreInOrder(t *testing.T) {
	a := schedule.Fault{Kind: schedule.Kill, Targets: []string{"router"}, After: time.Second, For: 3 * time.Second}
	b := schedule.Fault{Kind: schedule.Pause, Targets: []string{"gateway-0"}, After: 2 * time.Second, For: time.Second}
	want := []schedule.Step{
		{At: time.Second, Fault: a},
		{At: 2 * time.Second, Fault: b},
		{At: 3 * time.Second, Fault: b, End: true},
		{At: 4 * time.Second, Fault: a, End: true},
	}
	if got := (schedule.Round{Faults: []schedule.Fault{a, b}}).Steps(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
