package backbone

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/natsconn"
	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/proto/subject"
)

// Deadlines of requests. Some client libraries give up on a subscription
// after a second.
const (
	authTimeout   = 800 * time.Millisecond // of one of two attempts
	authAttempts  = 2
	cacheTimeout  = time.Second // of one of two attempts
	cacheAttempts = 2

	// authUnderway is how many authorizations this gateway asks for at a time:
	// many gateways fit into the service's queue. When all clients come back
	// at once the others wait in line; the deadline counts from the asking.
	authUnderway = 256
	authInLine   = 64 << 10
	authPatience = 5 * time.Second
)

// Asker sends requests without blocking: a *natsconn.Requester.
type Asker interface {
	// Ask sends data to subject; done is called exactly once, with the reply
	// or an error, and must not block.
	Ask(subject string, data []byte, timeout time.Duration, done func(reply []byte, err error))
}

// Publisher hands publications to the routers: a *publisher.Publisher.
type Publisher interface {
	// Publish never blocks; pub may be reused when it returns.
	Publish(pub *message.Publication, done func(publisher.Receipt))
}

// Lasts knows how far the partitions have been delivered: a *Feed.
type Lasts interface {
	Partitions() int
	Last(partition int) message.Position
	Empty(partition int) message.Position
}

// atLeast is what a router has to have applied so that its answer includes
// what was delivered up to pos: a partition that was empty has nothing that it
// could apply.
func atLeast(lasts Lasts, partition int, pos message.Position) message.Position {
	if pos == lasts.Empty(partition) {
		return 0
	}
	return pos
}

var (
	_ Asker     = (*natsconn.Requester)(nil)
	_ Publisher = (*publisher.Publisher)(nil)
	_ Lasts     = (*Feed)(nil)
)

// Services is what loops ask of the services behind NATS. It has no
// goroutine; answers come on those of the Asker and the Publisher.
type Services struct {
	// immutable after NewServices
	lasts     Lasts
	ask       Asker
	publish   Publisher
	auth      desk
	decisions desk // those of Decide
	empties   empties
	reads     *line
	metrics   *serviceMetrics
}

// NewServices returns the services behind ask and publish; metrics may be nil.
func NewServices(lasts Lasts, ask Asker, publish Publisher, metrics prometheus.Registerer) *Services {
	s := &Services{
		lasts: lasts, ask: ask, publish: publish,
		auth:      desk{newLine(authUnderway, authInLine, authPatience), authTimeout, authAttempts},
		decisions: desk{newLine(decideUnderway, decideInLine, decidePatience), decideTimeout, 1},
		empties:   empties{line: newLine(emptyUnderway, 0, 0), waiting: map[emptiness][]func(){}},
		reads:     newLine(readUnderway, readInLine, readPatience),
	}
	s.metrics = newServiceMetrics(metrics, func() int { return s.auth.line.length() + s.decisions.line.length() })
	return s
}

// Authorize implements the edge's Backbone.
func (s *Services) Authorize(req *authz.Subscribe, answer func(authz.Decision)) {
	s.decide(s.auth, subject.AuthSubscribe, req.App, req, answer)
}

// SignIn implements the edge's Backbone.
func (s *Services) SignIn(req *authz.SignIn, answer func(authz.Decision)) {
	s.decide(s.auth, subject.AuthSignIn, req.App, req, answer)
}

// desk is where decisions are asked for: a line, and how long and how often one
// is asked for when it is the client's turn. What may be asked twice changes
// nothing: a signature, or the application's subscribe hook.
type desk struct {
	line     *line
	timeout  time.Duration
	attempts int
}

// decide asks the authorization service when it is the app's turn in line.
func (s *Services) decide(at desk, subj, app string, req any, answer func(authz.Decision)) {
	body, err := json.Marshal(req)
	if err != nil { // strings only: it can't be
		s.metrics.unavailable.Inc()
		answer(authz.Refuse(authz.Unavailable, "the request could not be sent to the authorization service: "+err.Error()))
		return
	}
	began := time.Now()
	settle := func(reply []byte, err error) {
		d := decision(reply, err)
		s.metrics.authSeconds.Observe(time.Since(began).Seconds())
		switch {
		case d.Allow:
			s.metrics.allowed.Inc()
		case d.Temporary:
			s.metrics.unavailable.Inc()
		default:
			s.metrics.refused.Inc()
		}
		answer(d)
	}
	at.line.enter(app, func() {
		s.insist(at, subj, body, func(reply []byte, err error) {
			settle(reply, err)
			at.line.leave()
		})
	}, func() { settle(nil, natsconn.ErrBusy) })
}

// insist asks again when there is no answer in time: the services share a queue
// group, so another one gets it when the first was killed.
func (s *Services) insist(at desk, subj string, body []byte, done func(reply []byte, err error)) {
	s.ask.Ask(subj, body, at.timeout, func(reply []byte, err error) {
		if at.attempts--; at.attempts > 0 && errors.Is(err, natsconn.ErrTimeout) {
			s.insist(at, subj, body, done)
			return
		}
		done(reply, err)
	})
}

// decision reads a reply; what can't be read is "can't tell now", never a yes.
func decision(reply []byte, err error) authz.Decision {
	switch {
	case errors.Is(err, natsconn.ErrNoResponders):
		return authz.Refuse(authz.Unavailable, "no authorization service is running, try again")
	case errors.Is(err, natsconn.ErrTimeout):
		return authz.Refuse(authz.Unavailable, "the authorization service did not answer in time, try again")
	case errors.Is(err, natsconn.ErrBusy):
		return authz.Refuse(authz.Unavailable, "too many authorizations are under way, try again")
	case err != nil:
		return authz.Refuse(authz.Unavailable, "the authorization service could not be asked, try again")
	}
	var d authz.Decision
	if err := json.Unmarshal(reply, &d); err != nil {
		return authz.Refuse(authz.Unavailable, "the authorization service gave no decision, try again")
	}
	if !d.Allow && d.Reason == "" {
		return authz.Refuse(authz.Unavailable, "the authorization service gave no reason, try again")
	}
	return d
}

// Publish implements the edge's Backbone: client events have no acknowledgement, so
// failure is counted.
func (s *Services) Publish(pub *message.Publication) {
	s.publish.Publish(pub, func(r publisher.Receipt) {
		if r.Err != nil {
			s.metrics.publishFailed.Inc()
			return
		}
		s.metrics.published.Inc()
	})
}

// Cached implements the edge's Backbone. The routers that follow the partition
// share a queue group, so a second attempt finds another one, or the same one
// a moment later.
func (s *Services) Cached(req history.Request, answer func(*history.Reply)) {
	partition := channel.Key{App: req.App, Name: req.Channel}.Partition(s.lasts.Partitions())
	if req.AtLeast == 0 { // where nothing was delivered since the start, what was there then counts
		req.AtLeast = s.lasts.Last(partition)
	}
	req.AtLeast = atLeast(s.lasts, partition, req.AtLeast)
	body, err := json.Marshal(req)
	if err != nil { // strings and numbers only: it can't be
		answer(nil)
		return
	}
	s.cached(subject.History(partition), body, cacheAttempts, answer)
}

func (s *Services) cached(subj string, body []byte, attempts int, answer func(*history.Reply)) {
	s.ask.Ask(subj, body, cacheTimeout, func(data []byte, err error) {
		reply := new(history.Reply)
		if err == nil {
			err = json.Unmarshal(data, reply)
		}
		switch {
		case err == nil && reply.Error == "":
			s.metrics.cacheRead.Inc()
			answer(reply)
		case attempts > 1 && !errors.Is(err, natsconn.ErrClosed):
			s.cached(subj, body, attempts-1, answer)
		default:
			s.metrics.cacheFailed.Inc()
			answer(nil)
		}
	})
}

// serviceMetrics are resolved ahead: none is looked up on a loop.
type serviceMetrics struct {
	allowed, refused, unavailable prometheus.Counter
	authSeconds                   prometheus.Histogram
	published, publishFailed      prometheus.Counter
	cacheRead, cacheFailed        prometheus.Counter
	reads, readsFailed            prometheus.Counter
}

// read counts what clients asked of presence and history.
func (m *serviceMetrics) read(err error) {
	if err != nil {
		m.readsFailed.Inc()
		return
	}
	m.reads.Inc()
}

func newServiceMetrics(reg prometheus.Registerer, inLine func() int) *serviceMetrics {
	counter := func(name, help string, results ...string) []prometheus.Counter {
		vec := telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carillon_gateway_" + name, Help: help,
		}, []string{"reason"}))
		out := make([]prometheus.Counter, len(results))
		for i, r := range results {
			out[i] = vec.WithLabelValues(r)
		}
		return out
	}
	telemetry.Register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "carillon_gateway_authorizations_waiting", Help: "Clients whose authorization waits in line to be asked for.",
	}, func() float64 { return float64(inLine()) }))
	auth := counter("authorizations_total", "Decisions of the authorization service.", "allowed", "refused", "unavailable")
	events := counter("client_events_total", "Client events handed to the routers.", "published", "failed")
	cache := counter("cache_reads_total", "Cached values read for new subscribers.", "answered", "failed")
	reads := counter("client_reads_total", "Presence and history that clients asked for.", "answered", "failed")
	return &serviceMetrics{
		reads: reads[0], readsFailed: reads[1],
		allowed: auth[0], refused: auth[1], unavailable: auth[2],
		published: events[0], publishFailed: events[1],
		cacheRead: cache[0], cacheFailed: cache[1],
		authSeconds: telemetry.Register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "carillon_gateway_authorization_seconds", Help: "Time from a client's request to the decision.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, .8, 2, 5},
		})),
	}
}
