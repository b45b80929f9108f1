package load

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"text/tabwriter"
	"time"
)

// figure is a number of a report.
type figure struct {
	Name  string  `json:"name"`
	Unit  string  `json:"unit"`
	Value float64 `json:"value"`
}

// measured is what compare reads of a report.
type measured struct {
	When    time.Time `json:"when"`
	Machine string    `json:"machine"`
	Run     struct {
		Scenario    string
		Connections int
	} `json:"run"`
	Result struct {
		Figures []figure `json:"figures"`
	} `json:"result"`
}

// Run compares two runs, figure by figure.
func (c Compare) Run(s Streams) error {
	before, err := readReport(c.Before)
	if err != nil {
		return err
	}
	after, err := readReport(c.After)
	if err != nil {
		return err
	}
	if before.Run != after.Run {
		fmt.Fprintf(s.Err, "these are different runs: %+v and %+v\n", before.Run, after.Run)
	}
	return compare(s.Out, before, after)
}

func readReport(file string) (c measured, err error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return c, err
	}
	if err := json.Unmarshal(raw, &c); err != nil {
		return c, fmt.Errorf("%s is not what --json writes: %w", file, err)
	}
	if len(c.Result.Figures) == 0 {
		return c, fmt.Errorf("%s has no figures: want a file that --json has written", file)
	}
	return c, nil
}

func compare(out io.Writer, before, after measured) error {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "%s\tbefore\tafter\tchange\t\n", after.Run.Scenario)
	for _, f := range after.Result.Figures {
		i := slices.IndexFunc(before.Result.Figures, func(x figure) bool { return x.Name == f.Name })
		if i < 0 {
			fmt.Fprintf(t, "%s, %s\t\t%s\t\t\n", f.Name, f.Unit, number(f.Value))
			continue
		}
		was := before.Result.Figures[i].Value
		change := ""
		if was != 0 {
			change = fmt.Sprintf("%+.1f %%", 100*(f.Value/was-1))
		}
		fmt.Fprintf(t, "%s, %s\t%s\t%s\t%s\t\n", f.Name, f.Unit, number(was), number(f.Value), change)
	}
	return t.Flush()
}

// number shows three digits that matter.
func number(v float64) string {
	switch a := max(v, -v); {
	case a >= 100_000:
		return fmt.Sprintf("%.3g M", v/1e6)
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}
