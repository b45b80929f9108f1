package main

import (
	"bufio"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/carillon-rt/carillon/tests/env"
	"github.com/carillon-rt/carillon/tests/perf/client"
	"github.com/carillon-rt/carillon/tests/perf/gauge"
)

const connectWithin = 60 * time.Second

// The measured app has every setting at its default: package env's own has
// features on that send to all subscribers when one comes or goes.
const (
	appID  = "2002"
	key    = "perf-key"
	secret = "perf-secret"
)

var perfApp = env.Set(fmt.Sprintf("apps=[{id: %q, keys: [{key: %s, secret: %s}]}]", appID, key, secret))

// target is a server that is measured.
type target struct {
	name string
	addr string
	// pid is the process whose use counts; all are those of the deployment.
	pid int
	all []int
	api string // of the HTTP API; "" is a raw loop
	ops string
}

// startRaw builds and starts the raw loop.
func startRaw(b *bench) (target, error) {
	path := filepath.Join(b.TempDir(), "rawloop")
	if out, err := exec.Command("go", "build", "-o", path, "github.com/carillon-rt/carillon/tests/perf/rawloop").CombinedOutput(); err != nil {
		return target{}, fmt.Errorf("build rawloop: %w\n%s", err, out)
	}
	cmd := exec.CommandContext(b.ctx, path)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return target{}, err
	}
	if err := cmd.Start(); err != nil {
		return target{}, err
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
		b.Logf("rawloop said: %s", complaints.String())
	})
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return target{}, fmt.Errorf("rawloop did not say its address: %w", err)
	}
	pid := cmd.Process.Pid
	return target{name: "raw loop", addr: strings.TrimSpace(addr), pid: pid, all: []int{pid}}, nil
}

// startOne starts everything in one process.
func startOne(b *bench) target {
	n := env.Start(b, perfApp).Gateways[0]
	return target{name: "one process", addr: n.Public(), api: n.API(), ops: n.Ops(), pid: n.PID(), all: []int{n.PID()}}
}

// startApart starts each service in its own process; the gateway is what
// counts.
func startApart(b *bench) (*env.Cluster, target) {
	c := env.Start(b, env.Apart(1), perfApp)
	return c, gatewayTarget(c, c.Gateways[0])
}

func gatewayTarget(c *env.Cluster, n *env.Node) target {
	t := target{name: "gateway", addr: n.Public(), api: c.API.API(), ops: n.Ops(), pid: n.PID()}
	for _, n := range c.Nodes {
		t.all = append(t.all, n.PID())
	}
	return t
}

// fleet connects n clients to the target.
func (t target) fleet(n int, channels func(int) []string) (*client.Fleet, error) {
	f, err := client.New(client.Config{Addr: t.addr, Key: key, Connections: n, Channels: channels, Mark: mark})
	if err != nil {
		return nil, err
	}
	if err := f.Connect(connectWithin); err != nil {
		return nil, fmt.Errorf("%s: %w", t.name, err)
	}
	return f, nil
}

// publisher publishes on channel with up to window publications in flight.
func (t target) publisher(f *client.Fleet, channel string, window int) (client.Publisher, error) {
	if t.api == "" {
		return client.NewRaw(f, []byte(`{"event":"message","channel":"`+channel+`","data":"`+data+`"}`)), nil
	}
	app := client.App{Addr: t.api, ID: appID, Key: key, Secret: secret}
	return client.NewHTTP(f, app, []byte(`{"name":"message","channel":"`+channel+`","data":"`+data+`"}`), window)
}

// cpu is what the target's process has used, and all of its deployment.
func (t target) cpu() (own, all gauge.CPU, err error) {
	for _, pid := range t.all {
		used, err := gauge.ReadCPU(pid)
		if err != nil {
			return own, all, err
		}
		if pid == t.pid {
			own = used
		}
		all.User += used.User
		all.System += used.System
	}
	return own, all, nil
}

const mark = '~'

// data is 64 bytes with one mark.
const data = "~123456789-123456789-123456789-123456789-123456789-123456789-123"

func shared(int) []string { return []string{"perf"} }

func own(i int) []string { return []string{fmt.Sprint("perf-own-", i)} }

func ownAndShared(i int) []string { return append(own(i), shared(i)...) }
