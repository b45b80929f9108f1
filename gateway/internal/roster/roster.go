package roster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

// Config is what a Roster needs to know. The zero value of a duration means
// its default.
type Config struct {
	Node        string
	Incarnation string
	// JoinTimeout is how long a Join waits for its roster (6 s): longer than
	// presence nodes that have all started anew wait for each other (3.5 s).
	JoinTimeout time.Duration
	// RequestTimeout is how long the owner may take to answer a delta (1 s).
	RequestTimeout time.Duration
}

func (c Config) withDefaults() Config {
	if c.JoinTimeout <= 0 {
		c.JoinTimeout = 6 * time.Second
	}
	if c.RequestTimeout <= 0 {
		c.RequestTimeout = time.Second
	}
	return c
}

// presenceRole is the role of the nodes that own presence shards.
const presenceRole = "presence"

// Asker sends requests without blocking: a *natsconn.Requester.
type Asker interface {
	// Ask sends data to subject; done is called exactly once, with the reply
	// or an error, and must not block.
	Ask(subject string, data []byte, timeout time.Duration, done func(reply []byte, err error))
}

// Deps is what a Roster is built on.
type Deps struct {
	Ask     Asker
	NATS    *nats.Conn // for requests by owners
	Members cluster.Membership
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil counts nowhere
}

// Roster is the gateway's roster. Its methods may be called from any
// goroutine, never block, and keep the strings they are given.
//
//	loops --> queue, counts --> Run: shards --> one delta in flight each --> owners
//	              ^                                                           |
//	              +------------------------ replies --------------------------+
//
// Changes of counts are many, and nobody waits for one: after those of one
// moment the next are summed up only countPace later, or with what is urgent.
type Roster struct {
	// immutable after New
	cfg     Config
	deps    Deps
	metrics *metrics
	wake    chan struct{} // there is something in queue
	counted chan struct{} // there is something in counts

	mu sync.Mutex
	// guarded by mu
	queue  []event
	counts []count
	urgent bool // there is more in queue than replies
	closed bool
	idle   []chan struct{} // of Flush: closed when there is nothing left to tell

	// owned by Run
	shards [subject.PresenceShards]*shardDriver
	timer  *time.Timer
	batch  []event // emptied buffers of queue and counts
	sums   []count
}

// shardDriver is a shard and the progress of its delta in flight.
type shardDriver struct {
	shard
	asking   bool
	failures int // in a row
	retryAt  time.Time
	owner    cluster.Member
	owned    bool
}

// giveUp forgets the delta in flight, whose answer would come too late or
// from nobody, and sends a snapshot at once.
func (s *shardDriver) giveUp() {
	s.startOver()
	s.asking, s.failures, s.retryAt = false, 0, time.Time{}
}

type eventKind uint8

const (
	evJoin eventKind = iota
	evLeave
	evOnline
	evOffline
	evReply
	evFlush
)

// event is what has happened; which fields count depends on its kind.
type event struct {
	kind   eventKind
	key    channel.Key
	member presence.Member // evJoin; ID for evLeave
	answer answerFunc
	shard  int
	flight *flight
	data   []byte
	err    error
	due    time.Time
	idle   chan struct{}
}

// count is a change of a channel's number of subscriptions.
type count struct {
	key channel.Key
	by  int8 // 1 or -1
}

// countPace is the least time between two looks at changed counts: while
// clients connect, one goroutine and one round of deltas in 5 ms instead of in
// every turn of a loop.
const countPace = 5 * time.Millisecond

// New returns a roster that tells nobody before Run.
func New(cfg Config, deps Deps) (*Roster, error) {
	if cfg.Node == "" || cfg.Incarnation == "" {
		return nil, errors.New("roster: needs the names of the node and of its incarnation")
	}
	r := &Roster{cfg: cfg.withDefaults(), deps: deps, wake: make(chan struct{}, 1), counted: make(chan struct{}, 1)}
	r.metrics = newMetrics(deps.Metrics, r.depth)
	for i := range r.shards {
		r.shards[i] = &shardDriver{shard: *newShard(i)}
	}
	return r, nil
}

// Subscribed counts one more subscription of this node on a channel.
func (r *Roster) Subscribed(key channel.Key) { r.count(key, 1) }

// Unsubscribed counts one less.
func (r *Roster) Unsubscribed(key channel.Key) { r.count(key, -1) }

// Join adds one connection of a member to a channel. answer is called exactly
// once, on any goroutine: with the roster, or with Full, or with an error
// when no owner answered in time. After an error or Full the connection does
// not count as joined.
func (r *Roster) Join(key channel.Key, m presence.Member, answer func(presence.Result, error)) {
	if !r.put(event{kind: evJoin, key: key, member: m, answer: answer, due: time.Now().Add(r.cfg.JoinTimeout)}) {
		answer(presence.Result{}, ErrUnavailable)
	}
}

// Leave takes back one connection whose Join was answered with a roster. Who
// leaves before waits for the answer: only that tells whether it counts.
func (r *Roster) Leave(key channel.Key, user string) {
	r.put(event{kind: evLeave, key: key, member: presence.Member{ID: user}})
}

// Online counts one more signed-in connection of a user.
func (r *Roster) Online(app, user string) { r.put(event{kind: evOnline, key: onlineKey(app, user)}) }

// Offline counts one less.
func (r *Roster) Offline(app, user string) { r.put(event{kind: evOffline, key: onlineKey(app, user)}) }

func onlineKey(app, user string) channel.Key {
	return channel.Key{App: app, Name: channel.OnlinePrefix + user}
}

// put queues an event. The queue has no limit of its own: it holds at most
// what the connections of this node can cause between two turns of Run, and
// dropping an event would make the roster untrue. Its depth is a metric.
func (r *Roster) put(ev event) bool {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return false
	}
	r.queue = append(r.queue, ev)
	r.urgent = r.urgent || ev.kind != evReply
	first := len(r.queue) == 1
	r.mu.Unlock()
	if first {
		signal(r.wake)
	}
	return true
}

// count queues a change of a count, as put does.
func (r *Roster) count(key channel.Key, by int8) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return
	}
	r.counts = append(r.counts, count{key, by})
	first := len(r.counts) == 1
	r.mu.Unlock()
	if first {
		signal(r.counted)
	}
}

// signal leaves a token in a channel that has room for one.
func signal(c chan<- struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (r *Roster) depth() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return float64(len(r.queue) + len(r.counts))
}

// Flush returns when the owners have been told everything that was done
// before the call, or when ctx ends.
func (r *Roster) Flush(ctx context.Context) error {
	idle := make(chan struct{})
	if !r.put(event{kind: evFlush, idle: idle}) {
		return nil
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("flush roster: %w", ctx.Err())
	}
}

// next takes the queued events, and the counts if they are due or come with
// something that is urgent. Their buffers are used again by the round after.
func (r *Roster) next(countsDue bool) (queue []event, counts []count) {
	r.mu.Lock()
	defer r.mu.Unlock()
	queue, r.queue = r.queue, emptied(r.batch)
	r.batch = queue
	if countsDue || r.urgent {
		counts, r.counts = r.counts, emptied(r.sums)
		r.sums = counts
	}
	r.urgent = false
	return queue, counts
}

// emptied is a buffer for the next round; that of a burst is not kept.
func emptied[T any](buffer []T) []T {
	if cap(buffer) > 1<<14 {
		return nil
	}
	return buffer[:0]
}

// close fails all who wait and refuses what comes later.
func (r *Roster) close() {
	r.mu.Lock()
	r.closed = true
	queue, idle := r.queue, r.idle
	r.queue, r.counts, r.idle = nil, nil, nil
	r.mu.Unlock()
	for _, ch := range idle {
		close(ch)
	}
	for i := range queue {
		if queue[i].answer != nil {
			queue[i].answer(presence.Result{}, ErrUnavailable)
		}
		if queue[i].idle != nil {
			close(queue[i].idle)
		}
	}
	for _, s := range r.shards {
		for m := range s.waiting {
			s.refuse(m, &m.flying, presence.Result{}, ErrUnavailable)
			s.refuse(m, &m.waiters, presence.Result{}, ErrUnavailable)
		}
		r.give(s)
	}
}
