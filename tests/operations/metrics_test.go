package operations

import (
	"flag"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/tests/env"
)

var update = flag.Bool("update", false, "write testdata/metrics.txt anew")

// Names of metrics are an interface: dashboards and alerts use them. A change
// of the list is a change for operators.
func TestMetricNames(t *testing.T) {
	const golden = "testdata/metrics.txt"
	c := env.Start(t)
	reader := subscribed(t, c.Gateways[0], "private-a", "durable-a")
	hears(t, c, "durable-a", "x", reader)
	hears(t, c, "private-a", "x", reader)
	_, page := get(t, c.API, "/metrics")
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(page, -1) {
		if !strings.HasPrefix(m[1], "go_") && !strings.HasPrefix(m[1], "process_") {
			names = append(names, m[1]+" "+m[2])
		}
	}
	slices.Sort(names)
	got := strings.Join(names, "\n") + "\n"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("names and types of metrics are not those of %s (go test -run TestMetricNames -update):\n%s", golden, difference(string(want), got))
	}
}

func difference(want, got string) string {
	a, b := strings.Split(want, "\n"), strings.Split(got, "\n")
	var out []string
	for _, line := range a {
		if !slices.Contains(b, line) {
			out = append(out, "- "+line)
		}
	}
	for _, line := range b {
		if !slices.Contains(a, line) {
			out = append(out, "+ "+line)
		}
	}
	return strings.Join(out, "\n")
}
