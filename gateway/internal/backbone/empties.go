package backbone

import (
	"sync"
	"time"

	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/subject"
)

// emptyUnderway bounds the channels without a last value that are asked about
// at a time. Nobody waits in line for that: clients can be subscribed without.
const emptyUnderway = 1024

// empties are the channels whose applications are being told that they have no
// last value. Whoever asks about a channel meanwhile waits for the same answer.
type empties struct {
	line *line // immutable

	mu sync.Mutex
	// guarded by mu
	waiting map[emptiness][]func()
}

// emptiness is a channel, and how long the application gets.
type emptiness struct {
	key    channel.Key
	within time.Duration
}

// join adds who waits, and says whether that is the first.
func (e *empties) join(what emptiness, answer func()) (first bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waiting[what] = append(e.waiting[what], answer)
	return len(e.waiting[what]) == 1
}

// end takes all who wait.
func (e *empties) end(what emptiness) []func() {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := e.waiting[what]
	delete(e.waiting, what)
	return all
}

// CacheEmpty implements the edge's Backbone.
func (s *Services) CacheEmpty(key channel.Key, within time.Duration, answer func()) {
	what := emptiness{key, within}
	if !s.empties.join(what, answer) {
		return
	}
	req := &authz.CacheEmpty{App: key.App, Channel: key.Name}
	s.decide(desk{s.empties.line, within, 1}, subject.AuthCacheEmpty, key.App, req, func(authz.Decision) {
		for _, answer := range s.empties.end(what) {
			answer()
		}
	})
}
