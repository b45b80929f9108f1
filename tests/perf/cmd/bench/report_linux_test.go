package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/tests/load/scenario"
)

func result(figure string, value float64) *scenario.Result {
	return &scenario.Result{Figures: []scenario.Figure{{Name: figure, Unit: "us", Value: value}}}
}

func TestBudgets(t *testing.T) {
	const cpu = "CPU per delivery"
	c := one{
		name: "fanout", targets: []string{cLoop, gateway}, figures: []string{cpu},
		budgets: []budget{{figure: cpu, target: gateway, of: cLoop, most: 1.25}, {figure: cpu, target: gateway, most: 3}},
	}
	var r report
	for _, v := range [][2]float64{{2, 2.2}, {2, 9}, {4, 4}} { // one bad round of three is not what counts
		r.round(&c, map[string]*scenario.Result{cLoop: result(cpu, v[0]), gateway: result(cpu, v[1])})
	}
	err := r.check()
	if err == nil || strings.Contains(err.Error(), "/ "+cLoop) || !strings.Contains(err.Error(), "fanout, gateway: CPU per delivery is 4.00, want <= 3.00") {
		t.Errorf("check says %v", err)
	}
	var out strings.Builder
	r.print(&out)
	if strings.Count(out.String(), "EXCEEDED") != 1 || !strings.Contains(out.String(), "1.10") {
		t.Errorf("the table is\n%s", out.String())
	}
}

func TestBudgetOfNothing(t *testing.T) {
	c := one{name: "storm", targets: []string{gateway}, figures: []string{"refused"}, budgets: []budget{{figure: "refused", target: gateway}}}
	var r report
	r.round(&c, map[string]*scenario.Result{gateway: result("refused", 0)})
	if err := r.check(); err != nil {
		t.Error(err)
	}
	r.round(&c, map[string]*scenario.Result{gateway: result("refused", 1)})
	if r.check() == nil {
		t.Error("a refusal keeps a budget of none")
	}
}

// A machine without a C compiler has no ratio to the C loop, and no failure.
func TestWithoutTheCLoop(t *testing.T) {
	c := one{name: "x", targets: []string{cLoop, gateway}, figures: []string{"f"}, budgets: []budget{{figure: "f", target: gateway, of: cLoop, most: 1}}}
	var r report
	r.round(&c, map[string]*scenario.Result{gateway: result("f", 5)})
	if err := r.check(); err != nil {
		t.Error(err)
	}
}

func TestLines(t *testing.T) {
	var r report
	r.add("fanout-1", "C loop", "CPU per delivery", "us", 2.5)
	r.add("fanout-1", "C loop", "CPU per delivery", "us", 2.25)
	file := filepath.Join(t.TempDir(), "lines.txt")
	if err := r.saveLines(file); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := "BenchmarkFanout-1/C-loop 1 2.5 CPU-per-delivery-us\nBenchmarkFanout-1/C-loop 1 2.25 CPU-per-delivery-us\n"
	if string(got) != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// Every case names targets and figures that exist: a typing mistake would
// measure nothing.
func TestCases(t *testing.T) {
	names := map[string]bool{}
	for _, c := range cases() {
		if names[c.name] {
			t.Errorf("two cases are named %s", c.name)
		}
		names[c.name] = true
		if len(c.figures) == 0 || (len(c.budgets) == 0 && c.name != "durable-paced") {
			t.Errorf("%s: %d figures, %d budgets", c.name, len(c.figures), len(c.budgets))
		}
		for _, b := range c.budgets {
			found := slices.Contains(c.figures, b.figure) && slices.Contains(c.targets, b.target)
			found = found && (b.of == "" || slices.Contains(c.targets, b.of))
			if !found {
				t.Errorf("%s: the budget of %s is for a figure that is not kept", c.name, b.figure)
			}
		}
	}
}

func TestParseBenchmark(t *testing.T) {
	r, err := parseBenchmark("goos: linux\nBenchmarkLatency/journal-2   4000   1000000 ns/op   320 p50-us   1500 p99-us\nPASS\n")
	if err != nil {
		t.Fatal(err)
	}
	if p50, _ := r.Figure("p50"); p50 != 0.32 || len(r.Figures) != 2 {
		t.Errorf("%+v", r.Figures)
	}
	if _, err := parseBenchmark("PASS"); err == nil {
		t.Error("output without a benchmark was read")
	}
}
