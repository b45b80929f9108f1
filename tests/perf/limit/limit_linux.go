// Package limit builds and starts the limit servers, which do the least that a
// server can do for a delivery: what ours costs is measured against them. It
// owns their processes and must not know what is measured, nor of tests.
//
// It builds from source: it needs the go command and to run inside of this
// repository, as go run and go test do.
package limit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// ErrNoCompiler is what C returns where there is no C compiler.
var ErrNoCompiler = errors.New("limit: no C compiler (cc, gcc or clang): install gcc and libc6-dev, or what .ci/packages says")

// source is the Go server's package; the C server is in its folder c.
const source = "github.com/carillon-rt/carillon/tests/perf/rawloop"

// startWithin is how long a server may take to say its address.
const startWithin = 30 * time.Second

// Server is a limit server that runs.
type Server struct {
	// Addr is where it listens, as host:port.
	Addr string
	// PID is its process.
	PID int

	cmd        *exec.Cmd
	complaints strings.Builder // owned by cmd until it has ended
	stop       sync.Once
	ended      error // guarded by stop
}

// Go builds the server in Go in dir and starts it. It runs until Stop, until
// ctx is done, or until this process ends. Both servers take these flags:
//
//	-listen ADDRESS  an IPv4 loopback address and a port; without it 127.0.0.1:0
//	-ping SECONDS    how often each connection gets a ping, up to 3600; without
//	                 it, or with 0, never
//	-slow BYTES      what is kept for a client that does not read, which is then
//	                 cut off; without it the server ends when there is one
func Go(ctx context.Context, dir string, flags ...string) (*Server, error) {
	path := filepath.Join(dir, "rawloop")
	if err := build(ctx, "go", "build", "-o", path, source); err != nil {
		return nil, err
	}
	return start(ctx, path, flags)
}

// C is Go for the server in C; errors.Is ErrNoCompiler where it cannot be built.
func C(ctx context.Context, dir string, flags ...string) (*Server, error) {
	path := filepath.Join(dir, "rawloop-c")
	if err := compile(ctx, path); err != nil {
		return nil, err
	}
	return start(ctx, path, flags)
}

func compile(ctx context.Context, path string, options ...string) error {
	cc, err := compiler()
	if err != nil {
		return err
	}
	folder, err := exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", source).Output()
	if err != nil {
		return fmt.Errorf("limit: the source of %s: %w", source, err)
	}
	file := filepath.Join(strings.TrimSpace(string(folder)), "c", "rawloop.c")
	return build(ctx, cc, append(options, "-std=c11", "-O2", "-o", path, file)...)
}

func compiler() (string, error) {
	for _, name := range []string{"cc", "gcc", "clang"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", ErrNoCompiler
}

func build(ctx context.Context, name string, args ...string) error {
	if out, err := exec.CommandContext(ctx, name, args...).CombinedOutput(); err != nil {
		return fmt.Errorf("limit: %s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return nil
}

func start(ctx context.Context, path string, flags []string) (*Server, error) {
	s := &Server{cmd: exec.CommandContext(ctx, path, flags...)}
	s.cmd.Stderr = &s.complaints
	// A process that is killed takes its servers with it.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("limit: %w", err)
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("limit: %w", err)
	}
	s.PID = s.cmd.Process.Pid
	if s.Addr, err = firstLine(out, s.cmd.Process.Kill); err != nil {
		return nil, fmt.Errorf("limit: %s did not say its address: %w", path, errors.Join(err, s.Stop()))
	}
	return s, nil
}

// firstLine gives up by killing who should write it.
func firstLine(r io.Reader, kill func() error) (string, error) {
	late := time.AfterFunc(startWithin, func() { _ = kill() }) // that it has ended already is as good
	defer late.Stop()
	line, err := bufio.NewReader(r).ReadString('\n')
	return strings.TrimSpace(line), err
}

// Stop kills the server and waits for its end. The error is that of a server
// that had ended before, with what it said.
func (s *Server) Stop() error {
	s.stop.Do(func() {
		_ = s.cmd.Process.Kill() // or it has ended, which Wait says
		err := s.cmd.Wait()
		if status, ok := s.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signal() == syscall.SIGKILL {
			return
		}
		s.ended = fmt.Errorf("limit: the server has ended: %w: %s", err, strings.TrimSpace(s.complaints.String()))
	})
	return s.ended
}
