package backbone

import (
	"sync"
	"time"
)

// line lets a number of requests be under way at a time; the others wait in
// order. When ten thousand clients come back at once the service is asked as
// fast as it answers, and none is refused because its queue is full.
type line struct {
	// immutable after newLine
	most     int           // under way
	longest  int           // in line
	patience time.Duration // in line
	now      func() time.Time

	mu sync.Mutex
	// guarded by mu
	underway int
	serving  bool
	waiting  []waiting
	next     int // first of waiting
}

// waiting is a request in line.
type waiting struct {
	since  time.Time
	begin  func()
	refuse func()
}

func newLine(most, longest int, patience time.Duration) *line {
	return &line{most: most, longest: longest, patience: patience, now: time.Now}
}

// enter calls begin now or when it is its turn, or refuse when the line, or
// the wait in it, is too long. Whoever began calls leave when it is done.
func (l *line) enter(begin, refuse func()) {
	l.mu.Lock()
	switch {
	case l.underway < l.most:
		l.underway++
		l.mu.Unlock()
		begin()
	case len(l.waiting)-l.next >= l.longest:
		l.mu.Unlock()
		refuse()
	default:
		l.waiting = append(l.waiting, waiting{l.now(), begin, refuse})
		l.mu.Unlock()
	}
}

// leave gives the turn back, and to the next in line. One call at a time
// serves the line: answers that come at once don't nest.
func (l *line) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.underway--
	if l.serving {
		return
	}
	l.serving = true
	for l.underway < l.most && l.next < len(l.waiting) {
		w := l.waiting[l.next]
		l.waiting[l.next] = waiting{}
		l.next++
		late := l.now().Sub(w.since) > l.patience
		if !late {
			l.underway++
		}
		l.mu.Unlock()
		if late {
			w.refuse()
		} else {
			w.begin()
		}
		l.mu.Lock()
	}
	if l.next == len(l.waiting) {
		l.waiting, l.next = nil, 0
	}
	l.serving = false
}

// length is how many are in line.
func (l *line) length() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting) - l.next
}
