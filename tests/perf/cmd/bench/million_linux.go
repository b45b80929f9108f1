package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/carillon-rt/carillon/tests/env"
	"github.com/carillon-rt/carillon/tests/load/crew"
	"github.com/carillon-rt/carillon/tests/load/fleet"
	"github.com/carillon-rt/carillon/tests/load/gauge"
	"github.com/carillon-rt/carillon/tests/load/publish"
	"github.com/carillon-rt/carillon/tests/load/scenario"
)

const (
	// perProcess is how many connections a process holds on either side.
	perProcess = 19_000
	// kernelPair and userPair are what a connection takes with both its ends
	// here, in bytes: what does not fit is not begun.
	kernelPair, userPair = 8300, 2500
	// perNode is what a gateway and a worker take without connections.
	perNode = 60 << 20
	// kept stays free for everything else.
	kept = 2 << 30
	// workersAtOnce bounds the connections that each worker has under way.
	workersAtOnce = 64
	// workersParallel is how many workers connect at a time.
	workersParallel = 2
	millionWithin   = 20 * time.Minute
)

// million holds many connections through many gateway processes that share
// one NATS server, each subscribed to one shared channel, and has a message
// delivered to all of them.
func million(b *bench, s settings) error {
	n, err := affordable(s.million)
	if err != nil {
		return err
	}
	processes := (n + perProcess - 1) / perProcess
	fmt.Fprintf(os.Stderr, "%d connections, %d gateways, %d workers\n", n, processes, processes)
	c := env.Start(b, env.Apart(processes), benchApp(0), env.Set("gateway.loops=1"))
	plan := fleet.Plan{
		Dialect: "pusher", Key: key, Secret: secret, Connections: n, Shared: 1, AtOnce: workersAtOnce, Pinned: true,
	}
	var pids []int
	for _, g := range c.Gateways {
		plan.Addrs = append(plan.Addrs, g.Public())
		pids = append(pids, g.PID())
	}
	before, err := gauge.Available()
	if err != nil {
		return err
	}
	a, err := crew.Start([]string{os.Getenv("CARILLON_BIN"), "bench", "worker"}, plan, processes, workersParallel)
	if err != nil {
		return err
	}
	return errors.Join(hold(b, c, plan, pids, a, before), a.Close())
}

// hold connects, publishes and reports.
func hold(b *bench, c *env.Cluster, plan fleet.Plan, pids []int, a *crew.Crew, before int64) error {
	app := publish.App{Addr: c.API.API(), ID: appID, Key: key, Secret: secret}
	p, err := publish.NewHTTP(app, publish.Message{Name: plan.Name, Bytes: 64}, 1, 0, a.Now)
	if err != nil {
		return err
	}
	told := time.Time{}
	r, err := scenario.Run(b.ctx, scenario.Setup{
		Kind: scenario.Fanout, Plan: plan, Window: 1, Length: time.Millisecond, Within: millionWithin, Servers: pids,
		Progress: func(at scenario.Progress) {
			if time.Since(told) > 5*time.Second {
				told = time.Now()
				fmt.Fprintf(os.Stderr, "%4.0f s  %s: %d connections, %d refused, %d lost, %d delivered\n",
					at.Elapsed.Seconds(), at.Phase, at.Live, at.Counts.Refused, at.Counts.Lost, at.Counts.Delivered)
			}
		},
	}, a, p)
	if err = errors.Join(err, p.Close()); err != nil {
		return err
	}
	after, err := gauge.Available()
	if err != nil {
		return err
	}
	fmt.Printf("connections: %d live, %d refused, %d lost; with both ends on this machine\n", a.Live(), r.Counts.Refused, r.Counts.Lost)
	for _, f := range r.Figures {
		fmt.Printf("  %s: %s %s\n", f.Name, number(f.Value), f.Unit)
	}
	fmt.Printf("  one message to all: %d delivered, %d missing, the last after %.2f s\n", r.Tally.Delivered, r.Tally.Missing, r.Latency.Max/1e3)
	fmt.Printf("  memory of the whole machine: %.2f GB, %.2f KB a connection\n", float64(before-after)/1e9, float64(before-after)/1024/float64(a.Live()))
	if len(r.Closes) > 0 {
		fmt.Printf("  closed by the gateways, by code: %v; %v\n", r.Closes, r.Notes)
	}
	if !r.Clean() {
		return fmt.Errorf("not everything arrived: %+v", r.Tally)
	}
	return nil
}

// affordable is how many of n connections the machine has memory for.
func affordable(n int) (int, error) {
	free, err := gauge.Available()
	if err != nil {
		return 0, err
	}
	each := int64(kernelPair + userPair + 2*perNode/perProcess)
	if most := int((free - kept) / each); n > most {
		fmt.Fprintf(os.Stderr, "%.1f GB are free: enough for %d connections, not for %d\n", float64(free)/1e9, most, n)
		n = most
	}
	if n < 1 {
		return 0, errors.New("there is no memory for a single connection")
	}
	return n, nil
}
