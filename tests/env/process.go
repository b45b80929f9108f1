package env

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Process is a process that tests may end in every way, and start again with
// the same files. One goroutine uses it.
type Process struct {
	Name string

	t       testing.TB
	command func() *exec.Cmd
	cmd     *exec.Cmd
	exited  chan struct{} // closed when the process has ended
	log     tail
	file    io.Writer // gets all of the log; nil is nobody

	id atomic.Int64 // of the process that runs or ran last, for any goroutine
}

func (p *Process) start() {
	p.t.Helper()
	cmd := p.command()
	cmd.Stdout, cmd.Stderr = &p.log, &p.log
	if p.file != nil {
		both := io.MultiWriter(&p.log, p.file)
		cmd.Stdout, cmd.Stderr = both, both
	}
	if err := cmd.Start(); err != nil {
		p.t.Fatalf("start %s: %v", p.Name, err)
	}
	exited := make(chan struct{})
	p.cmd, p.exited = cmd, exited
	p.id.Store(int64(cmd.Process.Pid))
	go func() {
		_ = cmd.Wait()
		close(exited)
	}()
}

// keepLog appends all that the process writes to a file, until the test ends.
func (p *Process) keepLog(path string) {
	p.t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		p.t.Fatal(err)
	}
	p.file = f
	p.t.Cleanup(func() { f.Close() })
}

// stopAtEnd stops what runs then.
func (p *Process) stopAtEnd() {
	p.t.Cleanup(func() {
		p.end(syscall.SIGTERM)
		if p.t.Failed() && p.file == nil {
			p.t.Logf("last log lines of %s:\n%s", p.Name, p.log.String())
		}
	})
}

// Running says whether the process has not ended; a paused one has not.
func (p *Process) Running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// PID is the process's id, 0 before it is started for the first time. Any
// goroutine may ask.
func (p *Process) PID() int { return int(p.id.Load()) }

// Stop sends SIGTERM and waits for the process to end.
func (p *Process) Stop() { p.end(syscall.SIGTERM) }

// Kill ends the process with SIGKILL.
func (p *Process) Kill() { p.end(syscall.SIGKILL) }

// Terminate sends SIGTERM and does not wait.
func (p *Process) Terminate() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
}

// Pause stops the process where it is (SIGSTOP): its sockets stay, nobody
// answers.
func (p *Process) Pause() {
	p.t.Helper()
	p.signal(syscall.SIGSTOP)
}

// Resume lets a paused process run on.
func (p *Process) Resume() {
	p.t.Helper()
	p.signal(syscall.SIGCONT)
}

func (p *Process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatalf("send %v to %s: %v", s, p.Name, err)
	}
}

// Exited is closed when the process has ended.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// ExitCode waits for the process to end and gives its exit code, -1 if a
// signal ended it.
func (p *Process) ExitCode() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(stopWithin):
		p.t.Fatalf("%s did not end within %s", p.Name, stopWithin)
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *Process) end(signal os.Signal) {
	if !p.Running() {
		return
	}
	err := p.cmd.Process.Signal(signal)
	if err == nil && signal != syscall.SIGKILL {
		err = p.cmd.Process.Signal(syscall.SIGCONT) // one that is paused would not hear it
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		p.t.Errorf("signal %s: %v", p.Name, err)
	}
	select {
	case <-p.exited:
	case <-time.After(stopWithin):
		p.t.Errorf("%s did not end within %s of %v; killed", p.Name, stopWithin, signal)
		_ = p.cmd.Process.Kill()
		<-p.exited
	}
}

// Log is what the process has written last.
func (p *Process) Log() string { return p.log.String() }

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
