package rate

import (
	"testing"
	"time"

	"github.com/carillon-rt/carillon/proto/app"
)

func TestRates(t *testing.T) {
	a, other := &app.App{ID: "1"}, &app.App{ID: "2"}
	a.Limits.PublishesPerSecond, other.Limits.PublishesPerSecond = 10, 1
	start := time.Unix(1_700_000_000, 0)
	r := New(start)
	for _, step := range []struct {
		name string
		of   *app.App
		at   time.Duration
		n    int
		wait time.Duration
	}{
		{"a second's worth", a, 0, 10, 0},
		{"no more at once", a, 0, 1, 100 * time.Millisecond},
		{"another app is another app", other, 0, 1, 0},
		{"a tenth of a second later", a, 100 * time.Millisecond, 1, 0},
		{"only one", a, 100 * time.Millisecond, 1, 100 * time.Millisecond},
		{"a large request when it is its turn", a, 10 * time.Second, 50, 0},
		{"is paid for", a, 10 * time.Second, 1, 4100 * time.Millisecond},
		{"in the end", a, 14100 * time.Millisecond, 1, 0},
		{"nothing costs nothing", a, 14100 * time.Millisecond, 0, 0},
	} {
		if wait := r.Take(step.of, step.n, start.Add(step.at)); wait != step.wait {
			t.Errorf("%s: wait %s, want %s", step.name, wait, step.wait)
		}
	}
	unlimited := &app.App{ID: "3"}
	for range 1000 {
		if r.Take(unlimited, 100, start) != 0 {
			t.Fatal("0 is no limit")
		}
	}
}

func TestSeconds(t *testing.T) {
	for wait, want := range map[time.Duration]int{
		time.Millisecond: 1, time.Second: 1, time.Second + 1: 2, 4100 * time.Millisecond: 5,
	} {
		if got := Seconds(wait); got != want {
			t.Errorf("%s is %d s, want %d", wait, got, want)
		}
	}
}
