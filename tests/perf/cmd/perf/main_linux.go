// Command perf measures Carillon as its clients see it, next to the least
// that a Go server can do (rawloop), in the same run and in turns: CPU per
// delivery, memory per idle connection, goroutines, connections per second.
// It prints a table, and JSON with -json, and fails when a budget is exceeded.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"time"
)

// settings are the flags.
type settings struct {
	repetitions int
	length      time.Duration
	subscribers int
	idle        int
	connects    int
	json        string
	only        string
	profiles    string
	verbose     bool
}

func main() {
	var s settings
	flag.IntVar(&s.repetitions, "reps", 5, "interleaved repetitions of each case")
	flag.DurationVar(&s.length, "length", 3*time.Second, "how long a repetition publishes")
	flag.IntVar(&s.subscribers, "n", 1000, "subscribers of the fan-out")
	flag.IntVar(&s.idle, "idle", 15_000, "connections of the memory cases")
	flag.IntVar(&s.connects, "connects", 5000, "connections of the connect and goroutine cases")
	flag.StringVar(&s.json, "json", "", "file that gets the figures as JSON")
	flag.StringVar(&s.only, "only", "", "comma separated sections: fanout, connect, goroutines, memory; empty is all")
	flag.StringVar(&s.profiles, "profiles", "", "directory that gets CPU and heap profiles of the gateway")
	flag.BoolVar(&s.verbose, "v", false, "show the log of what is started in this process")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, s); err != nil {
		fmt.Fprintln(os.Stderr, "perf:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, s settings) error {
	b := &bench{ctx: ctx, verbose: s.verbose}
	r := &report{}
	for _, section := range []struct {
		name string
		run  func(*bench, settings, *report) error
	}{
		{"fanout", fanout}, {"connect", connects}, {"goroutines", goroutines}, {"memory", memory},
	} {
		if s.only != "" && !strings.Contains(","+s.only+",", ","+section.name+",") {
			continue
		}
		if err := b.section(func() error { return section.run(b, s, r) }); err != nil {
			return fmt.Errorf("%s: %w", section.name, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	r.print(os.Stdout)
	if s.json != "" {
		if err := r.save(s.json); err != nil {
			return err
		}
	}
	return r.check()
}
