package env

import (
	"bytes"
	"crypto/md5"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/await"
)

const (
	readyWithin = 30 * time.Second
	stopWithin  = 30 * time.Second
	logShown    = 60 // lines of each process, when a test fails
)

// Node is one process.
type Node struct {
	Name string

	t         testing.TB
	args      []string
	addresses string
	cmd       *exec.Cmd
	exited    chan struct{} // closed when the process has ended
	log       tail
	addr      Addresses
}

// Addresses is where a process listens, as it writes it into its addresses
// file; "" where it does not.
type Addresses struct {
	Public string `json:"public"`
	API    string `json:"api"`
	Ops    string `json:"ops"`
	NATS   string `json:"nats"`
}

// binary is the path of the binary: CARILLON_BIN, or one built now, which the
// next run of the same package replaces.
var binary = sync.OnceValues(func() (string, error) {
	if given := os.Getenv("CARILLON_BIN"); given != "" {
		return given, nil
	}
	here, err := os.Getwd()
	if err != nil {
		return "", err
	}
	path := filepath.Join(os.TempDir(), fmt.Sprintf("carillon-%x", md5.Sum([]byte(here))), "carillon")
	out, err := exec.Command("go", "build", "-o", path, "github.com/carillon-rt/carillon/standalone/cmd/carillon").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build carillon: %w\n%s", err, out)
	}
	return path, nil
})

// Command is the real binary with arguments and, of the variables that begin
// with CARILLON_, only those given (NAME=value). It is not started.
func Command(t testing.TB, vars []string, args ...string) *exec.Cmd {
	t.Helper()
	path, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	// Variables that tests use would be unknown settings to the process.
	cmd.Env = slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "CARILLON_") })
	cmd.Env = append(cmd.Env, vars...)
	// A test process that is killed takes its children with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd
}

func (n *Node) start() {
	n.t.Helper()
	cmd := Command(n.t, nil, n.args...)
	cmd.Stdout, cmd.Stderr = &n.log, &n.log
	if err := cmd.Start(); err != nil {
		n.t.Fatalf("start %s: %v", n.Name, err)
	}
	exited := make(chan struct{})
	n.cmd, n.exited = cmd, exited
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
}

// stopAtEnd stops what runs then.
func (n *Node) stopAtEnd() {
	n.t.Cleanup(func() {
		n.end(syscall.SIGTERM)
		if n.t.Failed() {
			n.t.Logf("last log lines of %s:\n%s", n.Name, n.log.String())
		}
	})
}

// Restart starts the process again, with the same files, after it has been
// stopped or killed, and returns when it is ready. Its ports are new ones.
func (n *Node) Restart() {
	n.t.Helper()
	n.StartAgain()
	n.WaitReady()
}

// StartAgain is Restart that does not wait.
func (n *Node) StartAgain() {
	n.t.Helper()
	select {
	case <-n.exited:
	default:
		n.t.Fatalf("%s still runs: stop it before it is started again", n.Name)
	}
	if err := os.Remove(n.addresses); err != nil && !errors.Is(err, os.ErrNotExist) {
		n.t.Fatal(err)
	}
	n.addr = Addresses{}
	n.start()
}

// WaitReady returns when the process answers that it is ready.
func (n *Node) WaitReady() {
	n.t.Helper()
	await.Within(n.t, readyWithin, n.Name+" is ready", func() bool {
		select {
		case <-n.exited:
			n.t.Fatalf("%s has ended: %s", n.Name, n.log.String())
		default:
		}
		raw, err := os.ReadFile(n.addresses)
		if err != nil || json.Unmarshal(raw, &n.addr) != nil || n.addr.Ops == "" {
			return false
		}
		res, err := http.Get("http://" + n.addr.Ops + "/readyz")
		if err != nil {
			return false
		}
		res.Body.Close()
		return res.StatusCode == http.StatusOK
	})
}

// Public, API and Ops are host:port.
func (n *Node) Public() string { return n.addr.Public }

// API is where the HTTP API is served.
func (n *Node) API() string {
	if n.addr.API != "" {
		return n.addr.API
	}
	return n.addr.Public
}

// Ops is the address of the ops port.
func (n *Node) Ops() string { return n.addr.Ops }

// NATS is the URL of the embedded NATS server; "" if there is none, or if it
// listens nowhere (embedded.listen).
func (n *Node) NATS() string { return n.addr.NATS }

// PID is the process's id.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// Stop sends SIGTERM and waits for the process to end.
func (n *Node) Stop() { n.end(syscall.SIGTERM) }

// Terminate sends SIGTERM and does not wait.
func (n *Node) Terminate() {
	n.t.Helper()
	if err := n.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		n.t.Fatalf("terminate %s: %v", n.Name, err)
	}
}

// ExitCode waits for the process to end and gives its exit code, -1 if a
// signal ended it.
func (n *Node) ExitCode() int {
	n.t.Helper()
	select {
	case <-n.exited:
	case <-time.After(stopWithin):
		n.t.Fatalf("%s did not end within %s", n.Name, stopWithin)
	}
	return n.cmd.ProcessState.ExitCode()
}

// Kill ends the process with SIGKILL.
func (n *Node) Kill() { n.end(syscall.SIGKILL) }

func (n *Node) end(signal os.Signal) {
	select {
	case <-n.exited:
		return
	default:
	}
	if err := n.cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		n.t.Errorf("signal %s: %v", n.Name, err)
	}
	select {
	case <-n.exited:
	case <-time.After(stopWithin):
		n.t.Errorf("%s did not end within %s of %v; killed", n.Name, stopWithin, signal)
		_ = n.cmd.Process.Kill()
		<-n.exited
	}
}

// Log is what the process has written last.
func (n *Node) Log() string { return n.log.String() }

// tail keeps the last lines that were written.
type tail struct {
	mu sync.Mutex
	// guarded by mu
	lines []string
	rest  []byte
}

// Write implements io.Writer.
func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rest = append(l.rest, p...)
	for {
		line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
		if !ok {
			return len(p), nil
		}
		l.lines = append(l.lines, string(line))
		l.rest = append([]byte(nil), rest...)
		if len(l.lines) > logShown {
			l.lines = l.lines[1:]
		}
	}
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(append(append([]string(nil), l.lines...), string(l.rest)), "\n")
}
