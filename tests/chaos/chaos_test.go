package chaos

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/tests/chaos/model"
	"github.com/carillon-rt/carillon/tests/chaos/record"
	"github.com/carillon-rt/carillon/tests/chaos/schedule"
)

var (
	seed    = flag.Uint64("seed", 0, "seed of the faults")
	minutes = flag.Float64("minutes", 0, "how long faults begin; 0: only the short runs")
	kinds   = flag.String("faults", "", "kinds of faults, with commas; empty: all")
	spare   = flag.String("spare", "", "roles that are not broken, with commas")
	every   = flag.Duration("every", usualEvery, "how often each of the four publishers publishes, at most")
	members = flag.Bool("members", true, "have members come and go")
)

// The runs that are part of `make test`: how long faults begin, and how busy it is.
const (
	shortFor   = 40 * time.Second
	usualEvery = 40 * time.Millisecond
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// short are the runs that are part of `make test`: two minutes of faults, each
// kind among others of its like.
var short = []struct {
	name  string
	seed  uint64
	kinds []schedule.Kind
}{
	// Processes of every role are killed, stopped, paused and slowed down.
	{"services break", 1, []schedule.Kind{schedule.Kill, schedule.Stop, schedule.Pause, schedule.Delay, schedule.KillRole}},
	// NATS servers die, hang and are unreachable for single processes, or all
	// of them die.
	{"NATS breaks", 2, []schedule.Kind{schedule.Cut, schedule.Delay, schedule.KillBroker, schedule.StopBroker, schedule.PauseBroker, schedule.KillBrokers}},
	// Gossip and NATS are cut and split, one without the other and both.
	{"the network breaks", 3, []schedule.Kind{schedule.Cut, schedule.CutGossip, schedule.SplitGossip, schedule.Isolate, schedule.SplitNATS}},
}

// A cluster in which one part after the other is broken keeps its promises:
// what `make chaos` runs with -minutes, and the short runs without.
func TestChaos(t *testing.T) {
	if *minutes > 0 {
		check(t, Config{
			Seed: *seed, For: time.Duration(*minutes * float64(time.Minute)), Kinds: chosen(t), Spare: strings.Split(*spare, ","), Members: *members, Every: *every,
		})
		return
	}
	for _, s := range short {
		t.Run(s.name, func(t *testing.T) {
			check(t, Config{Seed: s.seed, For: shortFor, Every: usualEvery, Members: true, Kinds: s.kinds})
		})
	}
}

// check runs chaos and wants a record without violations.
func check(t *testing.T, cfg Config) {
	t.Helper()
	dir, err := os.MkdirTemp("", "carillon-chaos-")
	if err != nil {
		t.Fatal(err)
	}
	cfg.LogDir = dir
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("record and logs are in %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	t.Logf("seed %d, faults for %s, record and logs in %s", cfg.Seed, cfg.For, dir)
	entries := Run(t, cfg)
	report := model.Check(entries, Channels())
	t.Log(report.Summary())
	write(t, filepath.Join(dir, "record.jsonl"), entries)
	for _, v := range report.Except(model.PresenceEvents) {
		t.Error(v)
	}
	if again := report.Of(model.PresenceEvents); len(again) > 0 {
		t.Errorf("%d member events that came twice, or for nobody:", len(again))
		for _, v := range again {
			t.Error(v)
		}
	}
	if report.Acknowledged < 100 || report.Events < 100 || cfg.Members && report.MemberEvents < 10 || report.Faults < 2 {
		t.Errorf("too little happened to prove anything")
	}
}

// chosen reads -faults.
func chosen(t *testing.T) (ks []schedule.Kind) {
	t.Helper()
	if *kinds == "" {
		return schedule.Kinds()
	}
	for name := range strings.SplitSeq(*kinds, ",") {
		if !slices.Contains(schedule.Kinds(), schedule.Kind(name)) {
			t.Fatalf("-faults: there is no %s, only %v", name, schedule.Kinds())
		}
		ks = append(ks, schedule.Kind(name))
	}
	return ks
}

func write(t *testing.T, path string, entries []record.Entry) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := record.Write(f, entries); err != nil {
		t.Fatal(err)
	}
}
