package backbone

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/gateway/internal/backbone/recent"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/subject"
)

const (
	historyTimeout  = time.Second // of one attempt
	historyAttempts = 3
	// historyUnderway is how many channels are read from the routers at a
	// time; the others wait in line.
	historyUnderway = 64
	historyInLine   = 64 << 10
	historyPatience = 5 * time.Second
	// What was read is kept for those that come a little later.
	olderAge      = 10 * time.Second
	olderBytesMax = 16 << 20
)

// Positions knows how far the partitions have been delivered, and what was
// delivered not long ago: a *Feed.
type Positions interface {
	Lasts
	Recent(partition int) *recent.Window
}

var _ Positions = (*Feed)(nil)

// History answers what subscriptions ask of the past of their channels. A
// crowd that comes back together costs few reads:
//
//	question --> what was delivered not long ago --> answer
//	    \--> the read of its channel that is under way, or a new one --> answer
//
// One goroutine runs it; questions come from the loops, which it never blocks.
type History struct {
	// immutable after NewHistory
	at      Positions
	ask     Asker
	line    *line
	metrics *historyMetrics
	wake    chan struct{} // capacity 1

	mu sync.Mutex
	// guarded by mu
	questions []asked
	landed    []landing
	closed    bool

	// owned by Run
	flights    map[channel.Key]*flight
	older      map[channel.Key]*older
	olderBytes int
}

// asked is a question with who asked it.
type asked struct {
	resume.Question
	answer   func(*resume.Past)
	attempts int
}

// flight is the read of a channel that is under way.
type flight struct {
	partition int
	life      uint64 // of the partition's memory at its departure
	since     message.Position
	limit     int
	waiting   []asked // for its answer
	next      []asked // want more than it was sent for
}

// landing is a flight that has come back.
type landing struct {
	key   channel.Key
	reply []byte
	err   error
}

// NewHistory returns a history that asks the routers through ask; metrics may
// be nil.
func NewHistory(at Positions, ask Asker, metrics prometheus.Registerer) *History {
	return &History{
		at: at, ask: ask, line: newLine(historyUnderway, historyInLine, historyPatience), metrics: newHistoryMetrics(metrics),
		wake: make(chan struct{}, 1), flights: map[channel.Key]*flight{}, older: map[channel.Key]*older{},
	}
}

// Past implements the edge's History.
func (h *History) Past(q resume.Question, answer func(*resume.Past)) {
	h.mu.Lock()
	closed := h.closed
	if !closed {
		h.questions = append(h.questions, asked{Question: q, answer: answer})
	}
	h.mu.Unlock()
	if closed {
		answer(nil)
		return
	}
	h.rouse()
}

func (h *History) rouse() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// Run answers until ctx ends; what is open then is answered with nil.
func (h *History) Run(ctx context.Context) error {
	sweep := time.NewTicker(olderAge)
	defer sweep.Stop()
	for {
		select {
		case <-ctx.Done():
			h.close()
			return nil
		case now := <-sweep.C:
			h.sweep(now)
			continue
		case <-h.wake:
		}
		h.mu.Lock()
		questions, landed := h.questions, h.landed
		h.questions, h.landed = nil, nil
		h.mu.Unlock()
		now := time.Now()
		for i := range landed {
			questions = append(questions, h.land(&landed[i], now)...)
		}
		h.settle(questions, now)
	}
}

func (h *History) close() {
	h.mu.Lock()
	h.closed = true
	questions := h.questions
	h.questions = nil
	h.mu.Unlock()
	for _, f := range h.flights {
		questions = append(append(questions, f.waiting...), f.next...)
	}
	clear(h.flights)
	for i := range questions {
		h.fail(&questions[i])
	}
}

func (h *History) fail(q *asked) {
	h.metrics.failed.Inc()
	q.answer(nil)
}

// settle answers what memory knows and has the rest read: one read for all
// questions about a channel.
func (h *History) settle(questions []asked, now time.Time) {
	var begun []channel.Key
	for i := range questions {
		q := &questions[i]
		if past := h.remember(&q.Question, now); past != nil {
			h.metrics.memory.Inc()
			q.answer(past)
			continue
		}
		if q.attempts >= historyAttempts {
			h.fail(q)
			continue
		}
		f := h.flights[q.Key]
		switch {
		case f == nil:
			f = &flight{partition: q.Key.Partition(h.at.Partitions()), since: q.Since}
			h.flights[q.Key] = f
			begun = append(begun, q.Key)
			h.metrics.read.Inc()
			f.add(q)
		case slices.Contains(begun, q.Key):
			h.metrics.joined.Inc()
			f.add(q)
		case f.brings(&q.Question):
			h.metrics.joined.Inc()
			f.waiting = append(f.waiting, *q)
		default:
			f.next = append(f.next, *q)
		}
	}
	for _, key := range begun {
		h.launch(key, h.flights[key])
	}
}

// add has a flight that is not under way yet bring what q wants.
func (f *flight) add(q *asked) {
	f.since, f.limit = min(f.since, q.Since), max(f.limit, q.Limit())
	f.waiting = append(f.waiting, *q)
}

// brings says whether the flight was sent for at least what q wants.
func (f *flight) brings(q *resume.Question) bool { return f.since <= q.Since && f.limit >= q.Limit() }

// launch sends the flight to the routers that follow the partition.
func (h *History) launch(key channel.Key, f *flight) {
	f.life = h.at.Recent(f.partition).Life()
	var least message.Position
	for i := range f.waiting {
		least = max(least, atLeast(h.at, f.partition, f.waiting[i].Mark.Position))
	}
	body, err := json.Marshal(history.Request{App: key.App, Channel: key.Name, AtLeast: least, Since: f.since, Limit: f.limit})
	if err != nil { // strings and numbers only: it can't be
		h.arrive(landing{key: key, err: err})
		return
	}
	h.line.enter(key.App, func() {
		h.ask.Ask(subject.History(f.partition), body, historyTimeout, func(reply []byte, err error) {
			h.arrive(landing{key, reply, err})
			h.line.leave()
		})
	}, func() { h.arrive(landing{key: key, err: errTooLong}) })
}

var errTooLong = errors.New("too many channels wait to be read")

// arrive may be called by any goroutine.
func (h *History) arrive(l landing) {
	h.mu.Lock()
	h.landed = append(h.landed, l)
	h.mu.Unlock()
	h.rouse()
}

// land takes what a flight brought and returns the questions that are open.
func (h *History) land(l *landing, now time.Time) []asked {
	f := h.flights[l.key]
	delete(h.flights, l.key)
	if f == nil { // closed meanwhile
		return nil
	}
	var reply history.Reply
	if l.err == nil {
		l.err = json.Unmarshal(l.reply, &reply)
	}
	if l.err != nil || reply.Error != "" {
		h.metrics.readsFailed.Inc()
		for i := range f.waiting {
			f.waiting[i].attempts++
		}
		return append(f.waiting, f.next...)
	}
	h.metrics.reads.Inc()
	found := olderOf(&reply, f, now)
	found.applied = max(found.applied, h.at.Empty(f.partition)) // up to there is nothing
	h.keep(l.key, found)
	open := f.next
	for i := range f.waiting {
		q := &f.waiting[i]
		if found.applied < atLeast(h.at, f.partition, q.Mark.Position) { // it joined after the departure
			open = append(open, *q)
			continue
		}
		past := found.past
		q.Keep.Trim(&past, now)
		q.answer(&past)
	}
	return open
}

// historyMetrics are resolved ahead.
type historyMetrics struct {
	memory, joined, read, failed prometheus.Counter
	reads, readsFailed           prometheus.Counter
}

func newHistoryMetrics(reg prometheus.Registerer) *historyMetrics {
	counter := func(name, help string) *prometheus.CounterVec {
		return telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carillon_gateway_" + name, Help: help,
		}, []string{"reason"}))
	}
	questions := counter("history_questions_total",
		"Subscriptions that asked for what they missed: answered from memory, by joining the read of another one, by a read of their own, or not at all.")
	reads := counter("history_reads_total", "Reads of a channel's history from the routers.")
	return &historyMetrics{
		memory: questions.WithLabelValues("memory"), joined: questions.WithLabelValues("joined"),
		read: questions.WithLabelValues("read"), failed: questions.WithLabelValues("failed"),
		reads: reads.WithLabelValues("answered"), readsFailed: reads.WithLabelValues("failed"),
	}
}
