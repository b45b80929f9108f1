package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/carillon-rt/carillon/kit/config"
	"github.com/carillon-rt/carillon/standalone"
)

const readyLook = 100 * time.Millisecond

// devCluster is nodes as processes of this machine. One goroutine uses it.
type devCluster struct {
	nodes []*devNode
	out   io.Writer
	ended chan *devNode // a node that has ended by itself, or was killed from elsewhere
}

// devNode is one of them.
type devNode struct {
	name, file, logFile string
	ports               nodePorts
	process             *exec.Cmd     // nil before its first start
	gone                chan struct{} // closed when the process has ended
	wanted              chan struct{} // closed when it is meant to end
}

func (n *devNode) running() bool {
	if n.process == nil {
		return false
	}
	select {
	case <-n.gone:
		return false
	default:
		return true
	}
}

// start starts a node that does not run.
func (cl *devCluster) start(n *devNode) error {
	if n.running() {
		return fmt.Errorf("%s runs already, pid %d", n.name, n.process.Process.Pid)
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this binary: %w", err)
	}
	log, err := os.OpenFile(n.logFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("open the log of %s: %w", n.name, err)
	}
	defer log.Close() // the process has its own
	process := exec.Command(self, "serve", "--config", n.file)
	process.Stdout, process.Stderr = log, log
	// Variables are for whoever starts the cluster: a node that took its port from one would be in the others' way.
	process.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, config.EnvPrefix) })
	process.SysProcAttr = ownGroup()
	if err := process.Start(); err != nil {
		return fmt.Errorf("start %s: %w", n.name, err)
	}
	cl.follow(n, process)
	fmt.Fprintf(cl.out, "%s: pid %d\n", n.name, process.Process.Pid)
	return nil
}

// follow notes the end of a process that has been started.
func (cl *devCluster) follow(n *devNode, process *exec.Cmd) {
	gone, wanted := make(chan struct{}), make(chan struct{})
	n.process, n.gone, n.wanted = process, gone, wanted
	go func() {
		defer close(gone)
		_ = process.Wait() // its state says how it ended
		select {
		case <-wanted:
			return
		default:
		}
		select {
		case cl.ended <- n:
		default: // nobody has read that for as often as there are nodes
		}
	}()
}

// kill is kill -9.
func (cl *devCluster) kill(n *devNode) error {
	if !n.running() {
		return fmt.Errorf("%s does not run", n.name)
	}
	close(n.wanted)
	if err := n.process.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("kill %s: %w", n.name, err)
	}
	<-n.gone
	fmt.Fprintf(cl.out, "%s is killed; start %s starts it again\n", n.name, n.name)
	return nil
}

// stop has all nodes drain and end.
func (cl *devCluster) stop() {
	for _, n := range cl.nodes {
		if n.running() {
			close(n.wanted)
			_ = n.process.Process.Signal(syscall.SIGTERM) // one that has just ended has
		}
	}
	for _, n := range cl.nodes {
		if n.process != nil {
			<-n.gone
		}
	}
}

// awaitReady returns when every node says that it is ready.
func (cl *devCluster) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, clusterStart)
	defer cancel()
	for _, n := range cl.nodes {
		for !n.ready(ctx) {
			select {
			case <-n.gone:
				return fmt.Errorf("%s has ended (%s):\n%s", n.name, n.process.ProcessState, n.lastLines())
			case <-ctx.Done():
				return fmt.Errorf("%s is not ready in %s:\n%s", n.name, clusterStart, n.lastLines())
			case <-time.After(readyLook):
			}
		}
	}
	return nil
}

func (n *devNode) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.ports.ops+"/readyz", nil)
	if err != nil {
		return false
	}
	req.Close = true
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}

// lastLines is the end of the node's log.
func (n *devNode) lastLines() string {
	const shown = 2 << 10
	text, err := os.ReadFile(n.logFile)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-shown):])
}

// describe says where everything is, and what to try.
func (cl *devCluster) describe(dir string) {
	a := standalone.DevApp()
	var b strings.Builder
	fmt.Fprintf(&b, "\n  A cluster of %d nodes, each with every role and a NATS server.\n\n", len(cl.nodes))
	for _, n := range cl.nodes {
		fmt.Fprintf(&b, "  %s  ws://%s/app/%s   HTTP API and demo page http://%s/   health http://%s/readyz   nats://%s   pid %d\n",
			n.name, n.ports.public, a.Keys[0].Key, n.ports.public, n.ports.ops, n.ports.nats, n.process.Process.Pid)
	}
	last := cl.nodes[len(cl.nodes)-1]
	fmt.Fprintf(&b, `
  app         id %s, key %s, secret %s; channels named durable-... have a history
  files       %s: configuration, logs, streams

  Subscribe to durable-news on the demo page of one node, publish through another:

    carillon publish --url http://%s %s durable-news greeting '{"text":"hello"}'

  Type a line here to see what the others do without one of them:

    kill %[7]s     which is kill -9
    start %[7]s    starts it again with its files

  ^C stops them all.

`, a.ID, a.Keys[0].Key, a.Keys[0].Secret, filepath.Clean(dir), cl.nodes[0].ports.public, a.ID, last.name)
	fmt.Fprint(cl.out, b.String())
}
