package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/carillon-rt/carillon/tests/perf/client"
	"github.com/carillon-rt/carillon/tests/perf/gauge"
)

// crowd is a target with its subscribers.
type crowd struct {
	target
	fleet *client.Fleet
}

// budgets are the gateway's, in CPU of the raw loop, by publications in
// flight. With many both write what came in a turn at once, but all of the
// raw loop's come in one.
var budgets = map[int]float64{1: 1.5, 64: 2.3}

// fanout measures CPU per delivery, one publication at a time and 64 in
// flight.
func fanout(b *bench, s settings, r *report) error {
	raw, err := startRaw(b)
	if err != nil {
		return err
	}
	_, gateway := startApart(b)
	one := startOne(b)
	var crowds []crowd
	for _, t := range []target{raw, gateway, one} {
		f, err := t.fleet(s.subscribers, shared)
		if err != nil {
			return err
		}
		b.Cleanup(func() { _ = f.Close() })
		crowds = append(crowds, crowd{t, f})
	}
	for _, window := range []int{1, 64} {
		if err := storms(b, s, r, crowds, window); err != nil {
			return err
		}
	}
	return nil
}

// storms measures all crowds in turns, after one round that does not count.
func storms(b *bench, s settings, r *report, crowds []crowd, window int) error {
	publishers := make([]client.Publisher, len(crowds))
	for i, c := range crowds {
		p, err := c.publisher(c.fleet, "perf", window)
		if err != nil {
			return err
		}
		publishers[i] = p
		if _, err := c.fleet.Storm(p, window, 500*time.Millisecond); err != nil {
			return fmt.Errorf("%s: warm up: %w", c.name, err)
		}
	}
	for rep := range s.repetitions {
		var base float64
		for i, c := range crowds {
			saved := profile(b.ctx, s, c.target, fmt.Sprintf("fanout-%d", window), rep)
			perDelivery, err := storm(r, s, c, publishers[i], window)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if err := <-saved; err != nil {
				return err
			}
			if i == 0 {
				base = perDelivery
				continue
			}
			x := r.add(section(window, c.fleet.Size()), c.name+" / raw loop", "x", perDelivery/base)
			if c.name == "gateway" {
				x.budget(budgets[window])
			}
		}
	}
	return nil
}

func section(window, n int) string {
	return fmt.Sprintf("fan-out, %d subscribers, 64 B, %d in flight", n, window)
}

// storm measures one crowd once and returns the CPU per delivery in
// microseconds.
func storm(r *report, s settings, c crowd, p client.Publisher, window int) (float64, error) {
	own, all, err := c.cpu()
	if err != nil {
		return 0, err
	}
	reads, messages, began := c.fleet.Reads(), c.fleet.Messages(), time.Now()
	if _, err := c.fleet.Storm(p, window, s.length); err != nil {
		return 0, err
	}
	took := time.Since(began).Seconds()
	ownAfter, allAfter, err := c.cpu()
	if err != nil {
		return 0, err
	}
	own, all = ownAfter.Sub(own), allAfter.Sub(all)
	n := float64(c.fleet.Messages() - messages)
	name, us := section(window, c.fleet.Size()), func(d time.Duration) float64 { return float64(d.Microseconds()) / n }
	r.add(name, c.name, "us CPU/delivery", us(own.Total()))
	r.add(name, c.name+", user part", "us CPU/delivery", us(own.User))
	if len(c.all) > 1 {
		r.add(name, "all services apart", "us CPU/delivery", us(all.Total()))
	}
	r.add(name, c.name+", rate", "deliveries/s", n/took)
	r.add(name, c.name+", batches", "messages/read", n/float64(c.fleet.Reads()-reads))
	return us(own.Total()), nil
}

// profile saves a CPU profile of the last repetition, if that is wanted. The
// channel says when it is done.
func profile(ctx context.Context, s settings, t target, what string, rep int) <-chan error {
	done := make(chan error, 1)
	if s.profiles == "" || t.ops == "" || rep != s.repetitions-1 {
		close(done)
		return done
	}
	seconds := max(int(s.length.Seconds())-1, 1)
	url := fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", t.ops, seconds)
	file := filepath.Join(s.profiles, fmt.Sprintf("cpu-%s-%s.pprof", what, t.name))
	go func() { done <- gauge.Save(ctx, url, file) }()
	return done
}
