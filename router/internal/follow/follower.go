// Package follow reads partitions of the journal into rings and serves
// history and cached values from them. It knows nothing of writing.
package follow

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/subject"

	"github.com/carillon-rt/carillon/router/internal/drain"
	"github.com/carillon-rt/carillon/router/internal/rings"
)

const (
	heartbeatEvery = time.Second
	waitTick       = 50 * time.Millisecond
	sweepChannels  = 2000 // looked at each second for what has expired
	retryFirst     = 100 * time.Millisecond
	retryMax       = 3 * time.Second
	readAhead      = 256 // batches
	readHeartbeat  = time.Second
	readExpiry     = 10 * time.Second
)

// Journal is what a follower has to know of it.
type Journal interface {
	Epoch() string
	Observe(seq uint64)
	Highest() uint64
	Now() uint64 // the time of the clock that routers share
	Bounds(ctx context.Context) (first, last uint64, err error)
}

// follower is one partition.
type follower struct {
	// immutable after newFollower
	partition int
	nc        *nats.Conn
	js        jetstream.JetStream
	journal   Journal
	apps      *app.Registry
	misses    func(tenant *app.App, channel string, top message.Position)
	ringBytes int64
	patience  time.Duration
	// payloadMax is how large a reply may be.
	payloadMax func() int64
	log        *slog.Logger
	metrics    *Metrics

	// atomic
	caughtUp atomic.Bool

	mu sync.Mutex
	// guarded by mu
	epoch   string
	rings   *rings.Set
	last    uint64 // newest sequence applied
	from    uint64 // the consumer began here
	target  uint64 // caught up when last reaches it
	waiting []waiting
	missed  map[channel.Key]time.Time // told about at
	tenants map[string]*tenantPolicies
}

// tenantPolicies caches what Effective says for the channels of an app: the
// registry hands out another *App when the settings change.
type tenantPolicies struct {
	app      *app.App
	policies map[string]rings.Policy
}

const policiesMax = 64 << 10

// waiting is a request that is ahead of what was applied.
type waiting struct {
	msg      *nats.Msg
	req      history.Request
	deadline time.Time
}

// run follows the partition until ctx ends.
func (f *follower) run(ctx context.Context) {
	wait := retryFirst
	for ctx.Err() == nil {
		if f.journal.Epoch() != f.currentEpoch() {
			f.reset() // here nothing is being applied or answered
		}
		start := time.Now()
		err := f.read(ctx)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			f.log.Warn("the journal can't be read, trying again", "err", err)
		}
		if time.Since(start) > retryMax {
			wait = retryFirst
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, retryMax)
	}
	f.answerAll("the router stops following this partition")
}

// reset forgets everything: the journal has begun a new epoch.
func (f *follower) reset() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.epoch = f.journal.Epoch()
	f.rings = rings.New(f.ringBytes)
	f.last, f.target = 0, 0
	f.missed = map[channel.Key]time.Time{}
	f.tenants = map[string]*tenantPolicies{}
	f.caughtUp.Store(false)
}

// read consumes from where it is, and serves requests once it has caught up.
// It returns when the consumer or the epoch ends.
func (f *follower) read(ctx context.Context) error {
	first, last, err := f.journal.Bounds(ctx)
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.from = f.last + 1
	f.mu.Unlock()
	f.raiseBase(first)
	if err := f.findTarget(ctx); err != nil {
		return err
	}
	r, err := f.begin(ctx, last)
	if err != nil {
		return err
	}
	defer r.end()
	return f.serve(ctx, r)
}

// raiseBase notes that the log begins at first by now: what it lost since the
// consumer began may not have been read.
func (f *follower) raiseBase(first uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if first > f.from {
		f.rings.RaiseBase(message.At(first, 0) - 1)
	}
}

// startAt continues after what was applied. A partition that was never read
// is read from its oldest batch.
func (f *follower) startAt(last uint64) jetstream.ConsumerConfig {
	f.mu.Lock()
	defer f.mu.Unlock()
	cfg := jetstream.ConsumerConfig{
		FilterSubject: subject.Log(f.partition), DeliverPolicy: jetstream.DeliverAllPolicy,
		AckPolicy: jetstream.AckNonePolicy, MaxDeliver: 1, MemoryStorage: true, Replicas: 1, InactiveThreshold: readForgotten,
	}
	if f.last > 0 && f.last <= last {
		cfg.DeliverPolicy, cfg.OptStartSeq = jetstream.DeliverByStartSequencePolicy, f.last+1
	}
	return cfg
}

// findTarget asks for the newest batch of the partition: until it is applied,
// answers would be old.
func (f *follower) findTarget(ctx context.Context) error {
	stream, err := f.js.Stream(ctx, subject.JournalStream)
	if err != nil {
		return fmt.Errorf("look at %s: %w", subject.JournalStream, err)
	}
	newest, err := stream.GetLastMsgForSubject(ctx, subject.Log(f.partition))
	if err != nil && !errors.Is(err, jetstream.ErrMsgNotFound) {
		return fmt.Errorf("find the end of %s: %w", subject.Log(f.partition), err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.target = 0
	if err == nil {
		f.target = newest.Sequence
	}
	return nil
}

// serve answers history requests while the consumer runs.
func (f *follower) serve(ctx context.Context, r *reading) error {
	var sub *nats.Subscription
	defer func() {
		if sub != nil {
			drain.Subscriptions(sub)
		}
	}()
	beat := time.NewTicker(heartbeatEvery)
	defer beat.Stop()
	tick := time.NewTicker(waitTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-r.messages.Closed():
			return errors.New("the consumer ended")
		case err := <-r.failed:
			// The client would go on by itself. But what was trimmed meanwhile
			// would be missing without a trace: begin again, and compare.
			return fmt.Errorf("reading stumbled: %w", err)
		case now := <-beat.C:
			if f.journal.Epoch() != f.currentEpoch() {
				return nil
			}
			f.heartbeat(now)
		case now := <-tick.C:
			f.expireWaiting(now)
		}
		if sub == nil && f.isCaughtUp() {
			var err error
			if sub, err = f.open(ctx); err != nil {
				return err
			}
		}
	}
}

// open begins to serve.
func (f *follower) open(ctx context.Context) (*nats.Subscription, error) {
	first, _, err := f.journal.Bounds(ctx)
	if err != nil {
		return nil, err
	}
	f.raiseBase(first)
	sub, err := f.nc.QueueSubscribe(subject.History(f.partition), subject.Queue, f.answer)
	if err != nil {
		return nil, fmt.Errorf("serve history: %w", err)
	}
	f.caughtUp.Store(true)
	return sub, nil
}

func (f *follower) currentEpoch() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.epoch
}

// isCaughtUp says whether everything that was there at the start is applied.
func (f *follower) isCaughtUp() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.last >= f.target
}

// heartbeat tells how far the partition is, and frees what has expired.
func (f *follower) heartbeat(now time.Time) {
	f.mu.Lock()
	f.rings.Expire(now, sweepChannels)
	for key, at := range f.missed {
		if now.Sub(at) > missPeriod {
			delete(f.missed, key)
		}
	}
	beat := history.Heartbeat{LastSeq: f.last, Epoch: f.epoch, Clock: f.journal.Now()}
	f.mu.Unlock()
	if !f.caughtUp.Load() {
		return
	}
	body, err := json.Marshal(beat)
	if err != nil || !f.nc.IsConnected() {
		return
	}
	if err := f.nc.Publish(subject.Sync(f.partition), body); err != nil {
		f.log.Debug("heartbeat not sent", "err", err)
	}
}

// take applies one batch; it runs on the consumer's goroutine.
func (f *follower) take(meta *jetstream.MsgMetadata, data []byte) {
	seq := meta.Sequence.Stream
	f.journal.Observe(seq)
	f.mu.Lock()
	if seq <= f.last {
		f.mu.Unlock()
		return
	}
	err := f.apply(seq, meta.Timestamp, data)
	f.last = seq
	due := f.takeDue()
	f.mu.Unlock()
	f.metrics.batches.Inc()
	if err != nil {
		f.metrics.malformed.Inc()
		f.log.Error("a batch of the journal can't be read, skipped", "seq", seq, "err", err)
	}
	for _, w := range due {
		f.reply(w.msg, &w.req)
	}
}

// apply puts the publications of a batch into the rings. mu is held.
func (f *follower) apply(seq uint64, at time.Time, data []byte) error {
	r := message.NewReader(data)
	now := time.Now()
	var pub message.Publication
	for r.Next(&pub) {
		key := channel.Key{App: pub.App, Name: pub.Channel}
		if pub.Kind == message.HistoryRemoved {
			f.rings.Remove(key)
			continue
		}
		if pub.Kind != message.Event || pub.Transient { // client events are neither cached nor history
			continue
		}
		policy := f.policy(key)
		if policy.Size <= 0 && policy.CacheTTL <= 0 && f.rings.Top(key) == 0 {
			continue // in the journal for its idempotency key only
		}
		entry := rings.Entry{
			Position: message.At(seq, r.Index()), At: at, Data: pub.Append(make([]byte, 0, pub.Size())),
		}
		f.rings.Apply(key, policy, entry, now)
		delete(f.missed, key)
	}
	return r.Err()
}

// policy gives what is kept of a channel. mu is held.
func (f *follower) policy(key channel.Key) rings.Policy {
	tenant := f.apps.ByID(key.App)
	if tenant == nil {
		return rings.Policy{}
	}
	t := f.tenants[key.App]
	if t == nil || t.app != tenant || len(t.policies) >= policiesMax {
		t = &tenantPolicies{app: tenant, policies: map[string]rings.Policy{}}
		f.tenants[string([]byte(key.App))] = t
	}
	p, ok := t.policies[key.Name]
	if !ok {
		e := tenant.Effective(key.Name)
		p = rings.Policy{Size: e.History.Size, TTL: e.History.TTL, CacheTTL: e.CacheTTL}
		t.policies[string([]byte(key.Name))] = p
	}
	return p
}
