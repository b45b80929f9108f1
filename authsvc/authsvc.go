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
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/authsvc/internal/decide"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/subject"
)

// drainTimeout bounds how long Run waits for the last requests when it stops.
const drainTimeout = 5 * time.Second

// Service answers authorization requests.
//
//	car.auth.subscribe (queue group) ─┐
//	                                  ├─> requests ─> workers ─> decide ─> reply
//	car.auth.signin    (queue group) ─┘
type Service struct {
	// immutable after New
	cfg      Config
	nc       *nats.Conn
	log      *slog.Logger
	metrics  *metrics
	requests chan *nats.Msg
	answer   map[string]endpoint // by subject
}

// endpoint turns a request's bytes into a decision; ok is false for a
// malformed request.
type endpoint struct {
	decide  func(data []byte) (d authz.Decision, ok bool)
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
	s := &Service{
		cfg: cfg, nc: deps.NATS.Req, log: deps.Log, metrics: newMetrics(deps.Metrics),
		requests: make(chan *nats.Msg, cfg.Queue),
	}
	s.answer = map[string]endpoint{
		subject.AuthSubscribe: {metrics: s.metrics.endpoint("subscribe"), decide: func(data []byte) (authz.Decision, bool) {
			var req authz.Subscribe
			if err := json.Unmarshal(data, &req); err != nil {
				return malformed(err), false
			}
			return decide.Subscribe(apps, &req), true
		}},
		subject.AuthSignIn: {metrics: s.metrics.endpoint("signin"), decide: func(data []byte) (authz.Decision, bool) {
			var req authz.SignIn
			if err := json.Unmarshal(data, &req); err != nil {
				return malformed(err), false
			}
			return decide.SignIn(apps, &req), true
		}},
	}
	return s, nil
}

func malformed(err error) authz.Decision {
	return authz.Refuse(authz.BadData, "the authorization request is not the JSON that it should be: "+err.Error())
}

// Run answers requests until ctx ends; then it takes no new ones, answers
// those that have arrived, and returns.
func (s *Service) Run(ctx context.Context) error {
	var workers sync.WaitGroup
	for range s.cfg.workers() {
		workers.Go(s.work)
	}
	subs, err := s.subscribe()
	if err == nil {
		<-ctx.Done()
	}
	err = errors.Join(err, s.drain(subs))
	close(s.requests)
	workers.Wait()
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

func (s *Service) work() {
	for msg := range s.requests {
		e := s.answer[msg.Subject]
		if e.decide == nil || msg.Reply == "" {
			continue // nobody waits for an answer
		}
		start := time.Now()
		decision, ok := e.decide(msg.Data)
		if err := s.reply(msg.Reply, decision); err != nil {
			s.metrics.lost.Inc()
			s.log.Warn("answer lost", "subject", msg.Subject, "err", err)
		}
		e.metrics.seconds.Observe(time.Since(start).Seconds())
		e.metrics.outcomes[outcome(decision, ok)].Inc()
	}
}

func (s *Service) reply(to string, d authz.Decision) error {
	data, err := json.Marshal(d)
	if err != nil {
		return fmt.Errorf("encode decision: %w", err)
	}
	return s.nc.Publish(to, data)
}

func outcome(d authz.Decision, ok bool) string {
	switch {
	case !ok:
		return outcomeMalformed
	case d.Allow:
		return outcomeAllow
	}
	return string(d.Reason)
}
