package leaktest

import (
	"net"
	"os"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) { Main(m) }

func leakNow(before snapshot) []string { return settle(before, 50*time.Millisecond) }

func TestSeesGoroutine(t *testing.T) {
	warmUp()
	before := take()
	stop := make(chan struct{})
	go leakyLoop(stop)
	leaks := leakNow(before)
	if len(leaks) != 1 || !strings.Contains(leaks[0], "leakyLoop") {
		t.Errorf("got %q, want the stack of leakyLoop", leaks)
	}
	close(stop)
	if leaks := settle(before, Settle); len(leaks) != 0 {
		t.Errorf("after it ended: %q", leaks)
	}
}

func leakyLoop(stop chan struct{}) { <-stop }

func TestSeesDescriptors(t *testing.T) {
	warmUp()
	before := take()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.CreateTemp(t.TempDir(), "left")
	if err != nil {
		t.Fatal(err)
	}
	leaks := strings.Join(leakNow(before), "\n")
	if !strings.Contains(leaks, "-> socket:[") || !strings.Contains(leaks, "-> "+f.Name()) {
		t.Errorf("got %q, want the socket and %s", leaks, f.Name())
	}
	ln.Close()
	f.Close()
	if leaks := settle(before, Settle); len(leaks) != 0 {
		t.Errorf("after they were closed: %q", leaks)
	}
}

func TestSeesReusedDescriptor(t *testing.T) {
	a, err := os.CreateTemp(t.TempDir(), "a")
	if err != nil {
		t.Fatal(err)
	}
	before := take()
	a.Close()
	b, err := os.CreateTemp(t.TempDir(), "b") // gets the number of a
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if leaks := leakNow(before); len(leaks) != 1 || !strings.Contains(leaks[0], b.Name()) {
		t.Errorf("got %q, want %s", leaks, b.Name())
	}
}

// recorder is a testing.TB that keeps what it is told.
type recorder struct {
	testing.TB
	cleanups []func()
	errors   []string
}

func (r *recorder) Helper()               {}
func (r *recorder) Failed() bool          { return false }
func (r *recorder) Cleanup(fn func())     { r.cleanups = append(r.cleanups, fn) }
func (r *recorder) Errorf(string, ...any) { r.errors = append(r.errors, "failed") }

func TestCheckFailsTheTest(t *testing.T) {
	r := &recorder{TB: t}
	check(r, 50*time.Millisecond)
	stop := make(chan struct{})
	go leakyLoop(stop)
	r.cleanups[0]()
	close(stop)
	if len(r.errors) != 1 {
		t.Errorf("a test with a leak failed %d times, want once", len(r.errors))
	}
	quiet := &recorder{TB: t}
	Check(quiet)
	quiet.cleanups[0]()
	if len(quiet.errors) != 0 {
		t.Error("a test without a leak failed")
	}
}
