// Command bench measures Carillon next to the least that a server can do, in
// the same run and in turns, and holds it against its budgets: CPU per
// delivery, memory per connection, connects, keep-alive, slow readers, storms,
// publishing, the journal. It prints a table, writes JSON and Go benchmark
// lines, and fails when a budget is exceeded.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"

	"github.com/carillon-rt/carillon/tests/load/clock"
	"github.com/carillon-rt/carillon/tests/load/gauge"
	"github.com/carillon-rt/carillon/tests/load/scenario"
	"github.com/carillon-rt/carillon/tests/perf/limit"
)

// settings are the flags.
type settings struct {
	reps     int
	only     string
	json     string
	lines    string
	profiles string
	verbose  bool
	million  int

	binaryOnly bool
}

func main() {
	var s settings
	flag.IntVar(&s.reps, "reps", 3, "rounds of each case")
	flag.StringVar(&s.only, "only", "", "comma separated cases; empty is all")
	flag.StringVar(&s.json, "json", "", "`file` that gets the figures as JSON")
	flag.StringVar(&s.lines, "lines", "", "`file` that gets the figures as Go benchmark lines, for benchstat")
	flag.StringVar(&s.profiles, "profiles", "", "`directory` that gets CPU profiles of the last round")
	flag.BoolVar(&s.verbose, "v", false, "show the log of what is started in this process")
	flag.IntVar(&s.million, "million", 0, "instead of the cases: hold so many connections, through many gateways")
	flag.BoolVar(&s.binaryOnly, "binary-only", false, "leave out what is measured in this source tree, not in CARILLON_BIN")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) error {
	runtime.LockOSThread() // the connections' thread, whose CPU time is read
	if err := clock.Precise(); err != nil {
		return err
	}
	b := &bench{ctx: ctx, verbose: s.verbose}
	if s.million > 0 {
		return b.section(func() error { return million(b, s) })
	}
	chosen, err := choose(cases(), s.only)
	if err != nil {
		return err
	}
	if s.profiles != "" {
		if err := os.MkdirAll(s.profiles, 0o755); err != nil {
			return err
		}
	}
	r := &report{}
	for _, c := range chosen {
		fmt.Fprintf(os.Stderr, "%s: %s\n", c.name, c.about)
		if err := b.section(func() error { return measure(b, s, &c, r) }); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	r.print(os.Stdout)
	return errors.Join(r.save(s.json), r.saveLines(s.lines), r.check())
}

// choose gives the cases of these names, in the order of all; "" is all.
func choose(all []one, only string) ([]one, error) {
	if only == "" {
		return all, nil
	}
	names := strings.Split(only, ",")
	known := make([]string, len(all))
	var chosen []one
	for i, c := range all {
		known[i] = c.name
		if slices.Contains(names, c.name) {
			chosen = append(chosen, c)
		}
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("no case is named %q; there are %s", name, strings.Join(known, ", "))
		}
	}
	return chosen, nil
}

// measure runs a case against its targets in turns.
func measure(b *bench, s settings, c *one, r *report) error {
	if c.source != "" {
		return measureSource(b, s, c, r)
	}
	var targets []target
	for _, name := range c.targets {
		if c.fresh {
			targets = append(targets, target{name: name})
			continue
		}
		t, err := b.start(name)
		if errors.Is(err, limit.ErrNoCompiler) {
			fmt.Fprintln(os.Stderr, err)
			continue
		}
		if err != nil {
			return err
		}
		targets = append(targets, t)
	}
	for rep := range s.reps {
		round := map[string]*scenario.Result{}
		for _, t := range targets {
			err := b.section(func() (err error) {
				if c.fresh {
					if t, err = b.start(t.name); err != nil {
						return err
					}
				}
				round[t.name], err = runOnce(b, s, c, t, rep)
				return err
			})
			if err != nil {
				return err
			}
		}
		r.round(c, round)
	}
	return nil
}

// measureSource runs a Go benchmark, unless a binary alone is measured.
func measureSource(b *bench, s settings, c *one, r *report) error {
	for range s.reps {
		if s.binaryOnly {
			return nil
		}
		res, err := fromSource(b.ctx, c.source)
		if err != nil {
			return err
		}
		r.round(c, map[string]*scenario.Result{inSource: res})
	}
	return nil
}

func runOnce(b *bench, s settings, c *one, t target, rep int) (*scenario.Result, error) {
	saved := make(chan error, 1)
	if s.profiles != "" && t.ops != "" && rep == s.reps-1 {
		seconds := max(int(c.setup.Length.Seconds()), 1)
		url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", t.ops, seconds)
		file := filepath.Join(s.profiles, fmt.Sprintf("cpu-%s-%s.pprof", c.name, strings.ReplaceAll(t.name, " ", "-")))
		go func() { saved <- gauge.Save(b.ctx, url, file) }()
		stop, err := profileSelf(filepath.Join(s.profiles, "cpu-"+c.name+"-generator.pprof"))
		if err != nil {
			return nil, err
		}
		defer stop()
	} else {
		saved <- nil
	}
	res, err := t.run(b.ctx, c.setup, c.how)
	if err != nil {
		return nil, err
	}
	if c.derive != nil {
		c.derive(res)
	}
	if !res.Tally.Clean() {
		return nil, fmt.Errorf("%s: not everything arrived as it was published: %+v", t.name, res.Tally)
	}
	if p := res.Publishing; p != nil && p.Failed > 0 {
		return nil, fmt.Errorf("%s: %d publications failed, the first with %s", t.name, p.Failed, p.FirstFailure)
	}
	return res, <-saved
}

// profileSelf writes a CPU profile of the generator until stop is called.
func profileSelf(file string) (stop func(), err error) {
	f, err := os.Create(file)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close() // a profile that is cut short is seen to be
	}, nil
}
