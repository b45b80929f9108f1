package webhook

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sort"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/subject"
)

const (
	buryTimeout = 5 * time.Second
	// ReplayMax bounds the events of one replay.
	ReplayMax     = 10_000
	replayTimeout = time.Minute
)

// bury stores an event that no attempt could deliver, with the reason.
func (s *Service) bury(ctx context.Context, appID, endpoint string, it *item) error {
	ctx, cancel := context.WithTimeout(ctx, buryTimeout)
	defer cancel()
	s.mu.Lock()
	data := it.held.msg.Data()
	s.mu.Unlock()
	msg := &nats.Msg{Subject: subject.DeadHook(appID), Data: data, Header: nats.Header{
		hook.EndpointHeader: {endpoint}, hook.ErrorHeader: {it.last}, hook.AttemptsHeader: {strconv.Itoa(it.attempts)},
	}}
	id := fmt.Sprintf("dead-%s-%d-%d", endpoint, it.held.at.seq, it.event.TimeMs)
	if _, err := s.js.PublishMsg(ctx, msg, jetstream.WithMsgID(id)); err != nil {
		return fmt.Errorf("publish to %s: %w", msg.Subject, err)
	}
	s.log.Warn("webhook event is given up; it can be replayed", "app", appID, "endpoint", endpoint, "event", it.event.Name,
		"attempts", it.attempts, "err", it.last)
	return nil
}

// Replay puts dead events back into the work queue, the oldest first: those of one app, or of all for "". At most limit events
// (ReplayMax if that is 0 or more), and none that died since it began. An event goes to the endpoint that it died for, or, if that
// is no longer configured, to all that want it. It returns how many went back, also with an error.
func (s *Service) Replay(ctx context.Context, appID string, limit int) (int, error) {
	if limit <= 0 || limit > ReplayMax {
		limit = ReplayMax
	}
	stream, err := s.js.Stream(ctx, subject.DeadHookStream)
	if err != nil {
		return 0, fmt.Errorf("replay webhooks: %w", err)
	}
	filter, last := subject.AllDeadHooks, stream.CachedInfo().State.LastSeq
	if appID != "" {
		filter = subject.DeadHook(appID)
	}
	n, seq := 0, uint64(1)
	for ; n < limit; n++ {
		raw, err := stream.GetMsg(ctx, seq, jetstream.WithGetMsgSubject(filter))
		if errors.Is(err, jetstream.ErrMsgNotFound) {
			break
		}
		if err != nil {
			return n, fmt.Errorf("replay webhooks: read dead event: %w", err)
		}
		if raw.Sequence > last {
			break
		}
		if err := s.revive(ctx, stream, raw); err != nil {
			return n, fmt.Errorf("replay webhooks: %w", err)
		}
		seq = raw.Sequence + 1
	}
	return n, nil
}

// revive queues a dead event again, then removes it. The message id makes a repeat after a failure between the two harmless.
func (s *Service) revive(ctx context.Context, stream jetstream.Stream, raw *jetstream.RawStreamMsg) error {
	msg := &nats.Msg{
		Subject: subject.Hook(subject.DeadHookApp(raw.Subject)), Data: raw.Data,
		Header: nats.Header{hook.EndpointHeader: {raw.Header.Get(hook.EndpointHeader)}},
	}
	id := fmt.Sprintf("replay-%d-%d", raw.Sequence, raw.Time.UnixNano())
	if _, err := s.js.PublishMsg(ctx, msg, jetstream.WithMsgID(id)); err != nil {
		return fmt.Errorf("publish to %s: %w", msg.Subject, err)
	}
	if err := stream.DeleteMsg(ctx, raw.Sequence); err != nil {
		return fmt.Errorf("remove dead event %d: %w", raw.Sequence, err)
	}
	return nil
}

// ReplayPage is Replay for operators: POST ?app=ID&limit=N on the ops port.
func (s *Service) ReplayPage() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			w.Header().Set("Allow", http.MethodPost)
			http.Error(w, "POST ?app=ID&limit=N puts dead webhook events back into the queue", http.StatusMethodNotAllowed)
			return
		}
		limit := 0
		if text := r.URL.Query().Get("limit"); text != "" {
			n, err := strconv.Atoi(text)
			if err != nil || n < 1 {
				http.Error(w, fmt.Sprintf("limit is %q, want a number from 1 to %d", text, ReplayMax), http.StatusBadRequest)
				return
			}
			limit = n
		}
		ctx, cancel := context.WithTimeout(r.Context(), replayTimeout)
		defer cancel()
		n, err := s.Replay(ctx, r.URL.Query().Get("app"), limit)
		if err != nil {
			http.Error(w, fmt.Sprintf("replayed %d, then: %v", n, err), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintf(w, "replayed %d\n", n)
	})
}

// Page lists the endpoints that have events on this node.
func (s *Service) Page() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		s.mu.Lock()
		lines := make([]string, 0, len(s.endpoints))
		for key, e := range s.endpoints {
			lines = append(lines, key+"\t"+e.describe())
		}
		n := len(s.held)
		s.mu.Unlock()
		sort.Strings(lines)
		fmt.Fprintf(w, "events taken and not done: %d\napp/endpoint\twaiting\tunder way\tto bury\tfailures in a row\tlast error\n", n)
		for _, line := range lines {
			fmt.Fprintln(w, line)
		}
	})
}

func (e *endpoint) describe() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	b := &e.backlog
	return fmt.Sprintf("%d\t%d\t%d\t%d\t%s", len(b.waiting), b.running, len(b.dead), b.failures, b.lastErr)
}
