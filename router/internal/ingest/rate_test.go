package ingest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/proto/app"
)

// queued is a message of the work queue; other methods than these are not
// called.
type queued struct {
	jetstream.Msg
	data []byte
	kept int
}

func (q *queued) Data() []byte { return q.data }

func (q *queued) InProgress() error {
	q.kept++
	return nil
}

var start = time.Unix(1_700_000_000, 0)

// rated is an app with a limit of messages a second.
func rated(id string, rate int) *app.App {
	a := &app.App{ID: id}
	a.Limits.PublishesPerSecond = rate
	return a
}

// due takes all that may go by now.
func due(h *holdback, now time.Time) (got []string) {
	for {
		m, ok := h.next(now)
		if !ok {
			return got
		}
		got = append(got, string(m.Data()))
	}
}

func TestHoldback(t *testing.T) {
	h := newHoldback(start)
	slow, quick, free := rated("slow", 2), rated("quick", 10), rated("free", 0)
	var now []string
	for i := range 5 {
		for _, of := range []*app.App{slow, quick, free} {
			name := fmt.Sprint(of.ID, i)
			if !h.holds(of, &queued{data: []byte(name)}, start) {
				now = append(now, name)
			}
		}
	}
	if want := []string{"slow0", "quick0", "free0", "slow1", "quick1", "free1", "quick2", "free2", "quick3", "free3", "quick4", "free4"}; !slices.Equal(now, want) {
		t.Errorf("not held back: %v, want %v", now, want)
	}
	if h.len() != 3 || h.wait(time.Minute, start) != 500*time.Millisecond || h.wait(time.Millisecond, start) != time.Millisecond {
		t.Errorf("%d are held, the next for %s", h.len(), h.wait(time.Minute, start))
	}
	for _, step := range []struct {
		at   time.Duration
		want []string
	}{
		{499 * time.Millisecond, nil},
		{500 * time.Millisecond, []string{"slow2"}},
		{900 * time.Millisecond, nil},
		{2 * time.Second, []string{"slow3", "slow4"}},
		{time.Hour, nil},
	} {
		if got := due(h, start.Add(step.at)); !slices.Equal(got, step.want) {
			t.Errorf("after %s: %v, want %v", step.at, got, step.want)
		}
	}
	if h.len() != 0 || h.bytes != 0 || len(h.apps) != 0 || h.wait(time.Minute, start) != time.Minute {
		t.Errorf("is not empty: %+v", h)
	}
}

// An app's messages keep their order, also when its limit is raised, lowered
// or taken away while some are held.
func TestHoldbackKeepsTheOrder(t *testing.T) {
	h := newHoldback(start)
	a := rated("a", 1)
	var sent, got []string
	now := start
	for i, rate := range []int{1, 1, 1, 100, 100, 0, 0, 1, 0} {
		a.Limits.PublishesPerSecond = rate
		name := fmt.Sprint(i)
		sent = append(sent, name)
		if !h.holds(a, &queued{data: []byte(name)}, now) {
			got = append(got, name)
		}
		now = now.Add(10 * time.Millisecond)
	}
	for range 100 {
		got = append(got, due(h, now)...)
		now = now.Add(100 * time.Millisecond)
	}
	if !slices.Equal(got, sent) {
		t.Errorf("came as %v", got)
	}
	if h.holds(a, &queued{}, now) {
		t.Error("is held back when nothing waits and there is no limit")
	}
}

func TestHoldbackIsFull(t *testing.T) {
	for name, size := range map[string]int{"messages": 0, "bytes": heldBytesMax / 100} {
		h := newHoldback(start)
		a := rated("a", 1)
		n := 0
		for ; !h.full(); n++ {
			h.holds(a, &queued{data: make([]byte, size)}, start)
		}
		want := heldMax + 1 // and the first, which is not held
		if size > 0 {
			want = 102
		}
		if n != want {
			t.Errorf("%s: full with %d, want %d", name, n, want)
		}
		if _, ok := h.next(start.Add(time.Hour)); !ok || h.full() {
			t.Errorf("%s: still full", name)
		}
	}
}

// What waits must not come again.
func TestHoldbackKeeps(t *testing.T) {
	h := newHoldback(start)
	first, second := &queued{}, &queued{}
	h.holds(rated("a", 1), first, start)
	h.holds(rated("a", 1), second, start)
	h.keep()
	if first.kept != 0 || second.kept != 1 {
		t.Errorf("kept %d and %d times", first.kept, second.kept)
	}
}
