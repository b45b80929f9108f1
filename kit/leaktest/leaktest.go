// Package leaktest fails a test that leaves goroutines or file descriptors behind. It owns the rules of what counts as
// left behind; it knows nothing of the code under test.
package leaktest

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Settle is how long goroutines and descriptors may take to go away after the test's own cleanups.
const Settle = 5 * time.Second

// Check fails t when, after t's cleanups, there are goroutines or descriptors that were not there at this call. Call it
// first in the test, so that its check runs after all other cleanups. Not for parallel tests: it sees their neighbours.
func Check(t testing.TB) {
	t.Helper()
	check(t, Settle)
}

func check(t testing.TB, within time.Duration) {
	t.Helper()
	warmUp()
	before := take()
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		if leaks := settle(before, within); len(leaks) > 0 {
			t.Errorf("leaked by %s:\n%s", t.Name(), strings.Join(leaks, "\n"))
		}
	})
}

// Main runs the tests of a package, and fails the package when they leave something behind:
//
//	func TestMain(m *testing.M) { leaktest.Main(m) }
func Main(m *testing.M) {
	warmUp()
	before := take()
	code := m.Run()
	if code == 0 {
		if leaks := settle(before, Settle); len(leaks) > 0 {
			fmt.Fprintf(os.Stderr, "leaked by the tests of this package:\n%s\n", strings.Join(leaks, "\n"))
			code = 1
		}
	}
	os.Exit(code)
}

// snapshot is what exists at one moment: goroutines by id, descriptors by number and target.
type snapshot struct {
	goroutines map[int]string
	fds        map[int]string
}

// warmUp opens a socket once, so that the runtime's network poller, which keeps an epoll descriptor and an eventfd for the
// life of the process, exists before the first snapshot.
func warmUp() {
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		ln.Close()
	}
}

func take() snapshot { return snapshot{goroutines: goroutines(), fds: descriptors()} }

// settle polls until nothing is left that was not in before, or until the time is over; it returns what is left.
func settle(before snapshot, within time.Duration) []string {
	deadline := time.Now().Add(within)
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		leaks := before.newIn(take())
		if len(leaks) == 0 || time.Now().After(deadline) {
			return leaks
		}
		time.Sleep(wait)
	}
}

func (s snapshot) newIn(now snapshot) []string {
	var leaks []string
	for id, stack := range now.goroutines {
		if _, known := s.goroutines[id]; !known {
			leaks = append(leaks, stack)
		}
	}
	for fd, target := range now.fds {
		if s.fds[fd] != target {
			leaks = append(leaks, fmt.Sprintf("fd %d -> %s", fd, target))
		}
	}
	slices.Sort(leaks)
	return leaks
}

// ignored are entry points of goroutines that the runtime, the testing package or os/signal keep for the life of the process.
var ignored = []string{
	"created by testing.",
	"created by runtime",
	"created by os/signal.",
	"testing.RunTests(",
	"testing.(*M).",
	"testing.(*T).Run(",
	"testing/synctest.",
	"os/signal.signal_recv(",
	"runtime.ensureSigM",
	"runtime/trace.",
	"runtime/pprof.profileWriter",
	"github.com/carillon-rt/carillon/kit/leaktest.goroutines(",
}

// processWide are goroutines that libraries start once per process and never stop.
var processWide = []string{
	"github.com/golang/glog.",
	"go.opencensus.io/stats/view.",
	"github.com/nats-io/nats-server/v2/server.init",
	"github.com/nats-io/nats-server/v2/server/ats.",
	"internal/poll.runtime_pollServerInit",
}

func goroutines() map[int]string {
	buf := make([]byte, 1<<20)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	found := make(map[int]string)
	for stack := range strings.SplitSeq(strings.TrimSpace(string(buf)), "\n\n") {
		id, ok := goroutineID(stack)
		if !ok || containsAny(stack, ignored) || containsAny(stack, processWide) {
			continue
		}
		found[id] = stack
	}
	return found
}

// goroutineID reads the number out of "goroutine 12 [state]:".
func goroutineID(stack string) (int, bool) {
	rest, ok := strings.CutPrefix(stack, "goroutine ")
	if !ok {
		return 0, false
	}
	number, _, _ := strings.Cut(rest, " ")
	id, err := strconv.Atoi(number)
	return id, err == nil
}

func containsAny(s string, parts []string) bool {
	return slices.ContainsFunc(parts, func(part string) bool { return strings.Contains(s, part) })
}

// descriptors lists the open descriptors with what they point to; on systems without /proc there are none to see.
func descriptors() map[int]string {
	const dir = "/proc/self/fd"
	found := make(map[int]string)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return found
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil { // closed since, as the directory's own descriptor is
			continue
		}
		if strings.HasPrefix(target, "/sys/fs/cgroup/") { // the runtime reads its CPU limit there
			continue
		}
		if fd, err := strconv.Atoi(e.Name()); err == nil {
			found[fd] = target
		}
	}
	return found
}
