// Package await waits in tests until something has come true, instead of sleeping for as long as it should take. It owns
// the pace of looking and the patience; it knows nothing of what is waited for.
package await

import (
	"testing"
	"time"
)

// Patience is how long True and Success wait: far longer than anything takes on a busy machine with -race, because only a
// test that fails waits that long.
const Patience = 30 * time.Second

// The pause between two looks grows from lookFirst to lookLast: quick for what is nearly there, cheap for what is dear to ask.
const (
	lookFirst = time.Millisecond
	lookLast  = 20 * time.Millisecond
)

// True waits until check is true; it fails the test and ends it if that takes longer than Patience. It calls check on the
// test's own goroutine, so check may use t.
func True(t testing.TB, what string, check func() bool) {
	t.Helper()
	Within(t, Patience, what, check)
}

// Within is True with a patience of its own, for what has to wait for a timeout of the code under test.
func Within(t testing.TB, patience time.Duration, what string, check func() bool) {
	t.Helper()
	if !poll(patience, check) {
		t.Fatalf("not within %s: %s", patience, what)
	}
}

// Success waits until try returns nil; if that takes longer than Patience it fails the test with the last error and ends it.
func Success(t testing.TB, what string, try func() error) {
	t.Helper()
	var err error
	if !poll(Patience, func() bool { err = try(); return err == nil }) {
		t.Fatalf("not within %s: %s: %v", Patience, what, err)
	}
}

// poll looks at least once.
func poll(patience time.Duration, check func() bool) bool {
	end := time.Now().Add(patience)
	for pause := lookFirst; !check(); pause = min(2*pause, lookLast) {
		if time.Now().After(end) {
			return false
		}
		time.Sleep(pause)
	}
	return true
}
