package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"github.com/carillon-rt/carillon/tests/load/scenario"
)

// sourceRounds is how many rounds a Go benchmark has: BenchmarkLatency takes a
// millisecond for each.
const sourceRounds = "4000x"

// fromSource runs a Go benchmark of the router, for what no client can see:
// when a publication is at the gateway.
func fromSource(ctx context.Context, name string) (*scenario.Result, error) {
	out, err := exec.CommandContext(ctx, "go", "test", "-run", "^$", "-bench", "^"+strings.ReplaceAll(name, "/", "$/^")+"$",
		"-benchtime", sourceRounds, "github.com/carillon-rt/carillon/router").CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return parseBenchmark(string(out))
}

// parseBenchmark reads the metrics of a benchmark's line: pairs of a number
// and a unit, of which times in microseconds become figures in milliseconds.
func parseBenchmark(out string) (*scenario.Result, error) {
	r := &scenario.Result{}
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 2 || !strings.HasPrefix(fields[0], "Benchmark") {
			continue
		}
		for i := 2; i+1 < len(fields); i += 2 {
			name, us := strings.CutSuffix(fields[i+1], "-us")
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return nil, fmt.Errorf("%q is no benchmark's line: %w", line, err)
			}
			if us {
				r.Figures = append(r.Figures, scenario.Figure{Name: name, Unit: "ms", Value: v / 1000})
			}
		}
	}
	if len(r.Figures) == 0 {
		return nil, fmt.Errorf("there is no benchmark in %q", out)
	}
	return r, nil
}
