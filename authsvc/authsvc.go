// Package authsvc is the authorization service: it answers the requests of
// gateways over NATS with decisions. It owns the endpoints and their workers;
// what is decided, and how, is in internal/decide.
package authsvc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/authsvc/internal/decide"
	"github.com/carillon-rt/carillon/authsvc/internal/hook"
	"github.com/carillon-rt/carillon/authsvc/internal/token"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/subject"
)

// drainTimeout bounds how long Run waits for the last requests when it stops.
const drainTimeout = 5 * time.Second

// Service answers authorization requests.
//
//	car.auth.subscribe, signin (queue group) ─┐
//	                                          ├─> requests ─> workers ─> decide ─> reply
//	car.auth.connect, refresh, ...           ─┘                 │
//	                                                            └─> waits, a goroutine each, for
//	                                                                what may ask the application
type Service struct {
	// immutable after New
	cfg      Config
	nc       *nats.Conn
	log      *slog.Logger
	metrics  *metrics
	requests chan *nats.Msg
	answer   map[string]endpoint // by subject
	hooks    *hook.Client
	keySets  *http.Client

	waits sync.WaitGroup // goroutines that may wait for the application
	slots chan struct{}  // one for each of them
}

// question is a request that has been read.
type question struct {
	decide func(context.Context) authz.Decision
	// waits: the decision may wait for the application or an issuer.
	waits bool
}

// endpoint reads the requests of a subject.
type endpoint struct {
	read    func(data []byte) (question, error)
	metrics endpointMetrics
}

// New builds the service on deps; apps must hold secrets and may be replaced
// at any time. It starts nothing.
func New(cfg Config, deps service.Deps, apps *app.Registry) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("authsvc: %w", err)
	}
	if apps == nil {
		return nil, errors.New("authsvc: there is no registry of apps")
	}
	for i, a := range apps.All() {
		if errs := CheckApp(fmt.Sprintf("apps[%d]", i), *a); len(errs) > 0 {
			return nil, fmt.Errorf("authsvc: %w", errors.Join(errs...))
		}
	}
	s := &Service{
		cfg: cfg, nc: deps.NATS.Req, log: deps.Log, metrics: newMetrics(deps.Metrics),
		requests: make(chan *nats.Msg, cfg.Queue), slots: make(chan struct{}, cfg.Waiting),
		hooks:   hook.New(deps.NATS.Req, deps.Log, deps.Metrics, time.Now),
		keySets: &http.Client{Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true}},
	}
	sets := token.NewFetcher(s.keySets, time.Now, s.metrics.keySetFetched)
	d := decide.New(apps, sets, s.hooks, time.Now, s.ruleFailed)
	s.answer = map[string]endpoint{
		subject.AuthSubscribe: {metrics: s.metrics.endpoint("subscribe"), read: func(data []byte) (question, error) {
			req, err := read[authz.Subscribe](data)
			return question{decide: func(ctx context.Context) authz.Decision { return d.Subscribe(ctx, req) }, waits: err == nil && d.MayWait(req)}, err
		}},
		subject.AuthSignIn: {metrics: s.metrics.endpoint("signin"), read: func(data []byte) (question, error) {
			req, err := read[authz.SignIn](data)
			return question{decide: func(context.Context) authz.Decision { return decide.SignIn(apps, req) }}, err
		}},
		subject.AuthConnect:    waiting(s.metrics.endpoint("connect"), d.Connect),
		subject.AuthRefresh:    waiting(s.metrics.endpoint("refresh"), d.Refresh),
		subject.AuthSubRefresh: waiting(s.metrics.endpoint("sub_refresh"), d.SubRefresh),
		subject.AuthPublish:    waiting(s.metrics.endpoint("publish"), d.Publish),
		subject.AuthRPC:        waiting(s.metrics.endpoint("rpc"), d.RPC),
		subject.AuthCacheEmpty: waiting(s.metrics.endpoint("cache_empty"), d.CacheEmpty),
	}
	return s, nil
}

// waiting is the endpoint of a decision that may wait.
func waiting[T any](m endpointMetrics, decide func(context.Context, *T) authz.Decision) endpoint {
	return endpoint{metrics: m, read: func(data []byte) (question, error) {
		req, err := read[T](data)
		return question{decide: func(ctx context.Context) authz.Decision { return decide(ctx, req) }, waits: true}, err
	}}
}

func read[T any](data []byte) (*T, error) {
	req := new(T)
	err := json.Unmarshal(data, req)
	return req, err
}

func malformed(err error) authz.Decision {
	return authz.Refuse(authz.BadData, "the authorization request is not the JSON that it should be: "+err.Error())
}

// ruleFailed counts and tells operators; it may be called often.
func (s *Service) ruleFailed(app, policy string, err error) {
	s.metrics.ruleErrors.WithLabelValues(app).Inc()
	s.log.Debug("a condition could not be evaluated", "app", app, "policy", policy, "err", err)
}

// Run answers requests until ctx ends; then it takes no new ones, answers
// those that have arrived, and returns.
func (s *Service) Run(ctx context.Context) error {
	// Questions outlive ctx, so that what has arrived is answered.
	asking, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var workers sync.WaitGroup
	for range s.cfg.workers() {
		workers.Go(func() { s.work(asking) })
	}
	subs, err := s.subscribe()
	if err == nil {
		<-ctx.Done()
	}
	err = errors.Join(err, s.drain(subs))
	close(s.requests)
	workers.Wait()
	impatient := time.AfterFunc(drainTimeout, cancel)
	s.waits.Wait()
	impatient.Stop()
	s.keySets.CloseIdleConnections()
	if closeErr := s.hooks.Close(); closeErr != nil {
		s.log.Warn("close connections to hooks", "err", closeErr)
	}
	if flushErr := s.flush(); flushErr != nil {
		s.log.Warn("last answers may be lost", "err", flushErr)
	}
	return err
}

func (s *Service) subscribe() ([]*nats.Subscription, error) {
	var subs []*nats.Subscription
	for name := range s.answer {
		sub, err := s.nc.ChanQueueSubscribe(name, subject.Queue, s.requests)
		if err != nil {
			return subs, fmt.Errorf("subscribe to %s: %w", name, err)
		}
		subs = append(subs, sub)
	}
	return subs, nil
}

// drain ends the subscriptions and returns when nothing more can arrive in
// requests, so that it may be closed. While NATS is away nothing can arrive.
func (s *Service) drain(subs []*nats.Subscription) error {
	var errs []error
	timer := time.NewTimer(drainTimeout)
	defer timer.Stop()
	for _, sub := range subs {
		closed := sub.StatusChanged(nats.SubscriptionClosed)
		if !s.nc.IsConnected() {
			errs = append(errs, ended("unsubscribe from", sub, sub.Unsubscribe()))
			continue
		}
		if err := sub.Drain(); err != nil {
			errs = append(errs, ended("drain", sub, err))
			continue
		}
		select {
		case <-closed:
		case <-timer.C:
			errs = append(errs, fmt.Errorf("drain %s: not done in %s", sub.Subject, drainTimeout), sub.Unsubscribe())
			timer.Reset(0)
		}
	}
	return errors.Join(errs...)
}

// ended is the error of ending a subscription that had not ended by itself.
func ended(how string, sub *nats.Subscription, err error) error {
	if err == nil || errors.Is(err, nats.ErrConnectionClosed) || errors.Is(err, nats.ErrBadSubscription) {
		return nil
	}
	return fmt.Errorf("%s %s: %w", how, sub.Subject, err)
}

// flush sees the last answers out, unless there is nobody to flush to.
func (s *Service) flush() error {
	if !s.nc.IsConnected() {
		return nil
	}
	return s.nc.FlushTimeout(drainTimeout)
}

func (s *Service) work(ctx context.Context) {
	for msg := range s.requests {
		e := s.answer[msg.Subject]
		if e.read == nil || msg.Reply == "" {
			continue // nobody waits for an answer
		}
		start := time.Now()
		q, err := e.read(msg.Data)
		switch {
		case err != nil:
			s.settle(&e, msg.Reply, start, malformed(err), outcomeMalformed)
		case q.waits:
			s.wait(ctx, &e, msg.Reply, start, q)
		default:
			d := q.decide(ctx)
			s.settle(&e, msg.Reply, start, d, outcome(d))
		}
	}
}

// wait decides in a goroutine of its own, if there may be one more.
func (s *Service) wait(ctx context.Context, e *endpoint, reply string, start time.Time, q question) {
	select {
	case s.slots <- struct{}{}:
	default:
		s.settle(e, reply, start, authz.Refuse(authz.Unavailable, "too many requests wait for the application, try again"), outcomeBusy)
		return
	}
	s.metrics.waiting.Inc()
	s.waits.Go(func() {
		defer func() {
			s.metrics.waiting.Dec()
			<-s.slots
		}()
		d := q.decide(ctx)
		s.settle(e, reply, start, d, outcome(d))
	})
}

func (s *Service) settle(e *endpoint, reply string, start time.Time, d authz.Decision, outcome string) {
	err := s.reply(reply, d)
	if errors.Is(err, nats.ErrMaxPayload) { // of what the application wants to be given on
		s.log.Warn("a decision is too large for NATS (max_payload), it is made no answer", "outcome", outcome)
		d = authz.Refuse(authz.Unavailable, "the application's answer is too large to be passed on")
		outcome, err = string(d.Reason), s.reply(reply, d)
	}
	if err != nil {
		s.metrics.lost.Inc()
		s.log.Warn("answer lost", "err", err)
	}
	e.metrics.seconds.Observe(time.Since(start).Seconds())
	e.metrics.outcomes[outcome].Inc()
}

func (s *Service) reply(to string, d authz.Decision) error {
	data, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode decision: %w", err)
	}
	return s.nc.Publish(to, data)
}

func outcome(d authz.Decision) string {
	if d.Allow {
		return outcomeAllow
	}
	return string(d.Reason)
}
