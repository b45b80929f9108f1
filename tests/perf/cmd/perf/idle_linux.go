package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/carillon-rt/carillon/tests/env"
	"github.com/carillon-rt/carillon/tests/perf/client"
	"github.com/carillon-rt/carillon/tests/perf/gauge"
)

// connectBudget is the gateway's for connecting and subscribing, in CPU of
// the raw loop, which parses neither the request nor the subscription.
const connectBudget = 2.2

// connects measures connecting and subscribing to one channel.
func connects(b *bench, s settings, r *report) error {
	raw, err := startRaw(b)
	if err != nil {
		return err
	}
	_, gateway := startApart(b)
	name := fmt.Sprintf("connect + one subscription, %d connections", s.connects)
	one := startOne(b)
	for rep := range s.repetitions {
		var base float64
		for i, t := range []target{raw, gateway, one} {
			saved := profile(b.ctx, s, t, "connect", rep)
			before, _, err := t.cpu()
			if err != nil {
				return err
			}
			began := time.Now()
			f, err := t.fleet(s.connects, shared)
			if err != nil {
				return err
			}
			took := time.Since(began)
			after, _, err := t.cpu()
			if err != nil {
				return err
			}
			if err := f.Close(); err != nil {
				return err
			}
			each := float64(after.Sub(before).Total().Microseconds()) / float64(s.connects)
			r.add(name, t.name, "us CPU each", each)
			r.add(name, t.name+", rate", "connections/s", float64(s.connects)/took.Seconds())
			if i == 0 {
				base = each
			} else if x := r.add(name, t.name+" / raw loop", "x", each/base); t.name == "gateway" {
				x.budget(connectBudget)
			}
			if err := <-saved; err != nil {
				return err
			}
			settle(b.ctx, t.pid)
		}
	}
	return nil
}

// goroutines counts those of a gateway before and after many connections.
func goroutines(b *bench, s settings, r *report) error {
	_, gateway := startApart(b)
	for _, t := range []target{gateway, startOne(b)} {
		before, err := gauge.Goroutines(b.ctx, t.ops)
		if err != nil {
			return err
		}
		f, err := t.fleet(s.connects, shared)
		if err != nil {
			return err
		}
		b.Cleanup(func() { _ = f.Close() })
		settle(b.ctx, t.pid)
		after, err := gauge.Goroutines(b.ctx, t.ops)
		if err != nil {
			return err
		}
		name := fmt.Sprintf("goroutines, %d idle connections", s.connects)
		r.add(name, t.name+", before", "goroutines", float64(before))
		r.add(name, t.name+", growth", "goroutines", float64(after-before)).budget(20)
	}
	return nil
}

// memory measures what idle connections cost, each case in a new process.
func memory(b *bench, s settings, r *report) error {
	name := fmt.Sprintf("memory, %d idle connections", s.idle)
	for _, shape := range []struct {
		name     string
		channels func(int) []string
		budget   float64
	}{
		{"one shared channel", shared, 3},
		{"a channel each", own, 3},
		{"a channel each and a shared one", ownAndShared, 0},
	} {
		err := b.section(func() error {
			c, gateway := startApart(b)
			return idle(b, s, r, name, shape.name, gateway, presenceOf(c), shape.channels, shape.budget)
		})
		if err != nil {
			return err
		}
	}
	err := b.section(func() error {
		return idle(b, s, r, name, "one shared channel", startOne(b), 0, shared, 0)
	})
	if err != nil {
		return err
	}
	return b.section(func() error {
		raw, err := startRaw(b)
		if err != nil {
			return err
		}
		return idle(b, s, r, name, "one shared channel", raw, 0, shared, 0)
	})
}

// presenceOf is the pid of the presence service, which learns of channels.
func presenceOf(c *env.Cluster) int {
	for _, n := range c.Nodes {
		if n.Name == "presence" {
			return n.PID()
		}
	}
	return 0
}

func idle(b *bench, s settings, r *report, section, shape string, t target, presence int, channels func(int) []string, budget float64) error {
	settle(b.ctx, t.pid)
	before, err := sizes(b.ctx, t, presence)
	if err != nil {
		return err
	}
	f, err := t.fleet(s.idle, channels)
	if err != nil {
		return err
	}
	defer func(f *client.Fleet) { _ = f.Close() }(f)
	settle(b.ctx, t.pid)
	rss, err := gauge.ReadRSS(t.pid)
	if err != nil {
		return err
	}
	after, err := sizes(b.ctx, t, presence)
	if err != nil {
		return err
	}
	what, each := t.name+", "+shape, func(bytes int64) float64 { return float64(bytes) / float64(s.idle) / 1024 }
	x := r.add(section, what+": RSS", "KB/connection", each(rss-before.rss))
	if budget > 0 {
		x.budget(budget)
	}
	if t.ops != "" {
		r.add(section, what+": live heap", "KB/connection", each(after.heap.Live-before.heap.Live))
	}
	if presence != 0 {
		r.add(section, what+": RSS of presence", "KB/connection", each(after.presence-before.presence))
	}
	if s.profiles == "" || t.ops == "" {
		return nil
	}
	return gauge.Save(b.ctx, "http://"+t.ops+"/debug/pprof/heap?gc=1", filepath.Join(s.profiles, "heap-"+what+".pprof"))
}

// size is what a target holds.
type size struct {
	rss, presence int64
	heap          gauge.Heap
}

// sizes reads the RSS before it has the target collect its garbage.
func sizes(ctx context.Context, t target, presence int) (s size, err error) {
	if s.rss, err = gauge.ReadRSS(t.pid); err != nil {
		return s, err
	}
	if presence != 0 {
		if s.presence, err = gauge.ReadRSS(presence); err != nil {
			return s, err
		}
	}
	if t.ops != "" {
		s.heap, err = gauge.ReadHeap(ctx, t.ops)
	}
	return s, err
}

// settle returns when a process's memory has stayed the same for two seconds,
// or after twenty.
func settle(ctx context.Context, pid int) {
	const step, calm, most = 250 * time.Millisecond, 8, 80
	var last int64
	same := 0
	for range most {
		rss, err := gauge.ReadRSS(pid)
		if err != nil {
			return // the process has ended: whoever reads it next will say so
		}
		if same++; rss != last {
			last, same = rss, 0
		}
		if same == calm {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(step):
		}
	}
}
