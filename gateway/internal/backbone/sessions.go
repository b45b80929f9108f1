package backbone

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/natsconn"
	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/exchange"
	"github.com/carillon-rt/carillon/proto/subject"
)

const (
	// sessionTimeout is how long another gateway may take for what it does not
	// have to wait for.
	sessionTimeout = 2 * time.Second
	// sessionQueue is how many requests of other gateways may wait for this
	// one, and how many answers for the connection.
	sessionQueue = 4096
)

// Host has sessions: an *edge.Edge.
type Host interface {
	// Exchange does not block; answer is called once, on any goroutine.
	Exchange(req *exchange.Request, answer func(exchange.Reply))
}

// Sessions is how exchanges of clients without WebSockets find their sessions
// on other gateways. NATS is the directory: a session that its client has
// named has a subscription of its own, and no responder means that there is no
// such session.
type Sessions struct {
	// immutable after NewSessions
	nc       *nats.Conn
	node     string
	ask      Asker
	log      *slog.Logger
	metrics  *sessionMetrics
	requests chan *nats.Msg
	wake     chan struct{} // names have changed
	written  chan struct{} // replies have grown

	// owned by the goroutine that follows the names
	subs map[string]*nats.Subscription

	mu sync.Mutex
	// guarded by mu
	names   []nameChange
	replies []reply
	closed  bool
}

// nameChange is a Claim that found nobody, or a Release.
type nameChange struct {
	name   string
	answer func(error) // nil for a Release
}

type reply struct {
	to   *nats.Msg
	data []byte
}

// NewSessions returns the sessions of a node. Requests to other nodes go
// through ask, whose Run the caller sees to; metrics may be nil.
func NewSessions(nc *nats.Conn, node string, ask Asker, log *slog.Logger, metrics prometheus.Registerer) *Sessions {
	return &Sessions{
		nc: nc, node: node, ask: ask, log: log, metrics: newSessionMetrics(metrics),
		requests: make(chan *nats.Msg, sessionQueue), wake: make(chan struct{}, 1), written: make(chan struct{}, 1),
		subs: map[string]*nats.Subscription{},
	}
}

// Claim implements the edge's Sessions.
func (s *Sessions) Claim(name string, answer func(error)) {
	find := exchange.Request{Op: exchange.Find, Name: name}
	s.ask.Ask(subject.NamedSession(name), find.Append(nil), sessionTimeout, func(data []byte, err error) {
		switch {
		case err == nil:
			rep, err := exchange.ParseReply(data)
			if err == nil && rep.Status == 200 {
				err = exchange.ErrElsewhere
			} else if err == nil {
				err = fmt.Errorf("the session begins, or ends, at another gateway just now (%d)", rep.Status)
			}
			answer(err)
		case errors.Is(err, natsconn.ErrNoResponders):
			s.change(nameChange{name, answer})
		default:
			answer(err)
		}
	})
}

// Release implements the edge's Sessions.
func (s *Sessions) Release(name string) { s.change(nameChange{name, nil}) }

func (s *Sessions) change(c nameChange) {
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.names = append(s.names, c)
	}
	s.mu.Unlock()
	if closed && c.answer != nil {
		c.answer(natsconn.ErrClosed)
	}
	signal(s.wake)
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Ask implements the edge's Sessions.
func (s *Sessions) Ask(node string, req *exchange.Request, answer func(exchange.Reply)) {
	subj := subject.NamedSession(req.Name)
	if req.Name == "" {
		if !validNode(node) {
			answer(exchange.Reply{Status: 404})
			return
		}
		subj = subject.GatewaySession(node)
	}
	s.metrics.asked.Inc()
	s.ask.Ask(subj, req.Append(nil), req.Wait+sessionTimeout, func(data []byte, err error) {
		rep := exchange.Reply{Status: 503}
		switch {
		case errors.Is(err, natsconn.ErrNoResponders):
			rep.Status = 404
		case err == nil:
			var bad error
			if rep, bad = exchange.ParseReply(data); bad != nil {
				rep = exchange.Reply{Status: 503}
				s.log.Warn("a gateway's answer about a session can't be read", "err", bad)
			}
		}
		if rep.Status == 503 {
			s.metrics.failed.Inc()
		}
		answer(rep)
	})
}

// validNode says whether a node's name, which may come from a client, can
// stand in a subject.
func validNode(node string) bool {
	return node != "" && !strings.ContainsAny(node, "*> \t\r\n") && !strings.Contains(node, "..") && node[0] != '.' && node[len(node)-1] != '.'
}

// Run answers other gateways from host until ctx ends.
func (s *Sessions) Run(ctx context.Context, host Host) error {
	defer s.close()
	sub, err := s.nc.ChanSubscribe(subject.GatewaySession(s.node), s.requests)
	if err != nil {
		return fmt.Errorf("subscribe to requests about sessions: %w", err)
	}
	defer func() { _ = sub.Unsubscribe() }() // fails only on a closed connection
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() { s.follow(ctx) })
	others.Go(func() { s.write(ctx) })
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-s.requests:
			s.serve(m, host)
		}
	}
}

// serve has host answer a request.
func (s *Sessions) serve(m *nats.Msg, host Host) {
	s.metrics.served.Inc()
	req, err := exchange.ParseRequest(m.Data)
	if err != nil {
		s.log.Warn("a gateway's request about a session can't be read", "err", err)
		s.respond(m, exchange.Reply{Status: 400})
		return
	}
	host.Exchange(&req, func(rep exchange.Reply) { s.respond(m, rep) })
}

// respond queues an answer: a write to a stalled server blocks, and the caller
// may be a loop.
func (s *Sessions) respond(m *nats.Msg, rep exchange.Reply) {
	s.mu.Lock()
	full := len(s.replies) >= sessionQueue
	if !full {
		s.replies = append(s.replies, reply{m, rep.Append(nil)})
	}
	s.mu.Unlock()
	if full {
		s.metrics.dropped.Inc()
		return
	}
	signal(s.written)
}

// write writes the answers.
func (s *Sessions) write(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.written:
		}
		s.mu.Lock()
		replies := s.replies
		s.replies = nil
		s.mu.Unlock()
		for _, r := range replies {
			if err := s.send(r); err != nil {
				s.metrics.dropped.Inc()
				s.log.Warn("an answer about a session was not sent", "bytes", len(r.data), "err", err)
			}
		}
	}
}

func (s *Sessions) send(r reply) error {
	if most := s.nc.MaxPayload(); most > 0 && int64(len(r.data)) > most {
		rep := exchange.Reply{Status: 503} // else the client would wait for nothing
		return errors.Join(nats.ErrMaxPayload, r.to.Respond(rep.Append(nil)))
	}
	return r.to.Respond(r.data)
}

// follow subscribes to the names of sessions. All that have come meanwhile
// are made known with one round trip.
func (s *Sessions) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		s.mu.Lock()
		names := s.names
		s.names = nil
		s.mu.Unlock()
		s.announce(names)
	}
}

func (s *Sessions) announce(names []nameChange) {
	var known []nameChange
	for _, c := range names {
		if err := s.applyName(c); err != nil && c.answer != nil {
			c.answer(err)
		} else if c.answer != nil {
			known = append(known, c)
		}
	}
	s.metrics.names.Set(float64(len(s.subs)))
	if len(known) == 0 {
		return
	}
	err := s.nc.FlushTimeout(sessionTimeout) // the server has passed the names on when it answers
	for _, c := range known {
		c.answer(err)
	}
}

// applyName subscribes to a name, or ends that. An answer with an error leaves
// it to the caller of Claim to Release.
func (s *Sessions) applyName(c nameChange) error {
	old := s.subs[c.name]
	if c.answer == nil {
		delete(s.subs, c.name)
		if old == nil {
			return nil
		}
		return old.Unsubscribe()
	}
	if old != nil {
		return nil
	}
	sub, err := s.nc.ChanSubscribe(subject.NamedSession(c.name), s.requests)
	if err == nil {
		s.subs[c.name] = sub
	}
	return err
}

// close ends all that waits.
func (s *Sessions) close() {
	s.mu.Lock()
	s.closed = true
	names := s.names
	s.names, s.replies = nil, nil
	s.mu.Unlock()
	for _, c := range names {
		if c.answer != nil {
			c.answer(natsconn.ErrClosed)
		}
	}
	for _, sub := range s.subs {
		_ = sub.Unsubscribe() // fails only on a closed connection
	}
	clear(s.subs)
}

type sessionMetrics struct {
	asked, served, failed, dropped prometheus.Counter
	names                          prometheus.Gauge
}

func newSessionMetrics(reg prometheus.Registerer) *sessionMetrics {
	counter := func(name, help string) prometheus.Counter {
		return telemetry.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "carillon_gateway_session_" + name, Help: help}))
	}
	return &sessionMetrics{
		asked:   counter("requests_sent_total", "Requests to other gateways about sessions without a WebSocket that they have."),
		served:  counter("requests_served_total", "Requests of other gateways about sessions without a WebSocket of this node."),
		failed:  counter("requests_failed_total", "Requests to other gateways about sessions that were not answered in time, or not now; their clients were told 503."),
		dropped: counter("replies_dropped_total", "Answers to other gateways about sessions that could not be sent."),
		names: telemetry.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "carillon_gateway_session_names", Help: "Sessions without a WebSocket of this node whose clients have named them.",
		})),
	}
}
