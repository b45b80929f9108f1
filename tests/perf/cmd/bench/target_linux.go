package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/carillon-rt/carillon/tests/env"
	"github.com/carillon-rt/carillon/tests/load/fleet"
	"github.com/carillon-rt/carillon/tests/load/publish"
	"github.com/carillon-rt/carillon/tests/load/scenario"
	"github.com/carillon-rt/carillon/tests/perf/limit"
)

// The measured app has every setting at its default: package env's own has
// features on that send to all subscribers when one comes or goes. Channels
// that begin with durable- go through the journal.
const (
	appID  = "2002"
	key    = "bench-key"
	secret = "bench-secret"
)

// activitySeconds is after how much silence the server pings in the cases,
// less its slack.
const activitySeconds = 5

// period is how often the server then pings a client that says nothing; 0 is
// its default.
func period(activity int) int {
	if activity == 0 {
		return 0
	}
	return activity + 5
}

// benchApp has the server ping after so many seconds; 0 is its default.
func benchApp(activity int) env.Option {
	return env.Set(fmt.Sprintf("apps=[{id: %q, keys: [{key: %s, secret: %s}], activity_timeout: %ds, "+
		"policies: [{match: durable-*, history: {size: 10, ttl: 1m}}], centrifugo: {enabled: true, anonymous: true, ping_interval: %ds}}]",
		appID, key, secret, activity, period(activity)))
}

// target is a server that is measured.
type target struct {
	name string
	addr string
	pids []int  // processes whose use counts
	api  string // of the HTTP API; "" is a limit server
	nats string
	ops  string
}

// Names of targets.
const (
	cLoop      = "C loop"
	goLoop     = "Go loop"
	gateway    = "gateway"
	oneProcess = "one process"
	inSource   = "this tree" // a Go benchmark
)

// start starts the target of a name.
func (b *bench) start(name string) (target, error) {
	switch name {
	case cLoop, goLoop:
		return b.startLimit(name)
	case gateway:
		return b.startApart(), nil
	case oneProcess:
		return b.startOne(), nil
	}
	return target{}, fmt.Errorf("there is no target %q", name)
}

// slowKept is what limit servers keep for a slow reader.
const slowKept = "262144"

// startLimit starts a limit server that pings as often as the others do.
func (b *bench) startLimit(name string) (target, error) {
	start := limit.Go
	if name == cLoop {
		start = limit.C
	}
	s, err := start(b.ctx, b.TempDir(), "-slow", slowKept, "-ping", strconv.Itoa(period(activitySeconds)))
	if err != nil {
		return target{}, err
	}
	b.Cleanup(func() {
		if err := s.Stop(); err != nil {
			b.Errorf("%s: %v", name, err)
		}
	})
	return target{name: name, addr: s.Addr, pids: []int{s.PID}}, nil
}

// startOne starts everything in one process.
func (b *bench) startOne() target {
	n := env.Start(b, benchApp(activitySeconds), env.Set("embedded.listen=127.0.0.1:0")).Gateways[0]
	return target{name: oneProcess, addr: n.Public(), api: n.API(), ops: n.Ops(), nats: n.NATS(), pids: []int{n.PID()}}
}

// startApart starts each service in its own process; the gateway is what
// counts.
func (b *bench) startApart() target {
	c := env.Start(b, env.Apart(1), benchApp(activitySeconds))
	n := c.Gateways[0]
	return target{name: gateway, addr: n.Public(), api: c.API.API(), ops: n.Ops(), nats: c.NATS.URL(), pids: []int{n.PID()}}
}

// run runs a scenario against the target.
func (t target) run(ctx context.Context, s scenario.Setup, how publishing) (*scenario.Result, error) {
	s.Plan.Addrs, s.Servers = []string{t.addr}, t.pids
	switch {
	case t.api == "":
		s.Plan.Dialect = "raw"
	case s.Plan.Dialect == "":
		s.Plan.Dialect = "pusher"
	}
	s.Plan.Key, s.Plan.Secret = key, secret
	if s.Within == 0 {
		s.Within = patience
	}
	f, err := fleet.New(s.Plan)
	if err != nil {
		return nil, err
	}
	p, err := t.publisher(f, s.Plan.Name, how)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	r, err := scenario.Run(ctx, s, f, p)
	if p != nil {
		err = errors.Join(err, p.Close())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("%s: %w", t.name, err)
	}
	return r, nil
}

// publishing is how a case publishes; limit servers always take it from a
// socket.
type publishing struct {
	via    string // http, batch, nats, router; "" is nothing
	bytes  int
	flight int // requests, or publications with router
	batch  int
	// publishers, with router, are as many api services
	publishers int
}

func (t target) publisher(f *fleet.Fleet, name func(int) string, how publishing) (publish.Publisher, error) {
	m := publish.Message{Name: name, Bytes: how.bytes}
	app := publish.App{Addr: t.api, ID: appID, Key: key, Secret: secret}
	switch {
	case how.via == "":
		return nil, nil
	case t.api == "":
		return publish.NewSocket(m, f.Now, func(b []byte) { f.SendText(0, b) })
	case how.via == "http":
		return publish.NewHTTP(app, m, how.flight, 0, f.Now)
	case how.via == "batch":
		return publish.NewHTTP(app, m, how.flight, how.batch, f.Now)
	case how.via == "nats":
		return publish.NewNATS(t.nats, appID, m, how.batch, how.flight, f.Now)
	case how.via == "router":
		return publish.NewRouter(t.nats, appID, m, max(how.publishers, 1), how.flight, f.Now)
	}
	return nil, fmt.Errorf("there is no way to publish by %q", how.via)
}
