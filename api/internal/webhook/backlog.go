package webhook

import (
	"container/heap"
	"time"

	"github.com/carillon-rt/carillon/proto/hook"
)

const (
	// failuresToPause: from this many failures in a row on, the endpoint itself is taken for ill, not the events.
	failuresToPause = 3
	// pauseMax bounds the pause between two requests to an ill endpoint.
	pauseMax = 15 * time.Second
	// retryAfterMax bounds the pause that an endpoint may ask for.
	retryAfterMax = time.Minute
	// batchBytesMax bounds the events of one request, unless it has but one:
	// NATS carries 1 MiB, and so do many proxies in front of receivers.
	batchBytesMax = 256 << 10
)

// item is one event on its way to one endpoint.
type item struct {
	held     *held
	event    hook.Event
	size     int // of the event in the work queue
	arrived  time.Time
	due      time.Time
	order    uint64 // of arrival, for events that are due at the same moment
	attempts int
	last     string // why the last attempt failed
}

// backlog holds what waits for one endpoint and decides when it is tried: it knows neither clock nor network. It is guarded by its
// endpoint.
type backlog struct {
	cfg   *Config
	batch bool
	rand  func() float64 // 0 <= r < 1
	// room is how many events may wait while the endpoint is ill, 0 for as many as ever: see Service.room.
	room int

	pushed   uint64
	waiting  byDue
	dead     []*item // to be buried
	running  int     // requests under way
	failures int     // in a row
	paused   time.Time
	lastOK   time.Time
	lastErr  string
}

// push takes an event. Over the limit it is dead at once, so that one endpoint's backlog can't fill the queue of all.
func (b *backlog) push(it *item, now time.Time) (kept bool) {
	b.pushed++
	it.arrived, it.due, it.order = now, now, b.pushed
	if b.batch {
		it.due = now.Add(b.cfg.BatchWait)
	}
	if len(b.waiting) >= b.limit() {
		b.tooMany(it)
		return false
	}
	heap.Push(&b.waiting, it)
	return true
}

// ill says that the endpoint itself is taken for ill.
func (b *backlog) ill() bool { return b.failures >= failuresToPause }

func (b *backlog) limit() int {
	if b.ill() && b.room > 0 {
		return min(b.room, b.cfg.EndpointMax)
	}
	return b.cfg.EndpointMax
}

// shrink gives up what is over the limit, now that the endpoint is ill or more of them are.
func (b *backlog) shrink() (given int) {
	for ; len(b.waiting) > b.limit(); given++ {
		b.tooMany(b.waiting.Pop().(*item)) //nolint:forcetypeassert // a heap without its last entry, one of the latest, is a heap
	}
	return given
}

func (b *backlog) tooMany(it *item) {
	it.last = "too many events wait for this endpoint"
	if b.lastErr != "" {
		it.last += "; it last said: " + b.lastErr
	}
	b.dead = append(b.dead, it)
}

// take returns the events of the next request, nil if none may be made now.
func (b *backlog) take(now time.Time) []*item {
	b.expire(now)
	slots := b.cfg.Concurrency
	if b.ill() {
		slots = 1 // one request finds out whether the endpoint is back
	}
	if b.running >= slots || now.Before(b.paused) || len(b.waiting) == 0 {
		return nil
	}
	most, ready := 1, now
	if b.batch {
		most, ready = b.cfg.BatchMax, now.Add(b.cfg.BatchWait)
	}
	if b.waiting[0].due.After(now) && (!b.batch || len(b.waiting) < most || b.waiting[0].attempts > 0) {
		return nil
	}
	var items []*item
	for bytes := 0; len(b.waiting) > 0 && len(items) < most && !b.waiting[0].due.After(ready); {
		if bytes += b.waiting[0].size; bytes > batchBytesMax && len(items) > 0 {
			break
		}
		items = append(items, heap.Pop(&b.waiting).(*item)) //nolint:forcetypeassert // the heap holds nothing else
	}
	if len(items) > 0 {
		b.running++
	}
	return items
}

// expire buries the events whose time is over while the endpoint was failing all along, tried or not.
func (b *backlog) expire(now time.Time) {
	for len(b.waiting) > 0 {
		it := b.waiting[0]
		if b.failures == 0 || it.due.After(now) || now.Before(it.arrived.Add(b.cfg.Window)) || b.lastOK.After(it.arrived) {
			return
		}
		if it.last == "" {
			it.last = b.lastErr
		}
		heap.Pop(&b.waiting)
		b.dead = append(b.dead, it)
	}
}

// succeeded ends a request that the endpoint has taken.
func (b *backlog) succeeded(now time.Time) {
	b.running--
	b.failures, b.paused, b.lastOK, b.lastErr = 0, time.Time{}, now, ""
}

// failed ends a request that the endpoint has not taken. retryAfter is what it asked for, or 0.
func (b *backlog) failed(items []*item, now time.Time, why string, retryAfter time.Duration) {
	b.running--
	b.failures++
	b.lastErr = why
	if b.ill() {
		b.paused = now.Add(b.wait(b.failures-failuresToPause, pauseMax))
	}
	if until := now.Add(min(retryAfter, retryAfterMax)); until.After(b.paused) {
		b.paused = until
	}
	wait := max(b.wait(items[0].attempts, b.cfg.BackoffMax), retryAfter)
	for _, it := range items {
		it.attempts++
		it.last = why
		deadline := it.arrived.Add(b.cfg.Window)
		if !now.Before(deadline) {
			b.dead = append(b.dead, it)
			continue
		}
		it.due = now.Add(wait)
		if it.due.After(deadline) {
			it.due = deadline // then it is decided
		}
		heap.Push(&b.waiting, it)
	}
}

// wait doubles from BackoffMin to limit and takes up to half of it away, so that events don't come back in step.
func (b *backlog) wait(times int, limit time.Duration) time.Duration {
	d := limit
	if times < 20 {
		d = min(b.cfg.BackoffMin<<times, limit)
	}
	return d - time.Duration(b.rand()*float64(d)/2)
}

// unburied takes back an event that the stream of dead events did not accept.
func (b *backlog) unburied(it *item) { b.dead = append(b.dead, it) }

// next is when take may have something, false if nothing waits for a moment to come.
func (b *backlog) next() (time.Time, bool) {
	if len(b.waiting) == 0 {
		return time.Time{}, false
	}
	at := b.waiting[0].due
	if b.paused.After(at) {
		at = b.paused
	}
	return at, true
}

// idle says that nothing waits and nothing is under way.
func (b *backlog) idle() bool { return len(b.waiting) == 0 && len(b.dead) == 0 && b.running == 0 }

// byDue is a heap, the earliest first; of the same moment the one that came first.
type byDue []*item

func (h byDue) Len() int { return len(h) }
func (h byDue) Less(i, j int) bool {
	if h[i].due.Equal(h[j].due) {
		return h[i].order < h[j].order
	}
	return h[i].due.Before(h[j].due)
}
func (h byDue) Swap(i, j int) { h[i], h[j] = h[j], h[i] }
func (h *byDue) Push(x any)   { *h = append(*h, x.(*item)) } //nolint:forcetypeassert // the heap holds nothing else
func (h *byDue) Pop() any {
	old := *h
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	return last
}
