package ingest

import (
	"container/heap"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/kit/pace"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/publisher"
)

// overRate is nil when an app may publish n messages now, else the refusal.
func overRate(paces *pace.Paces, of *app.App, n int, now time.Time) error {
	rate := of.Limits.PublishesPerSecond
	wait := paces.Take(of.ID, rate, n, now)
	if wait == 0 {
		return nil
	}
	return refuse(publisher.Busy, "app %s may publish %d messages a second in requests to one router (limits.publishes_per_second), try again in %s",
		of.ID, rate, wait.Round(time.Millisecond))
}

// Limits of what a router holds back of the work queue. While either is
// reached it reads no more of the queue, for any app.
const (
	heldMax      = 16 << 10
	heldBytesMax = 32 << 20
)

// holdback keeps messages of apps that are over their rate, each app's in
// their order, until it is their turn. It belongs to one goroutine.
type holdback struct {
	paces *pace.Paces
	turns turns
	bytes int
	added uint64
	apps  map[string]*heldOf // of those that have messages here
}

// heldOf is what is held of one app.
type heldOf struct {
	n    int
	last time.Time // the turn of the last one
}

// heldMessage is one message that waits for its turn.
type heldMessage struct {
	turn time.Time
	n    uint64 // those of one turn go in order
	app  string
	msg  jetstream.Msg
}

func newHoldback(now time.Time) *holdback {
	return &holdback{paces: pace.New(now), apps: map[string]*heldOf{}}
}

// holds takes a message and returns true if it is not its turn yet: the app is
// over its rate, or others of it wait here.
func (h *holdback) holds(of *app.App, msg jetstream.Msg, now time.Time) bool {
	wait := h.paces.Reserve(of.ID, of.Limits.PublishesPerSecond, now)
	before := h.apps[of.ID]
	if wait == 0 && before == nil {
		return false
	}
	if before == nil {
		before = &heldOf{}
		h.apps[of.ID] = before
	}
	turn := now.Add(wait)
	if turn.Before(before.last) { // the rate has been raised
		turn = before.last
	}
	before.n++
	before.last = turn
	h.added++
	h.bytes += len(msg.Data())
	heap.Push(&h.turns, heldMessage{turn: turn, n: h.added, app: of.ID, msg: msg})
	return true
}

// next gives a message whose turn has come; false if there is none.
func (h *holdback) next(now time.Time) (jetstream.Msg, bool) {
	if len(h.turns) == 0 || h.turns[0].turn.After(now) {
		return nil, false
	}
	m := heap.Pop(&h.turns).(heldMessage)
	h.bytes -= len(m.msg.Data())
	of := h.apps[m.app]
	if of.n--; of.n == 0 {
		delete(h.apps, m.app)
	}
	return m.msg, true
}

// wait is how long it is until the next turn, at most as long as given.
func (h *holdback) wait(most time.Duration, now time.Time) time.Duration {
	if len(h.turns) == 0 {
		return most
	}
	return min(most, max(time.Millisecond, h.turns[0].turn.Sub(now)))
}

func (h *holdback) full() bool { return len(h.turns) >= heldMax || h.bytes >= heldBytesMax }

func (h *holdback) len() int { return len(h.turns) }

// keep tells the queue that all are being worked on: else they would come again.
func (h *holdback) keep() {
	for i := range h.turns {
		_ = h.turns[i].msg.InProgress() // lost: it comes again, out of order
	}
}

// turns is a heap, the next turn first.
type turns []heldMessage

// Len implements heap.Interface, as do the others.
func (t turns) Len() int { return len(t) }

func (t turns) Less(i, j int) bool {
	if t[i].turn.Equal(t[j].turn) {
		return t[i].n < t[j].n
	}
	return t[i].turn.Before(t[j].turn)
}

func (t turns) Swap(i, j int) { t[i], t[j] = t[j], t[i] }

func (t *turns) Push(m any) { *t = append(*t, m.(heldMessage)) }

func (t *turns) Pop() any {
	last := len(*t) - 1
	m := (*t)[last]
	(*t)[last] = heldMessage{}
	*t = (*t)[:last]
	return m
}
