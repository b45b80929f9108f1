package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/kit/loopback"
	"github.com/carillon-rt/carillon/kit/run"
	"github.com/carillon-rt/carillon/standalone"
)

type clusterCommand struct {
	Nodes     int    `default:"3" help:"Nodes, each with every role and a NATS server; streams have a copy on three of them."`
	Data      string `placeholder:"DIR" help:"Keep configuration, logs and streams here. Default: a new directory that is removed at the end."`
	FreePorts bool   `help:"Listen on free ports of other loopback addresses, so that several clusters fit on this machine."`
}

const (
	clusterNodesMin = 3
	clusterNodesMax = 9 // the usual ports of a node end in its number
	clusterStart    = 60 * time.Second
)

// Run starts the nodes as processes of this binary and looks after them until it is told to stop.
func (c clusterCommand) Run(ctx context.Context, s surroundings) (err error) {
	if c.Nodes < clusterNodesMin || c.Nodes > clusterNodesMax {
		return usageError{fmt.Errorf("--nodes is %d, want %d to %d: fewer NATS servers have no majority when one is gone", c.Nodes, clusterNodesMin, clusterNodesMax)}
	}
	ctx, stop := run.Signals(ctx)
	defer stop()
	dir, remove, err := c.directory()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	nodes, err := c.write(dir)
	if err != nil {
		return err
	}
	cl := &devCluster{nodes: nodes, out: s.stdout, ended: make(chan *devNode, len(nodes))}
	defer cl.stop()
	for _, n := range nodes {
		if err := cl.start(n); err != nil {
			return err
		}
	}
	if err := cl.awaitReady(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	cl.describe(dir)
	cl.serve(ctx, s.stdin)
	return nil
}

// directory is where the cluster keeps everything, and what has to be done with it at the end.
func (c clusterCommand) directory() (dir string, remove func() error, err error) {
	if c.Data != "" {
		dir, err := filepath.Abs(c.Data)
		if err != nil {
			return "", nil, fmt.Errorf("--data: %w", err)
		}
		return dir, func() error { return nil }, os.MkdirAll(dir, 0o755)
	}
	dir, err = os.MkdirTemp("", "carillon-cluster-")
	if err != nil {
		return "", nil, fmt.Errorf("make a directory for the cluster: %w", err)
	}
	return dir, func() error { return os.RemoveAll(dir) }, nil
}

// clusterPorts are the first node's usual ports; the others count on from them.
var clusterPorts = struct{ public, ops, gossip, nats, route int }{6001, 9601, 7946, 4222, 6222}

// nodePorts are where one node listens, as host:port.
type nodePorts struct{ public, ops, gossip, nats, route string }

// ports chooses them for every node before any of them runs: each has to be told where the others are.
func (c clusterCommand) ports() ([]nodePorts, error) {
	usual, all := clusterPorts, make([]nodePorts, c.Nodes)
	var held []io.Closer
	defer func() {
		for _, h := range held {
			h.Close()
		}
	}()
	for i := range all {
		p, host := &all[i], "127.0.0.1"
		if c.FreePorts {
			host = loopback.IP()
		}
		for _, one := range []struct {
			addr *string
			port int
		}{{&p.public, usual.public}, {&p.ops, usual.ops}, {&p.gossip, usual.gossip}, {&p.nats, usual.nats}, {&p.route, usual.route}} {
			port := one.port + i
			if c.FreePorts {
				port = 0
			}
			l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
			if err != nil {
				return nil, fmt.Errorf("a port of node %d is taken; --free-ports chooses others: %w", i+1, err)
			}
			held = append(held, l)
			*one.addr = l.Addr().String()
		}
	}
	return all, nil
}

// write writes the configuration of each node, one that could be used on machines of their own.
func (c clusterCommand) write(dir string) ([]*devNode, error) {
	ports, err := c.ports()
	if err != nil {
		return nil, err
	}
	var seeds, routes []string
	for _, p := range ports {
		seeds, routes = append(seeds, p.gossip), append(routes, "nats-route://"+p.route)
	}
	nodes := make([]*devNode, c.Nodes)
	for i, p := range ports {
		name := fmt.Sprint("node-", i+1)
		n := &devNode{name: name, file: filepath.Join(dir, name+".yaml"), logFile: filepath.Join(dir, name+".log"), ports: p}
		nodes[i] = n
		if err := os.WriteFile(n.file, []byte(clusterYAML(name, filepath.Join(dir, name), p, seeds, routes)), 0o600); err != nil {
			return nil, fmt.Errorf("write the configuration of %s: %w", name, err)
		}
	}
	return nodes, nil
}

func clusterYAML(name, dir string, p nodePorts, seeds, routes []string) string {
	a := standalone.DevApp()
	return fmt.Sprintf(`node: {name: %s}
log: {level: info, format: text}
gateway: {listen: %q, drain: {propagation: 0s, window: 500ms, slack: 500ms}}  # longer behind a load balancer
ops: {listen: %q}
cluster: {listen: %q, seeds: ["%s"]}
embedded:
  dir: %q
  listen: %q
  cluster: {name: carillon, listen: %q, routes: ["%s"]}
router: {partitions: 16, replicas: 3}
presence: {replicas: 3}
api: {webhook: {replicas: 3}}
dev: {page: true}  # signs for whoever asks: not where others can reach it
apps:
  - id: %q
    keys: [{key: %s, secret: %s}]
    client_events: true
    subscription_count: true
    watchlist: true
    policies: [{match: "durable-*", history: {size: 100, ttl: 5m}}]
`, name, p.public, p.ops, p.gossip, strings.Join(seeds, `", "`), dir, p.nats, p.route, strings.Join(routes, `", "`), a.ID, a.Keys[0].Key, a.Keys[0].Secret)
}

// serve takes commands until ctx ends. The end of the input is no command: what runs in the background has none.
func (cl *devCluster) serve(ctx context.Context, in io.Reader) {
	lines := make(chan string)
	go func() { // ends with the process: a read of the terminal can't be called off
		for scanner := bufio.NewScanner(in); scanner.Scan(); {
			lines <- scanner.Text()
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return
		case n := <-cl.ended:
			fmt.Fprintf(cl.out, "%s has ended (%s); start %s starts it again\n", n.name, n.process.ProcessState, n.name)
		case line := <-lines:
			cl.command(strings.Fields(line))
		}
	}
}

func (cl *devCluster) command(words []string) {
	if len(words) == 0 {
		return
	}
	var n *devNode
	for _, known := range cl.nodes {
		if len(words) == 2 && (words[1] == known.name || "node-"+words[1] == known.name) {
			n = known
		}
	}
	var do func(*devNode) error
	switch words[0] {
	case "kill":
		do = cl.kill
	case "start":
		do = cl.start
	}
	if n == nil || do == nil {
		fmt.Fprintln(cl.out, "want kill or start, and one of the nodes, such as: kill node-2")
		return
	}
	if err := do(n); err != nil {
		fmt.Fprintln(cl.out, err)
	}
}
