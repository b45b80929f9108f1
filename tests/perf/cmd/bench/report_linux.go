package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/carillon-rt/carillon/tests/load/scenario"
)

// row is one figure of one target with all its rounds.
type row struct {
	Case   string    `json:"case"`
	Target string    `json:"target"`
	Figure string    `json:"figure"`
	Unit   string    `json:"unit"`
	Values []float64 `json:"values"`
	Median float64   `json:"median"`
	// Most and Least are the budget; 0 is none, and Zero says that Most is 0.
	Most  float64 `json:"most,omitempty"`
	Least float64 `json:"least,omitempty"`
	Zero  bool    `json:"zero,omitempty"`
}

// report collects rows in the order in which they first appear.
type report struct{ rows []*row }

func (r *report) add(c, target, figure, unit string, value float64) *row {
	i := slices.IndexFunc(r.rows, func(x *row) bool { return x.Case == c && x.Target == target && x.Figure == figure })
	if i < 0 {
		r.rows = append(r.rows, &row{Case: c, Target: target, Figure: figure, Unit: unit})
		i = len(r.rows) - 1
	}
	x := r.rows[i]
	x.Values = append(x.Values, value)
	sorted := slices.Sorted(slices.Values(x.Values))
	x.Median = (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
	return x
}

// round takes the results of all targets of one round of a case.
func (r *report) round(c *one, round map[string]*scenario.Result) {
	for _, name := range c.targets {
		res := round[name]
		if res == nil {
			continue
		}
		for _, f := range res.Figures {
			if slices.Contains(c.figures, f.Name) {
				r.add(c.name, name, f.Name, f.Unit, f.Value)
			}
		}
	}
	for _, b := range c.budgets {
		res := round[b.target]
		if res == nil {
			continue
		}
		value, _ := res.Figure(b.figure)
		figure, unit := b.figure, ""
		if b.of != "" {
			base := round[b.of]
			if base == nil {
				continue
			}
			of, _ := base.Figure(b.figure)
			figure, unit, value = b.figure+" / "+b.of, "x", value/of
			r.add(c.name, b.target, figure, unit, value)
		}
		i := slices.IndexFunc(r.rows, func(x *row) bool { return x.Case == c.name && x.Target == b.target && x.Figure == figure })
		r.rows[i].Most, r.rows[i].Least, r.rows[i].Zero = b.most, b.least, b.most == 0 && b.least == 0
	}
}

// kept says whether the budget is kept, true if there is none.
func (x *row) kept() bool {
	switch {
	case x.Zero:
		return x.Median == 0
	case x.Most > 0:
		return x.Median <= x.Most
	}
	return x.Median >= x.Least
}

// budget is the budget in words, "" if there is none.
func (x *row) budget() string {
	switch {
	case x.Zero:
		return "0"
	case x.Most > 0:
		return "<= " + number(x.Most)
	case x.Least > 0:
		return ">= " + number(x.Least)
	}
	return ""
}

func (r *report) print(out io.Writer) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "case\ttarget\tfigure\tmedian\tleast..most\tbudget\t")
	last := ""
	for _, x := range r.rows {
		name := x.Case
		if name == last {
			name = ""
		}
		last = x.Case
		verdict := ""
		if x.budget() != "" && !x.kept() {
			verdict = "EXCEEDED"
		}
		unit := x.Unit
		if unit != "" {
			unit = ", " + unit
		}
		fmt.Fprintf(t, "%s\t%s\t%s%s\t%s\t%s..%s\t%s\t%s\n", name, x.Target, x.Figure, unit, number(x.Median),
			number(slices.Min(x.Values)), number(slices.Max(x.Values)), x.budget(), verdict)
	}
	_ = t.Flush() // to a terminal
}

// check lists the budgets that are exceeded.
func (r *report) check() error {
	var errs []error
	for _, x := range r.rows {
		if !x.kept() {
			errs = append(errs, fmt.Errorf("%s, %s: %s is %s, want %s", x.Case, x.Target, x.Figure, number(x.Median), x.budget()))
		}
	}
	return errors.Join(errs...)
}

func (r *report) save(file string) error {
	if file == "" {
		return nil
	}
	raw, err := json.MarshalIndent(r.rows, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(raw, '\n'), 0o644)
}

// saveLines writes what go test -bench would, for benchstat: a line for each
// round of each figure.
func (r *report) saveLines(file string) error {
	if file == "" {
		return nil
	}
	var b strings.Builder
	plain := strings.NewReplacer(" ", "-", ",", "", "/", "per")
	for _, x := range r.rows {
		unit := plain.Replace(x.Figure)
		if x.Unit != "" {
			unit += "-" + plain.Replace(x.Unit)
		}
		for _, v := range x.Values {
			fmt.Fprintf(&b, "Benchmark%s/%s 1 %g %s\n", strings.ToUpper(x.Case[:1])+x.Case[1:], plain.Replace(x.Target), v, unit)
		}
	}
	return os.WriteFile(file, []byte(b.String()), 0o644)
}

// number shows three digits that matter.
func number(v float64) string {
	switch {
	case v >= 1e6:
		return fmt.Sprintf("%.2f M", v/1e6)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	case v >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
