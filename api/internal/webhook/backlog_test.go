package webhook

import (
	"strconv"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/proto/hook"
)

// epoch is any moment: the backlog has no clock of its own.
var epoch = time.Unix(1_700_000_000, 0)

func at(d time.Duration) time.Time { return epoch.Add(d) }

func newBacklog(change func(*Config), batch bool) *backlog {
	cfg := DefaultConfig()
	if change != nil {
		change(&cfg)
	}
	return &backlog{cfg: &cfg, batch: batch, rand: func() float64 { return 0 }}
}

func named(name string) *item { return &item{event: hook.Event{Name: "e", Channel: name}} }

func names(items []*item) string {
	out := ""
	for _, it := range items {
		out += it.event.Channel
	}
	return out
}

func TestBacklogConcurrency(t *testing.T) {
	b := newBacklog(func(c *Config) { c.Concurrency = 2 }, false)
	for i := range 4 {
		b.push(named(strconv.Itoa(i)), at(0))
	}
	first, second := b.take(at(0)), b.take(at(0))
	if len(first) != 1 || len(second) != 1 || names(first) == names(second) {
		t.Errorf("took %q and %q, want one each", names(first), names(second))
	}
	if third := b.take(at(0)); third != nil {
		t.Errorf("took %q although two requests are under way", names(third))
	}
	b.succeeded(at(1))
	if third := b.take(at(1)); third == nil {
		t.Error("took nothing although one request has ended")
	}
}

func TestBacklogBackoff(t *testing.T) {
	b := newBacklog(func(c *Config) { c.BackoffMin, c.BackoffMax, c.Window = time.Second, 8*time.Second, time.Hour }, false)
	b.push(named("a"), at(0))
	now := at(0)
	for i, want := range []time.Duration{1, 2, 4, 8, 8, 8} {
		items := b.take(now)
		if len(items) != 1 {
			t.Fatalf("attempt %d: nothing to take", i)
		}
		b.failed(items, now, "no", 0)
		if items[0].due.Sub(now) != want*time.Second || items[0].attempts != i+1 {
			t.Errorf("attempt %d: due after %s, want %ds", i, items[0].due.Sub(now), want)
		}
		next, ok := b.next()
		if !ok || next.Before(items[0].due) {
			t.Fatalf("next is %v %v", next.Sub(epoch), ok)
		}
		if b.take(next.Add(-1)) != nil {
			t.Errorf("attempt %d: taken too early", i)
		}
		now = next
	}
	b.rand = func() float64 { return .999 }
	items := b.take(now)
	b.failed(items, now, "no", 0)
	if d := items[0].due.Sub(now); d < 4*time.Second || d > 5*time.Second {
		t.Errorf("with jitter it is due after %s, want about half of 8s", d)
	}
}

func TestBacklogRetryAfter(t *testing.T) {
	b := newBacklog(nil, false)
	b.push(named("a"), at(0))
	b.push(named("b"), at(0))
	items := b.take(at(0))
	b.failed(items, at(0), "busy", 20*time.Second)
	if d := items[0].due.Sub(epoch); d != 20*time.Second {
		t.Errorf("due after %s, want the 20s that the endpoint asked for", d)
	}
	if b.take(at(19*time.Second)) != nil {
		t.Error("another event was sent to an endpoint that asked for 20s of peace")
	}
	if b.take(at(20*time.Second)) == nil {
		t.Error("nothing is sent after the pause")
	}
}

func TestBacklogGivesUp(t *testing.T) {
	b := newBacklog(func(c *Config) { c.Window = 10 * time.Second }, false)
	b.push(named("a"), at(0))
	now, attempts := at(0), 0
	for len(b.dead) == 0 && attempts < 100 {
		if items := b.take(now); items != nil {
			attempts++
			b.failed(items, now, "answered 500", 0)
		}
		if next, ok := b.next(); ok {
			now = next
		}
	}
	if len(b.dead) != 1 || b.dead[0].last != "answered 500" || b.dead[0].attempts < 4 {
		t.Fatalf("dead %+v after %d attempts", b.dead, attempts)
	}
	if now.Sub(epoch) < 10*time.Second || now.Sub(epoch) > 20*time.Second {
		t.Errorf("given up after %s, want a little over the window of 10s", now.Sub(epoch))
	}
}

// An event that found its endpoint dead all along is given up in time, though one probe at a time would never come to it.
func TestBacklogBuriesUntried(t *testing.T) {
	b := newBacklog(func(c *Config) { c.Window = 30 * time.Second }, false)
	for i := range 500 {
		b.push(named(strconv.Itoa(i)), at(0))
	}
	requests := 0
	for now := at(0); now.Before(at(60 * time.Second)); now = now.Add(500 * time.Millisecond) {
		for items := b.take(now); items != nil; items = b.take(now) {
			requests++
			b.failed(items, now, "refused", 0)
		}
	}
	if len(b.dead) != 500 || len(b.waiting) != 0 {
		t.Errorf("%d dead, %d wait, want 500 and none", len(b.dead), len(b.waiting))
	}
	if requests > 40 {
		t.Errorf("a dead endpoint got %d requests in 30s", requests)
	}
	for _, it := range b.dead {
		if it.last != "refused" {
			t.Fatalf("the reason is %q", it.last)
		}
	}
}

// An endpoint that is slow but alive gets everything, however old.
func TestBacklogKeepsForTheLiving(t *testing.T) {
	b := newBacklog(func(c *Config) { c.Window, c.Concurrency = 10*time.Second, 1 }, false)
	for i := range 100 {
		b.push(named(strconv.Itoa(i)), at(0))
	}
	now := at(0)
	for range 100 {
		if items := b.take(now); items == nil {
			t.Fatalf("nothing to take after %s", now.Sub(epoch))
		}
		now = now.Add(time.Second)
		b.succeeded(now)
	}
	if len(b.dead) != 0 || !b.idle() {
		t.Errorf("%d dead, idle %v", len(b.dead), b.idle())
	}
}

func TestBacklogRecovers(t *testing.T) {
	b := newBacklog(nil, false)
	for i := range 10 {
		b.push(named(strconv.Itoa(i)), at(0))
	}
	now := at(0)
	for range failuresToPause {
		b.failed(b.take(now), now, "no", 0)
	}
	if b.take(now) != nil {
		t.Fatal("an ill endpoint gets no pause")
	}
	now, _ = b.next()
	if b.take(now) == nil || b.take(now) != nil {
		t.Fatal("want exactly one probe after the pause")
	}
	b.succeeded(now)
	taken := 0
	for b.take(now) != nil {
		taken++
	}
	if taken != b.cfg.Concurrency {
		t.Errorf("%d requests at a time after recovery, want %d", taken, b.cfg.Concurrency)
	}
}

func TestBacklogOverflow(t *testing.T) {
	b := newBacklog(func(c *Config) { c.EndpointMax = 2 }, false)
	for i, want := range []bool{true, true, false} {
		if b.push(named(strconv.Itoa(i)), at(0)) != want {
			t.Errorf("event %d: kept %v, want %v", i, !want, want)
		}
	}
	if len(b.dead) != 1 || b.dead[0].last == "" {
		t.Errorf("dead %+v, want the third with a reason", b.dead)
	}
}

// An endpoint that falls ill may have less waiting; the earliest stay.
func TestBacklogShrinks(t *testing.T) {
	b := newBacklog(func(c *Config) { c.Concurrency, c.EndpointMax = failuresToPause, 10 }, false)
	b.room = 4
	for i := range 10 {
		b.push(named(strconv.Itoa(i)), at(time.Duration(i)))
	}
	var under [][]*item
	for range failuresToPause {
		under = append(under, b.take(at(time.Second)))
	}
	for _, items := range under {
		if b.shrink() != 0 {
			t.Error("it gave up events before it was ill")
		}
		b.failed(items, at(time.Second), "no", 0)
	}
	if given := b.shrink(); given != 6 || len(b.dead) != 6 || b.dead[0].last == "" {
		t.Errorf("%d given up, %d dead; want 6", given, len(b.dead))
	}
	if b.push(named("x"), at(2*time.Second)) {
		t.Error("one more was kept")
	}
	if first := b.take(at(time.Minute)); len(first) != 1 || names(first) != "3" {
		t.Errorf("took %q, want 3, the oldest that was not tried", names(first))
	}
}

func TestBacklogBatches(t *testing.T) {
	b := newBacklog(func(c *Config) { c.BatchMax, c.BatchWait, c.Window = 3, 50*time.Millisecond, time.Minute }, true)
	b.push(named("a"), at(0))
	b.push(named("b"), at(10*time.Millisecond))
	if b.take(at(49*time.Millisecond)) != nil {
		t.Error("a batch was sent before its time")
	}
	if next, _ := b.next(); next != at(50*time.Millisecond) {
		t.Errorf("next is %s", next.Sub(epoch))
	}
	batch := b.take(at(50 * time.Millisecond))
	if names(batch) != "ab" {
		t.Errorf("batch %q, want ab", names(batch))
	}
	b.failed(batch, at(50*time.Millisecond), "no", 0)
	if again := b.take(at(1050 * time.Millisecond)); names(again) != "ab" {
		t.Errorf("second attempt %q, want ab together", names(again))
	}
	for _, c := range "cdef" {
		b.push(named(string(c)), at(2*time.Second))
	}
	if full := b.take(at(2 * time.Second)); names(full) != "cde" {
		t.Errorf("a full batch is %q, want cde without waiting", names(full))
	}
}
