package roster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/kit/cluster"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

// Run tells the owners until ctx ends; joins that still wait then fail.
func (r *Roster) Run(ctx context.Context) error {
	defer r.close()
	requests, unsubscribe, err := r.subscribe()
	if err != nil {
		return err
	}
	defer unsubscribe()
	for _, s := range r.shards { // the last operation of a delta may be above that
		s.bytesMax = min(deltaBytesMax, int(r.deps.NATS.MaxPayload()/2))
	}
	changed, stop := r.deps.Members.Watch()
	defer stop()
	r.timer = time.NewTimer(time.Hour)
	defer r.timer.Stop()
	pace := time.NewTimer(countPace)
	defer pace.Stop()
	counted := r.counted // nil while counts may wait
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.wake:
			r.applyNext(false)
		case <-counted:
			r.applyNext(true)
			counted = nil
			pace.Reset(countPace)
		case <-pace.C:
			counted = r.counted
		case m := <-requests:
			r.snapshotAsked(m)
		case <-changed:
			r.ownersChanged()
		case <-r.timer.C:
		}
		r.turn(time.Now())
	}
}

// subscribe listens to the owners of shards.
func (r *Roster) subscribe() (requests chan *nats.Msg, unsubscribe func(), err error) {
	nc := r.deps.NATS
	requests = make(chan *nats.Msg, 4*subject.PresenceShards)
	snapshots, err := nc.ChanSubscribe(subject.GatewaySnapshot(r.cfg.Node), requests)
	if err != nil {
		return nil, nil, fmt.Errorf("subscribe to snapshot requests: %w", err)
	}
	// Not through Run: the answer says that the process lives, not that it is idle.
	pings, err := nc.Subscribe(subject.GatewayPing(r.cfg.Node), func(m *nats.Msg) {
		if err := m.Respond([]byte(r.cfg.Incarnation)); err != nil {
			r.deps.Log.Debug("ping not answered", "err", err)
		}
	})
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("subscribe to pings: %w", err), snapshots.Unsubscribe())
	}
	return requests, func() {
		// These fail only on a closed connection, which has ended the subscriptions.
		pings.Unsubscribe()
		snapshots.Unsubscribe()
	}, nil
}

// applyNext brings what has happened into the state.
func (r *Roster) applyNext(countsDue bool) {
	queue, counts := r.next(countsDue)
	for i := range counts {
		c := &counts[i]
		r.shards[c.key.Shard(subject.PresenceShards)].subscribed(c.key, int(c.by))
	}
	for i := range queue {
		r.apply(&queue[i])
	}
	clear(counts)
	clear(queue)
}

// apply brings one event into the state.
func (r *Roster) apply(ev *event) {
	switch ev.kind {
	case evReply:
		r.replied(ev)
		return
	case evFlush:
		r.mu.Lock()
		r.idle = append(r.idle, ev.idle)
		r.mu.Unlock()
		return
	}
	s := r.shards[ev.key.Shard(subject.PresenceShards)]
	switch ev.kind {
	case evJoin:
		s.join(ev.key, ev.member, waiter{ev.answer, ev.due})
	case evLeave:
		s.leave(ev.key, ev.member.ID)
	case evOnline:
		s.signedIn(ev.key, 1)
	case evOffline:
		s.signedIn(ev.key, -1)
	}
}

// snapshotAsked: an owner has nothing, or doubts what it has.
func (r *Roster) snapshotAsked(m *nats.Msg) {
	var req presence.SnapshotRequest
	if m == nil || json.Unmarshal(m.Data, &req) != nil || req.Shard < 0 || req.Shard >= len(r.shards) {
		r.metrics.malformed.Inc()
		return
	}
	// Also when one is on its way: that may have gone to the owner before.
	r.shards[req.Shard].giveUp()
}

// ownersChanged makes the shards whose owner is another one now, or another
// run of the same one, tell it everything.
func (r *Roster) ownersChanged() {
	nodes := cluster.Reachable(r.deps.Members.Members(), presenceRole)
	for _, s := range r.shards {
		owner, ok := cluster.Owner(nodes, fmt.Sprintf("%s/%d", presenceRole, s.number))
		if ok == s.owned && owner.Node == s.owner.Node && owner.Incarnation == s.owner.Incarnation {
			continue
		}
		s.owner, s.owned = owner, ok
		if !ok {
			continue // nobody to tell
		}
		s.giveUp()
	}
}

// turn sends what is to be sent, answers what is to be answered, and sets the
// timer for what comes by time.
func (r *Roster) turn(now time.Time) {
	next := now.Add(time.Minute)
	busy := false
	for _, s := range r.shards {
		if len(s.waiting) > 0 {
			if due := s.expire(now); !due.IsZero() && due.Before(next) {
				next = due
			}
		}
		r.send(s, now)
		if s.busy() {
			busy = true
			if !s.asking && s.retryAt.After(now) && s.retryAt.Before(next) {
				next = s.retryAt
			}
		}
		r.give(s)
	}
	if !busy {
		r.flushed()
	}
	r.timer.Reset(max(next.Sub(now), time.Millisecond))
}

func (r *Roster) give(s *shardDriver) {
	for _, o := range s.takeOutcomes() {
		switch {
		case o.err != nil:
			r.metrics.joinFailed.Inc()
		case o.result.Full:
			r.metrics.joinFull.Inc()
		default:
			r.metrics.joinDone.Inc()
		}
		o.answer(o.result, o.err)
	}
}

// send asks the owner of the shard, if there is anything to tell and no
// answer is awaited.
func (r *Roster) send(s *shardDriver, now time.Time) {
	if s.asking || s.retryAt.After(now) {
		return
	}
	f := s.flight
	if f == nil {
		if f = s.next(r.cfg.Node, r.cfg.Incarnation); f == nil {
			return
		}
		r.metrics.deltas.Inc()
		if f.snapshot {
			r.metrics.snapshots.Inc()
		}
	}
	s.asking = true
	number := s.number
	r.deps.Ask.Ask(subject.PresenceDelta(number), f.data, r.cfg.RequestTimeout, func(reply []byte, err error) {
		r.put(event{kind: evReply, shard: number, flight: f, data: reply, err: err})
	})
}

// After deltaTries failures in a row a delta is given up for a snapshot. A
// snapshot is repeated as it is, until an owner has taken it.
const (
	deltaTries   = 3
	backoffFirst = 30 * time.Millisecond
	backoffMax   = time.Second
)

// replied takes the answer to the delta in flight, or the lack of one.
func (r *Roster) replied(ev *event) {
	s := r.shards[ev.shard]
	if s.flight != ev.flight {
		return // given up meanwhile
	}
	s.asking = false
	err := ev.err
	if err == nil {
		var reply presence.Reply
		if reply, err = presence.ParseReply(ev.data); err == nil && r.take(s, &reply) {
			return
		}
		if err != nil {
			r.metrics.malformed.Inc()
		}
	}
	r.metrics.deltaFailed.Inc()
	if s.failures == deltaTries {
		r.deps.Log.Warn("presence owner does not answer, trying on", "shard", s.number, "owner", s.owner.Node, "err", err)
	}
	s.failures++
	s.retryAt = time.Now().Add(backoff(s.failures))
	if !s.flight.snapshot && s.failures >= deltaTries {
		s.startOver() // the pause stays
	}
}

// take brings the owner's answer into the state. It returns false when the
// answer is none.
func (r *Roster) take(s *shardDriver, reply *presence.Reply) bool {
	snapshot := s.flight.snapshot
	if !s.landed(reply) {
		return false
	}
	switch {
	case reply.Status == presence.OK:
		s.failures, s.retryAt = 0, time.Time{}
	case reply.Status == presence.Resync && !snapshot:
		s.retryAt = time.Time{}
	default: // not the owner, or a snapshot was refused: membership is settling
		s.failures++
		s.retryAt = time.Now().Add(backoff(s.failures))
	}
	return true
}

// backoff doubles, and takes a random half away so that gateways do not come
// in step.
func backoff(failures int) time.Duration {
	wait := backoffMax
	if failures < 6 {
		wait = min(backoffFirst<<failures, backoffMax)
	}
	return wait/2 + rand.N(wait/2)
}

// flushed tells those who wait in Flush, unless something was queued since.
func (r *Roster) flushed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) > 0 {
		return
	}
	for _, idle := range r.idle {
		close(idle)
	}
	r.idle = nil
}
