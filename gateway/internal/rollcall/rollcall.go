package rollcall

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/gateway/internal/hub"
	"github.com/carillon-rt/carillon/kit/natsconn"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

const (
	askTimeout  = 2 * time.Second
	askMost     = 64 // questions under way
	tickEvery   = 100 * time.Millisecond
	beatsQueued = 64
)

// Asker sends requests without blocking: a *natsconn.Requester.
type Asker interface {
	// Ask sends data to subject; done is called exactly once, with the reply
	// or an error, and must not block.
	Ask(subject string, data []byte, timeout time.Duration, done func(reply []byte, err error))
}

// Subscribers are those of this node: an *edge.Edge.
type Subscribers interface {
	// Told lists the channels of a partition whose subscribers were told of
	// presence.
	Told(partition int, matches func(channel.Key) bool) []channel.Key
	// Correct tells the subscribers of a channel how its state differs from what
	// they know. It returns false if the owner should be asked again.
	Correct(key channel.Key, state *hub.State) (sure bool)
}

// Deps is what a RollCall is built on.
type Deps struct {
	Conns *natsconn.Conns
	Ask   Asker
	// Members says whether a channel has members; nil goes by its name.
	Members func(channel.Key) bool
	Log     *slog.Logger
	Metrics prometheus.Registerer // nil counts nowhere
}

// RollCall watches the events of presence and asks for what was missed.
//
//	car.live.<p> -> Event ----+
//	car.pres.sync ------------+-> Tracker -> Queue -> car.pres.<shard>.query
//	reconnects, slow consumer +                              |
//	                             Subscribers.Correct <-------+
//
// Its methods may be called from any goroutine and never block.
type RollCall struct {
	// immutable after New
	deps    Deps
	metrics *metrics
	start   time.Time
	beats   chan *nats.Msg
	wake    chan struct{} // capacity 1

	mu sync.Mutex
	// guarded by mu
	tracker *Tracker
	unsure  []channel.Key
	answers []answer

	// owned by Run
	queue *Queue
}

// answer is the state of a channel, or a part of it.
type answer struct {
	key    channel.Key
	before *hub.State // with the members of the parts before, nil for the first
	data   []byte
	err    error
}

// New returns a RollCall that asks nobody before Run.
func New(partitions int, deps Deps) *RollCall {
	if deps.Members == nil {
		deps.Members = func(key channel.Key) bool { return channel.KindOf(key.Name).Presence }
	}
	r := &RollCall{
		deps: deps, start: time.Now(), beats: make(chan *nats.Msg, beatsQueued), wake: make(chan struct{}, 1),
		tracker: NewTracker(partitions), queue: NewQueue(askMost),
	}
	r.metrics = newMetrics(deps.Metrics)
	return r
}

// Event takes an event of presence that has been delivered.
func (r *RollCall) Event(partition int, pub *message.Publication) {
	if pub.Seq == 0 {
		return
	}
	shard := channel.Key{App: pub.App, Name: pub.Channel}.Shard(subject.PresenceShards)
	r.change(func() { r.tracker.Event(partition, shard, pub.Seq, pub.Prev) })
}

// Unsure has the owner of a presence channel asked once more.
func (r *RollCall) Unsure(key channel.Key) {
	r.change(func() { r.unsure = append(r.unsure, key) })
}

// change wakes Run if it made something doubtful.
func (r *RollCall) change(f func()) {
	r.mu.Lock()
	f()
	doubt := len(r.unsure)+len(r.answers) > 0 || r.tracker.counts != [reasons]uint64{}
	r.mu.Unlock()
	if !doubt {
		return
	}
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// Run tells subs what was missed, until ctx ends.
func (r *RollCall) Run(ctx context.Context, subs Subscribers) error {
	conns := r.deps.Conns
	sub, err := conns.Req.ChanSubscribe(subject.PresenceSync, r.beats)
	if err != nil {
		return fmt.Errorf("subscribe to heartbeats of presence: %w", err)
	}
	defer sub.Unsubscribe() // fails only on a closed connection, which has ended the subscription
	conns.OnReconnect(r.reconnected)
	conns.OnSlowConsumer(r.slow)
	var tick <-chan time.Time // nil while nothing waits
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-r.beats:
			r.takeBeat(m)
		case <-r.wake:
		case <-tick:
			tick = nil
			now := r.nowMs()
			r.change(func() { r.tracker.Tick(now) })
			r.queue.Tick(now)
		}
		r.turn(subs)
		if tick == nil && r.waits() {
			tick = time.After(tickEvery)
		}
	}
}

// nowMs goes evenly, whatever becomes of the machine's clock.
func (r *RollCall) nowMs() int64 { return time.Since(r.start).Milliseconds() }

// waits says whether something is to be done later.
func (r *RollCall) waits() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.tracker.Waits() || r.queue.Waits()
}

func (r *RollCall) reconnected() {
	r.change(func() {
		for p := range r.tracker.chains {
			r.tracker.Doubt(p, Reconnect)
		}
	})
}

func (r *RollCall) slow(subj string) {
	r.change(func() {
		if p := subject.Partition(subj); p >= 0 && p < len(r.tracker.chains) && subj == subject.Live(p) {
			r.tracker.Doubt(p, Slow)
		}
	})
}

func (r *RollCall) takeBeat(m *nats.Msg) {
	if m == nil {
		return
	}
	b, err := presence.ParseBeat(m.Data)
	if err != nil {
		r.metrics.malformed.Inc()
		return
	}
	r.change(func() { r.tracker.Beat(&b, r.nowMs()) })
}

// turn takes what was doubted and answered, and asks on.
func (r *RollCall) turn(subs Subscribers) {
	type doubted struct {
		partition int
		set       shardSet
	}
	var doubts []doubted
	r.mu.Lock()
	counts := r.tracker.Take(func(p int, set shardSet) { doubts = append(doubts, doubted{p, set}) })
	unsure, answers := r.unsure, r.answers
	r.unsure, r.answers = nil, nil
	r.mu.Unlock()

	counts[Roster] += uint64(len(unsure))
	r.metrics.doubt(counts)
	for _, key := range unsure {
		r.queue.Add(key)
	}
	for _, d := range doubts {
		matches := func(key channel.Key) bool { return d.set.has(key.Shard(subject.PresenceShards)) }
		for _, key := range subs.Told(d.partition, matches) {
			r.queue.Add(key)
		}
	}
	for i := range answers {
		r.take(&answers[i], subs)
	}
	for {
		key, ok := r.queue.Next()
		if !ok {
			break
		}
		r.ask(key, nil)
	}
	r.metrics.waiting.Set(float64(r.queue.Len()))
}

// ask asks for a channel; before has the members that came already.
func (r *RollCall) ask(key channel.Key, before *hub.State) {
	q := presence.Query{App: key.App}
	if user, watched := strings.CutPrefix(key.Name, channel.OnlinePrefix); watched {
		q.Online = []string{user}
	} else {
		q.Channel, q.Members = key.Name, r.deps.Members(key)
	}
	if before != nil {
		q.After = before.Members[len(before.Members)-1].ID
	}
	got := func(data []byte, err error) {
		r.change(func() { r.answers = append(r.answers, answer{key, before, data, err}) })
	}
	body, err := json.Marshal(q)
	if err != nil { // strings only: it can't be
		got(nil, err)
		return
	}
	r.deps.Ask.Ask(subject.PresenceQuery(key.Shard(subject.PresenceShards)), body, askTimeout, got)
}

// take takes an answer: the rest is asked for, or the subscribers are told.
func (r *RollCall) take(a *answer, subs Subscribers) {
	state, more, err := a.state()
	switch {
	case err != nil:
		r.metrics.failed.Inc()
		r.deps.Log.Debug("the presence owner of a channel can't be asked now", "app", a.key.App, "channel", a.key.Name, "err", err)
		r.queue.Done(a.key, false, r.nowMs())
	case more:
		r.ask(a.key, state)
	default:
		sure := subs.Correct(a.key, state)
		r.metrics.done.Inc()
		r.queue.Done(a.key, sure, r.nowMs())
	}
}

// state reads an answer and joins it with the parts before. The version is
// that of the first: who came or went since is in events to come.
func (a *answer) state() (state *hub.State, more bool, err error) {
	if a.err != nil {
		return nil, false, a.err
	}
	var reply presence.Answer
	if err := json.Unmarshal(a.data, &reply); err != nil {
		return nil, false, fmt.Errorf("answer of the presence owner: %w", err)
	}
	if reply.Error != "" {
		return nil, false, errors.New(reply.Error)
	}
	if reply.Version == 0 {
		return nil, false, errors.New("the presence owner is of an older release and names no version")
	}
	state = a.before
	if state == nil {
		state = &hub.State{Online: len(reply.Online) > 0}
		state.Version = reply.Version
	}
	state.Incomplete = state.Incomplete || reply.Incomplete
	for i := range reply.Channels {
		info := &reply.Channels[i]
		if info.Name != a.key.Name {
			continue
		}
		state.Subscriptions = uint64(max(info.Subscriptions, 0))
		for _, m := range info.Members {
			state.Members = append(state.Members, presence.Member(m))
		}
	}
	return state, reply.More && len(state.Members) > 0, nil
}
