package backbone

import (
	"sync"
	"time"
)

// line lets a number of requests be under way at a time; the others wait.
// When ten thousand clients come back at once the service is asked as fast as
// it answers, and none is refused because its queue is full. Apps take turns,
// and when the line is full the app with most in it gives way: one that is
// stormed costs the others nothing but that.
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
	waiting  int              // in all queues
	queues   map[string]queue // by app; none is empty
	turns    []string         // the apps with a queue, the next first
}

// queue is the requests of an app, the oldest first.
type queue []waiting

// waiting is a request in line.
type waiting struct {
	since  time.Time
	begin  func()
	refuse func()
}

func newLine(most, longest int, patience time.Duration) *line {
	return &line{most: most, longest: longest, patience: patience, now: time.Now, queues: map[string]queue{}}
}

// enter calls begin now or when it is the app's turn, or refuse when the line,
// or the wait in it, is too long. Whoever began calls leave when it is done.
func (l *line) enter(app string, begin, refuse func()) {
	l.mu.Lock()
	if l.underway < l.most {
		l.underway++
		l.mu.Unlock()
		begin()
		return
	}
	if l.waiting >= l.longest {
		crowd := l.crowd()
		if len(l.queues[crowd]) <= len(l.queues[app])+1 { // the app would be the crowd then
			l.mu.Unlock()
			refuse()
			return
		}
		defer l.dropLast(crowd).refuse() // when the lock is free
	}
	l.add(app, waiting{l.now(), begin, refuse})
	l.mu.Unlock()
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
	for l.underway < l.most && l.waiting > 0 {
		w := l.next()
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
	l.serving = false
}

// length is how many are in line.
func (l *line) length() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.waiting
}

func (l *line) add(app string, w waiting) {
	q, there := l.queues[app]
	if !there {
		l.turns = append(l.turns, app)
	}
	l.queues[app] = append(q, w)
	l.waiting++
}

// next takes the oldest request of the app whose turn it is.
func (l *line) next() waiting {
	app := l.turns[0]
	l.turns = l.turns[1:]
	q := l.queues[app]
	w := q[0]
	q[0] = waiting{}
	l.waiting--
	if len(q) == 1 {
		delete(l.queues, app)
	} else {
		l.queues[app] = q[1:]
		l.turns = append(l.turns, app)
	}
	return w
}

// crowd is the app with most in line, the first of equals.
func (l *line) crowd() (app string) {
	for _, of := range l.turns {
		if len(l.queues[of]) > len(l.queues[app]) {
			app = of
		}
	}
	return app
}

// dropLast takes the newest request of an app that has more than one.
func (l *line) dropLast(app string) waiting {
	q := l.queues[app]
	w := q[len(q)-1]
	q[len(q)-1] = waiting{}
	l.queues[app] = q[:len(q)-1]
	l.waiting--
	return w
}
