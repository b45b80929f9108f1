package await

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/carillon-rt/carillon/kit/leaktest"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// witness is a test that keeps what it is failed with.
type witness struct {
	testing.TB
	said string
}

func (w *witness) Helper() {}

func (w *witness) Fatalf(format string, args ...any) {
	w.said = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// verdict runs wait as a test and returns what it failed with, and the time it took.
func verdict(t *testing.T, wait func(t testing.TB)) (said string, took time.Duration) {
	t.Helper()
	w := &witness{TB: t}
	began := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		wait(w)
	}()
	<-done
	return w.said, time.Since(began)
}

func TestWaits(t *testing.T) {
	looks := 0
	third := func() bool { looks++; return looks == 3 }
	tests := []struct {
		name  string
		wait  func(t testing.TB)
		said  string
		least time.Duration
		most  time.Duration
	}{
		{"true at once", func(t testing.TB) { True(t, "x", func() bool { return true }) }, "", 0, 0},
		{"true at the third look", func(t testing.TB) { True(t, "x", third) }, "", 3 * time.Millisecond, 3 * time.Millisecond},
		{"never true", func(t testing.TB) { True(t, "the gate to open", func() bool { return false }) }, "not within 30s: the gate to open", Patience, Patience + lookLast},
		{"not within", func(t testing.TB) { Within(t, time.Second, "tea", func() bool { return false }) }, "not within 1s: tea", time.Second, time.Second + lookLast},
		{"no patience, true", func(t testing.TB) { Within(t, 0, "x", func() bool { return true }) }, "", 0, 0},
		{"success", func(t testing.TB) { Success(t, "x", func() error { return nil }) }, "", 0, 0},
		{"never a success", func(t testing.TB) { Success(t, "a publish", func() error { return errors.New("no stream") }) }, "not within 30s: a publish: no stream", Patience, Patience + lookLast},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				said, took := verdict(t, tt.wait)
				if said != tt.said {
					t.Errorf("said %q, want %q", said, tt.said)
				}
				if took < tt.least || took > tt.most {
					t.Errorf("took %s, want %s to %s", took, tt.least, tt.most)
				}
			})
		})
	}
}
