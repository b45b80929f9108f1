package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/subject"
)

const (
	// pullMax is how many events one node asks for at a time.
	pullMax = 256
	// setupTimeout bounds the creation of streams and consumer.
	setupTimeout = 10 * time.Second
	// again is the wait before the queue is opened again after an error.
	again = time.Second
	// drainTimeout bounds the taking of what has arrived when the node stops.
	drainTimeout = time.Second
)

// place is where an event is in the queue. A queue that was lost begins anew
// with 1, at another time.
type place struct {
	seq    uint64
	stored int64
}

// held is an event taken from the queue, until all endpoints that want it are done with it.
type held struct {
	svc *Service
	at  place
	// left counts the endpoints that are not done. atomic
	left atomic.Int32
	// msg is guarded by Service.mu: a redelivery replaces it.
	msg jetstream.Msg
}

// done is called once by each endpoint.
func (h *held) done() {
	if h.left.Add(-1) == 0 {
		h.svc.finish(h)
	}
}

// open creates the streams and the consumer that all api nodes share.
func (s *Service) open(ctx context.Context) (jetstream.Consumer, error) {
	ctx, cancel := context.WithTimeout(ctx, setupTimeout)
	defer cancel()
	for _, cfg := range []jetstream.StreamConfig{hook.StreamConfig(s.cfg.Replicas), hook.DeadStreamConfig(s.cfg.Replicas)} {
		_, err := s.js.CreateStream(ctx, cfg)
		// One that another node created with other copies is as good.
		if err != nil && !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return nil, fmt.Errorf("create stream %s: %w", cfg.Name, err)
		}
	}
	consumer, err := s.js.CreateOrUpdateConsumer(ctx, subject.HookStream, jetstream.ConsumerConfig{
		Durable: consumerName, Description: "delivers webhook events, shared by all api nodes",
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: s.cfg.AckWait, MaxDeliver: -1, MaxAckPending: s.cfg.PendingMax,
	})
	if err != nil {
		return nil, fmt.Errorf("create consumer %s: %w", consumerName, err)
	}
	return consumer, nil
}

// receive takes events until ctx ends, and opens the queue again when it broke.
func (s *Service) receive(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.receiveOnce(ctx)
		s.ready.Store(false)
		if ctx.Err() != nil {
			return
		}
		s.log.Warn("webhook queue is not available, trying on", "err", err)
		sleep(ctx, again)
	}
}

func (s *Service) receiveOnce(ctx context.Context) error {
	consumer, err := s.open(ctx)
	if err != nil {
		return err
	}
	messages, err := consumer.Messages(jetstream.PullMaxMessages(pullMax))
	if err != nil {
		return fmt.Errorf("pull webhook events: %w", err)
	}
	defer messages.Stop()
	// What has arrived but was not looked at is taken too, so that it is given back at once and not when its time is over.
	takeCtx, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	stop := context.AfterFunc(ctx, func() {
		messages.Drain()
		sleep(takeCtx, drainTimeout) // draining does not end while NATS is away
		giveUp()
	})
	defer stop()
	s.ready.Store(true)
	for {
		msg, err := messages.Next(jetstream.NextContext(takeCtx))
		if err == nil {
			s.take(ctx, msg)
			continue
		}
		if errors.Is(err, jetstream.ErrNoHeartbeat) { // the iterator pulls again by itself
			continue
		}
		return fmt.Errorf("pull webhook events: %w", err)
	}
}

// take hands one event to the endpoints that want it.
func (s *Service) take(ctx context.Context, msg jetstream.Msg) {
	meta, err := msg.Metadata()
	if err != nil {
		s.log.Warn("webhook queue delivered a message without metadata", "err", err)
		return
	}
	var ev hook.Event
	if err := json.Unmarshal(msg.Data(), &ev); err != nil || ev.Name == "" {
		s.metrics.malformed.Inc()
		s.log.Warn("malformed webhook event is thrown away", "subject", msg.Subject(), "err", err)
		s.report(msg.TermWithReason("malformed event"))
		return
	}
	appID := subject.HookApp(msg.Subject())
	ids := s.wanted(appID, &ev, msg.Headers().Get(hook.EndpointHeader))
	if len(ids) == 0 {
		s.metrics.unwanted.Inc()
		s.report(msg.Ack())
		return
	}
	h := s.hold(place{meta.Sequence.Stream, meta.Timestamp.UnixNano()}, msg, len(ids))
	if h == nil {
		return // a redelivery of what is held already
	}
	for _, target := range ids {
		s.hand(ctx, appID, target, &item{held: h, event: ev, size: len(msg.Data())})
	}
}

// target is an endpoint that wants an event.
type target struct {
	id    string
	batch bool
}

// wanted lists the endpoints for an event: only the named one for a replayed event, as long as that is configured.
func (s *Service) wanted(appID string, ev *hook.Event, only string) []target {
	a := s.apps.ByID(appID)
	if a == nil {
		return nil
	}
	var all []target
	for i := range a.Webhooks {
		w := &a.Webhooks[i]
		id := endpointID(w)
		if id == only {
			return []target{{id, w.Batch}}
		}
		if w.Wants(ev.Name, ev.Channel) {
			all = append(all, target{id, w.Batch})
		}
	}
	return all
}

// hold remembers a message until its endpoints are done; nil if it is held already.
func (s *Service) hold(at place, msg jetstream.Msg, endpoints int) *held {
	s.mu.Lock()
	defer s.mu.Unlock()
	if h := s.held[at]; h != nil {
		h.msg = msg
		return nil
	}
	h := &held{svc: s, at: at, msg: msg}
	h.left.Store(int32(endpoints)) //nolint:gosec // the number of webhooks of an app
	s.held[at] = h
	s.metrics.held.Set(float64(len(s.held)))
	return h
}

// hand gives an event to its endpoint, which is started when it is not there.
func (s *Service) hand(ctx context.Context, appID string, to target, it *item) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := appID + "/" + to.id
	e := s.endpoints[key]
	if e == nil {
		e = newEndpoint(s, appID, to.id)
		s.endpoints[key] = e
		s.running.Go(func() { e.run(ctx) })
	}
	e.push(it, to.batch)
}

// retire ends an endpoint that is idle.
func (s *Service) retire(e *endpoint) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.backlog.idle() {
		return false
	}
	s.turned(e.backlog.ill(), false)
	delete(s.endpoints, e.app+"/"+e.id)
	return true
}

// turned counts an endpoint that fell ill or recovered.
func (s *Service) turned(was, is bool) {
	switch {
	case is && !was:
		s.ill.Add(1)
	case was && !is:
		s.ill.Add(-1)
	}
}

// illShare is the part of what may be taken from the queue that ill endpoints have on a node: several nodes leave room, too.
const illShare = 8

// room is how many events may wait for an endpoint that is ill. What waits for all of them must never be all that may be taken, as
// that would hold up every other.
func (s *Service) room() int {
	return max(1, s.cfg.PendingMax/illShare/max(1, int(s.ill.Load())))
}

// finish acknowledges an event that all endpoints are done with.
func (s *Service) finish(h *held) {
	s.mu.Lock()
	msg := h.msg
	delete(s.held, h.at)
	s.metrics.held.Set(float64(len(s.held)))
	s.mu.Unlock()
	s.report(msg.Ack())
}

// keep tells the queue that the held events are still being worked on, until ctx ends.
func (s *Service) keep(ctx context.Context) {
	ticker := time.NewTicker(s.cfg.AckWait / 3)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			for _, msg := range s.messages() {
				s.report(msg.InProgress())
			}
		}
	}
}

func (s *Service) messages() []jetstream.Msg {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]jetstream.Msg, 0, len(s.held))
	for _, h := range s.held {
		out = append(out, h.msg)
	}
	return out
}

// giveBack returns what is not done to the queue, for another node or the next start.
func (s *Service) giveBack() {
	for _, msg := range s.messages() {
		s.report(msg.Nak())
	}
}

// report logs an acknowledgement that could not be sent. The event is delivered once more then, which receivers must bear anyway.
func (s *Service) report(err error) {
	if err != nil && !errors.Is(err, jetstream.ErrMsgAlreadyAckd) {
		s.log.Debug("acknowledge webhook event", "err", err)
	}
}
