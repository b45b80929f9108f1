package pace_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/pace"
)

var start = time.Unix(1_700_000_000, 0)

func TestTake(t *testing.T) {
	p := pace.New(start)
	for _, step := range []struct {
		name string
		of   string
		rate int
		at   time.Duration
		n    int
		wait time.Duration
	}{
		{"a second's worth", "a", 10, 0, 10, 0},
		{"no more at once", "a", 10, 0, 1, 100 * time.Millisecond},
		{"another one is another one", "b", 1, 0, 1, 0},
		{"a tenth of a second later", "a", 10, 100 * time.Millisecond, 1, 0},
		{"only one", "a", 10, 100 * time.Millisecond, 1, 100 * time.Millisecond},
		{"many when it is their turn", "a", 10, 10 * time.Second, 50, 0},
		{"are paid for", "a", 10, 10 * time.Second, 1, 4100 * time.Millisecond},
		{"in the end", "a", 10, 14100 * time.Millisecond, 1, 0},
		{"nothing costs nothing", "a", 10, 14100 * time.Millisecond, 0, 0},
		{"a higher rate counts at once", "a", 1000, 14100 * time.Millisecond, 1, time.Millisecond},
	} {
		if wait := p.Take(step.of, step.rate, step.n, start.Add(step.at)); wait != step.wait {
			t.Errorf("%s: wait %s, want %s", step.name, wait, step.wait)
		}
	}
	for range 1000 {
		if p.Take("c", 0, 100, start) != 0 {
			t.Fatal("0 is no limit")
		}
	}
}

// Turns come one after the other, at the rate, behind a second's worth.
func TestReserve(t *testing.T) {
	p := pace.New(start)
	for i := range 30 {
		want := max(0, time.Duration(i-9)*100*time.Millisecond)
		if wait := p.Reserve("a", 10, start); wait != want {
			t.Errorf("number %d waits %s, want %s", i, wait, want)
		}
	}
	if wait := p.Reserve("a", 10, start.Add(time.Second)); wait != 1100*time.Millisecond {
		t.Errorf("a second later: %s", wait)
	}
	if wait := p.Take("a", 10, 1, start.Add(time.Second)); wait == 0 {
		t.Error("what is reserved is not taken into account")
	}
	if wait := p.Reserve("b", 0, start); wait != 0 {
		t.Errorf("0 is no limit, got %s", wait)
	}
}

func ExamplePaces() {
	p := pace.New(start)
	fmt.Println(p.Take("tenant", 2, 2, start), p.Take("tenant", 2, 1, start))
	// Output: 0s 500ms
}
