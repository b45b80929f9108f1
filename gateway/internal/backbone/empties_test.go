package backbone

import (
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/natsconn"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/subject"
)

// later is an Asker whose questions wait.
type later struct {
	subjects, bodies []string
	timeouts         []time.Duration
	done             []func([]byte, error)
}

func (l *later) Ask(subj string, data []byte, timeout time.Duration, done func([]byte, error)) {
	l.subjects, l.bodies = append(l.subjects, subj), append(l.bodies, string(data))
	l.timeouts, l.done = append(l.timeouts, timeout), append(l.done, done)
}

// Whoever finds a channel without a last value while the application is being
// told waits for the same answer, whatever it is.
func TestCrowdOfAnEmptyChannel(t *testing.T) {
	a, b := channel.Key{App: "1", Name: "cache-a"}, channel.Key{App: "1", Name: "cache-b"}
	ask := &later{}
	s := NewServices(startedAt(5), ask, sentTo{}, nil)
	told := map[channel.Key]int{}
	for range 100 {
		s.CacheEmpty(a, time.Second, func() { told[a]++ })
		s.CacheEmpty(b, time.Second, func() { told[b]++ })
	}
	s.CacheEmpty(a, 2*time.Second, func() { told[a]++ }) // who has more time waits longer
	if len(ask.subjects) != 3 || ask.subjects[0] != subject.AuthCacheEmpty || ask.bodies[0] != `{"app":"1","channel":"cache-a"}` ||
		ask.timeouts[0] != time.Second || ask.timeouts[2] != 2*time.Second {
		t.Fatalf("asked %v %v within %v", ask.subjects, ask.bodies, ask.timeouts)
	}
	ask.done[0]([]byte(`{"allow":true}`), nil)
	ask.done[1](nil, natsconn.ErrTimeout)
	if told[a] != 100 || told[b] != 100 {
		t.Fatalf("answered %v", told)
	}
	ask.done[2](nil, natsconn.ErrNoResponders)
	s.CacheEmpty(a, time.Second, func() { told[a]++ })
	if told[a] != 101 || len(ask.subjects) != 4 || len(s.empties.waiting) != 1 {
		t.Fatalf("answered %v after %d questions, %d wait", told, len(ask.subjects), len(s.empties.waiting))
	}
}

// Beyond the limit nobody is asked: the subscription goes on without.
func TestManyEmptyChannels(t *testing.T) {
	ask := &later{}
	s := NewServices(startedAt(5), ask, sentTo{}, nil)
	answered := 0
	const n = emptyUnderway + 10
	for i := range n {
		s.CacheEmpty(channel.Key{App: "1", Name: "cache-" + string(rune(i+0x100))}, time.Second, func() { answered++ })
	}
	if len(ask.subjects) != emptyUnderway || answered != 10 {
		t.Fatalf("%d asked, %d answered at once", len(ask.subjects), answered)
	}
	for i := 0; i < len(ask.done); i++ {
		ask.done[i](nil, natsconn.ErrTimeout)
	}
	if answered != n || len(s.empties.waiting) != 0 {
		t.Fatalf("%d of %d answered, %d wait", answered, n, len(s.empties.waiting))
	}
}
