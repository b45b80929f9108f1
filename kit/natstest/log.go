package natstest

import (
	"log/slog"
	"sync"
	"testing"
)

// Logger writes to the test's log, and stops when the test is over: what a straggler logs then would be a panic.
func Logger(t testing.TB) *slog.Logger {
	w := &testWriter{t: t}
	t.Cleanup(w.stop)
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testWriter struct {
	mu sync.Mutex
	// guarded by mu
	t testing.TB // nil when the test is over
}

func (w *testWriter) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t = nil
}

func (w *testWriter) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Logf("%s", line[:max(len(line)-1, 0)])
	}
	return len(line), nil
}
