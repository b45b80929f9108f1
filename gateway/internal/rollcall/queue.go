package rollcall

import (
	"github.com/carillon-rt/carillon/proto/channel"
)

const (
	// againFirstMs is how long a question that was not answered, or not for
	// good, waits; the time doubles up to againMaxMs.
	againFirstMs = 100
	againMaxMs   = 10_000
)

// Queue orders the channels that owners must be asked about: some at a time,
// the others wait in line. It is pure and belongs to one goroutine.
type Queue struct {
	most     int // under way
	underway int
	calls    map[channel.Key]*call
	line     []channel.Key
	later    []channel.Key
}

// call is a channel in the queue.
type call struct {
	asking   bool
	again    bool // doubted again while asking
	failures int64
	dueMs    int64
}

// NewQueue returns an empty queue that has at most some questions under way.
func NewQueue(most int) *Queue { return &Queue{most: most, calls: make(map[channel.Key]*call)} }

// Len is the number of channels in the queue, those being asked about
// included.
func (q *Queue) Len() int { return len(q.calls) }

// Add puts a channel into the line, unless it is there. One that is being
// asked about is asked about once more: the question may have been too early.
// One that waits after a failure does not any longer.
func (q *Queue) Add(key channel.Key) {
	switch c := q.calls[key]; {
	case c == nil:
		q.calls[key] = &call{}
		q.line = append(q.line, key)
	case c.asking:
		c.again = true
	default:
		c.failures, c.dueMs = 0, 0
	}
}

// Next gives the channel to ask about now, if there is one. Done must follow.
func (q *Queue) Next() (key channel.Key, ok bool) {
	if q.underway >= q.most || len(q.line) == 0 {
		return channel.Key{}, false
	}
	key, q.line = q.line[0], q.line[1:]
	if len(q.line) == 0 {
		q.line = nil
	}
	q.underway++
	q.calls[key].asking = true
	return key, true
}

// Done ends a question; if it was not answered for good it comes again later.
func (q *Queue) Done(key channel.Key, good bool, nowMs int64) {
	c := q.calls[key]
	q.underway--
	c.asking = false
	switch {
	case !good:
		c.dueMs = nowMs + min(int64(againFirstMs)<<min(c.failures, 10), againMaxMs)
		c.failures++
		c.again = false
		q.later = append(q.later, key)
	case c.again:
		*c = call{}
		q.line = append(q.line, key)
	default:
		delete(q.calls, key)
	}
}

// Waits says whether Tick has something to do later.
func (q *Queue) Waits() bool { return len(q.later) > 0 }

// Tick puts what is due back into the line.
func (q *Queue) Tick(nowMs int64) {
	later := q.later[:0]
	for _, key := range q.later {
		if q.calls[key].dueMs > nowMs {
			later = append(later, key)
			continue
		}
		q.line = append(q.line, key)
	}
	clear(q.later[len(later):])
	q.later = later
}
