package presence

import (
	"bytes"
	"encoding/json"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/presence/internal/replica"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

const (
	turnMessages = 256 // taken before their events and answers go out
	tickEvery    = 100 * time.Millisecond
	stopFlush    = 2 * time.Second
)

// worker owns some of the shards: it alone touches their replicas and
// subscriptions.
type worker struct {
	// immutable after New
	svc      *Service
	messages chan *nats.Msg // written by NATS
	commands chan command
	stopped  chan struct{} // closed when run has returned
	routes   map[string]route

	// atomic
	claiming atomic.Int32 // shards that are being taken over, or noView

	// owned by run
	clock    clock
	seats    []*seat
	view     *view
	out      replica.Output
	announce *announcer
	pending  []replica.Reply // sent at the end of the turn
	notes    []noteOf        // sent after them
	gauges   gauges
	buf      []byte
}

// command is what others want of a worker; exactly one field is set.
type command struct {
	view     *view
	evict    *presence.Mark
	recheck  bool
	describe chan<- []shardInfo // buffered
}

// seat is one shard at its worker.
type seat struct {
	shard   int
	replica *replica.Replica
	// subscriptions, nil while not needed
	deltas, notes, queries *nats.Subscription
}

// route says what a subject is for.
type route struct {
	seat *seat
	take func(w *worker, s *seat, msg *nats.Msg, nowMs int64)
}

func (w *worker) addShard(shard int) {
	s := &seat{shard: shard, replica: w.svc.newReplica(shard)}
	w.seats = append(w.seats, s)
	w.routes[subject.PresenceDelta(shard)] = route{s, (*worker).takeDelta}
	w.routes[subject.PresenceNotes(shard)] = route{s, (*worker).takeNote}
	w.routes[subject.PresenceQuery(shard)] = route{s, (*worker).takeQuery}
}

// run works until stop is closed; then it hands its shards over.
func (w *worker) run(stop <-chan struct{}) {
	defer close(w.stopped)
	ticker := time.NewTicker(tickEvery)
	defer ticker.Stop()
	for {
		select {
		case msg := <-w.messages:
			start := time.Now()
			w.takeTurn(msg, w.clock.nowMs())
			w.flush()
			w.svc.metrics.turnSeconds.Observe(time.Since(start).Seconds())
		case cmd := <-w.commands:
			w.obey(cmd, w.clock.nowMs())
			w.flush()
		case <-ticker.C:
			now := w.clock.nowMs()
			w.tick(now)
			w.flush()
			w.beat(now)
		case <-stop:
			w.handOver()
			return
		}
	}
}

// takeTurn takes a message and what else is waiting.
func (w *worker) takeTurn(msg *nats.Msg, nowMs int64) {
	w.take(msg, nowMs)
	for range turnMessages - 1 {
		select {
		case msg := <-w.messages:
			w.take(msg, nowMs)
		default:
			return
		}
	}
}

func (w *worker) take(msg *nats.Msg, nowMs int64) {
	if r, ok := w.routes[msg.Subject]; ok {
		r.take(w, r.seat, msg, nowMs)
	}
}

func (w *worker) takeDelta(s *seat, msg *nats.Msg, nowMs int64) {
	m := w.svc.metrics
	d, err := presence.ParseDelta(msg.Data)
	if err != nil || d.Shard != s.shard {
		m.malformed.Inc()
		w.svc.log.Warn("a delta can't be read", "shard", s.shard, "of_shard", d.Shard, "err", err)
		if s.replica.Role() == replica.Owner { // a snapshot may be better
			w.reply(msg.Reply, &presence.Reply{Status: presence.Resync})
		}
		return
	}
	m.deltas.Inc()
	if s.replica.Role() == replica.None {
		m.notOwner.Inc()
	}
	s.replica.Delta(d, msg.Reply, nowMs, &w.out)
	m.resyncs.Add(float64(w.out.Resyncs))
	w.out.Resyncs = 0
	w.emit(s)
}

func (w *worker) takeNote(s *seat, msg *nats.Msg, nowMs int64) {
	var n presence.Note
	if err := json.Unmarshal(msg.Data, &n); err != nil {
		w.svc.metrics.malformed.Inc()
		w.svc.log.Warn("a note can't be read", "shard", s.shard, "err", err)
		return
	}
	s.replica.Note(&n, nowMs, &w.out)
	w.settle(s)
}

func (w *worker) takeQuery(s *seat, msg *nats.Msg, nowMs int64) {
	var q presence.Query
	var answer presence.Answer
	if err := json.Unmarshal(msg.Data, &q); err != nil {
		w.svc.metrics.malformed.Inc()
		answer.Error = "the query is not the JSON that it should be: " + err.Error()
	} else if a, ok := s.replica.Query(&q, nowMs); ok {
		w.svc.metrics.queries.Inc()
		answer = a
	} else {
		w.svc.metrics.notOwner.Inc()
		answer.Error = "this node does not own the shard any more, ask again"
	}
	w.send(msg.Reply, encodeAnswer(&answer))
}

// encodeAnswer writes JSON without HTML escapes: so it is never more than
// twice as long as what it quotes, which is what the limits of lists count on.
func encodeAnswer(a *presence.Answer) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(a); err != nil { // only strings and numbers in there
		return []byte(`{"error":"the answer can't be encoded"}`)
	}
	return buf.Bytes()
}

func (w *worker) obey(cmd command, nowMs int64) {
	switch {
	case cmd.view != nil:
		w.view = cmd.view
		for _, s := range w.seats {
			w.assign(s, nowMs)
		}
		w.countClaims()
	case cmd.evict != nil:
		if w.view != nil && !w.view.lost(*cmd.evict) {
			return // seen again while it was asked
		}
		for _, s := range w.seats {
			if s.replica.Evict(cmd.evict.Node, cmd.evict.Incarnation, nowMs, &w.out) {
				w.svc.metrics.evictions.Inc()
			}
			w.emit(s)
		}
	case cmd.recheck:
		for _, s := range w.seats {
			s.replica.Recheck(nowMs, &w.out)
			w.emit(s)
		}
	case cmd.describe != nil:
		cmd.describe <- w.describe()
	}
}

// assign listens before the replica asks gateways for what it will hear.
func (w *worker) assign(s *seat, nowMs int64) {
	d := w.view.duties[s.shard]
	if d.Role != replica.None {
		w.listen(s)
	}
	s.replica.Assign(d, w.view.gateways, nowMs, &w.out)
	w.settle(s)
}

// tick does what is due. Without a connection nothing is: what would be
// announced then might be untrue by the time that it is sent.
func (w *worker) tick(nowMs int64) {
	if !w.svc.nc.IsConnected() {
		return
	}
	for _, s := range w.seats {
		s.replica.Tick(nowMs, &w.out)
		w.settle(s)
		if w.view == nil {
			continue
		}
		for _, m := range s.replica.Suspects(w.view.incarnation) {
			w.svc.prober.suspect(m)
		}
	}
	w.measure()
	if w.view != nil {
		w.countClaims()
	}
}

// settle sends what a replica wants and follows a change of its role.
func (w *worker) settle(s *seat) {
	w.emit(s)
	if s.replica.Role() == replica.None {
		w.announce.endChains(s.shard)
		w.unsubscribe(&s.deltas, &s.notes, &s.queries)
		return
	}
	w.listen(s)
	if s.replica.Role() == replica.Owner {
		w.subscribe(&s.queries, subject.PresenceQuery(s.shard))
	} else {
		w.unsubscribe(&s.queries)
		w.announce.endChains(s.shard)
	}
}

func (w *worker) listen(s *seat) {
	w.subscribe(&s.deltas, subject.PresenceDelta(s.shard))
	w.subscribe(&s.notes, subject.PresenceNotes(s.shard))
}

// subscribe makes up for a subscription that is missing. It fails only on a
// closed connection; the next tick tries again.
func (w *worker) subscribe(sub **nats.Subscription, name string) {
	if *sub != nil {
		return
	}
	made, err := w.svc.nc.ChanSubscribe(name, w.messages)
	if err != nil {
		w.svc.log.Error("subscribe", "subject", name, "err", err)
		return
	}
	*sub = made
}

func (w *worker) unsubscribe(subs ...**nats.Subscription) {
	for _, sub := range subs {
		if *sub == nil {
			continue
		}
		if err := (*sub).Unsubscribe(); err != nil {
			w.svc.log.Debug("unsubscribe", "subject", (*sub).Subject, "err", err)
		}
		*sub = nil
	}
}

// handOver releases what is owned, to nodes that hear everything already, and
// returns when they have been told.
func (w *worker) handOver() {
	nowMs := w.clock.nowMs()
	w.takeWaiting(nowMs)
	w.flush()
	for _, s := range w.seats {
		s.replica.Release(s.replica.Heir(), nowMs, &w.out)
		w.settle(s)
	}
	w.flush()
	w.measure()
	if nc := w.svc.nc; nc.IsConnected() {
		if err := nc.FlushTimeout(stopFlush); err != nil {
			w.svc.log.Warn("the next owners may not have been told", "err", err)
		}
	}
}

func (w *worker) takeWaiting(nowMs int64) {
	for {
		select {
		case msg := <-w.messages:
			w.take(msg, nowMs)
		default:
			return
		}
	}
}

// describe is for the debug page.
func (w *worker) describe() []shardInfo {
	var out []shardInfo
	for _, s := range w.seats {
		info := shardInfo{shard: s.shard, role: roleName(s.replica)}
		if st := s.replica.Shard(); st != nil {
			info.channels, info.members, info.online = st.Size()
			info.incomplete = st.Incomplete()
			info.gateways = st.Marks()
		}
		out = append(out, info)
	}
	return out
}

func roleName(r *replica.Replica) string {
	switch {
	case r.Claiming():
		return "claiming"
	case r.Role() == replica.Owner:
		return "owner"
	case r.Role() == replica.Standby:
		return "standby"
	}
	return "none"
}
