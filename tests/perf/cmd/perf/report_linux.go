package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"
)

// row is one figure with all its repetitions.
type row struct {
	Section string    `json:"section"`
	What    string    `json:"what"`
	Unit    string    `json:"unit"`
	Values  []float64 `json:"values"`
	Median  float64   `json:"median"`
	Min     float64   `json:"min"`
	Max     float64   `json:"max"`
	// Budget is the most that Median may be; 0 is none.
	Budget float64 `json:"budget,omitempty"`
}

// report collects rows in the order in which they first appear.
type report struct{ rows []*row }

// add adds a value to a row.
func (r *report) add(section, what, unit string, value float64) *row {
	i := slices.IndexFunc(r.rows, func(x *row) bool { return x.Section == section && x.What == what })
	if i < 0 {
		r.rows = append(r.rows, &row{Section: section, What: what, Unit: unit})
		i = len(r.rows) - 1
	}
	x := r.rows[i]
	x.Values = append(x.Values, value)
	sorted := slices.Sorted(slices.Values(x.Values))
	x.Min, x.Max = sorted[0], sorted[len(sorted)-1]
	x.Median = (sorted[(len(sorted)-1)/2] + sorted[len(sorted)/2]) / 2
	return x
}

// budget sets the most that the row's median may be.
func (x *row) budget(most float64) { x.Budget = most }

func (x *row) kept() bool { return x.Budget == 0 || x.Median <= x.Budget }

func (x *row) verdict() string {
	switch {
	case x.Budget == 0:
		return ""
	case x.kept():
		return fmt.Sprintf("<= %g: kept", x.Budget)
	}
	return fmt.Sprintf("<= %g: EXCEEDED", x.Budget)
}

// check is an error that names the budgets that were not kept.
func (r *report) check() error {
	var errs []error
	for _, x := range r.rows {
		if !x.kept() {
			errs = append(errs, fmt.Errorf("%s: %s is %.3g %s, the budget is %g", x.Section, x.What, x.Median, x.Unit, x.Budget))
		}
	}
	return errors.Join(errs...)
}

func (r *report) print(w io.Writer) {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	section := ""
	for _, x := range r.rows {
		if x.Section != section {
			section = x.Section
			fmt.Fprintf(t, "\n%s\tmedian\tmin..max\tunit\tbudget\n", section)
		}
		fmt.Fprintf(t, "  %s\t%.3g\t%.3g..%.3g\t%s\t%s\n", x.What, x.Median, x.Min, x.Max, x.Unit, x.verdict())
	}
	_ = t.Flush() // a terminal or a pipe: nothing to do about it
}

func (r *report) save(file string) error {
	raw, err := json.MarshalIndent(struct {
		When time.Time `json:"when"`
		CPUs int       `json:"cpus"`
		Go   string    `json:"go"`
		Rows []*row    `json:"rows"`
	}{time.Now().UTC(), runtime.NumCPU(), runtime.Version(), r.rows}, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(raw, '\n'), 0o644)
}
