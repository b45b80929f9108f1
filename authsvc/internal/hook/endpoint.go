package hook

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/proto/app"
)

// complainEvery is the time between two log lines about one endpoint.
const complainEvery = 10 * time.Second

// transport carries requests to one endpoint.
type transport interface {
	// encode gives the request as send wants it.
	encode(req Request) ([]byte, error)
	// send gives the answer's bytes, or a *Failure.
	send(ctx context.Context, kind Kind, body []byte, headers map[string]string) ([]byte, error)
	// decode reads an answer.
	decode(body []byte, out any) error
	close() error
}

// renewer is a transport that can begin anew with another connection.
type renewer interface{ renew() }

// endpoint is a hook of an app as it is set now.
type endpoint struct {
	// immutable after newEndpoint
	name       name
	from       *app.Hook // as it was given: see is
	settings   app.Hook  // with defaults
	generation uint64    // so that other settings find no answers of these
	transport  transport
	slots      chan struct{}
	log        *slog.Logger
	now        func() time.Time
	seconds    prometheus.Observer
	outcomes   map[string]prometheus.Counter
	isOpen     prometheus.Gauge

	waiting atomic.Int64

	mu sync.Mutex
	// guarded by mu
	breaker    breaker
	complained time.Time
	silent     int // complaints that were swallowed since
}

var generations atomic.Uint64

func (c *Client) newEndpoint(key name, settings *app.Hook) *endpoint {
	h := *settings
	if h.Timeout <= 0 {
		h.Timeout = app.DefaultHookTimeout
	}
	if h.Concurrency <= 0 {
		h.Concurrency = app.DefaultHookConcurrency
	}
	return &endpoint{
		name: key, from: settings, settings: h, generation: generations.Add(1), transport: c.transport(&h),
		slots: make(chan struct{}, h.Concurrency), log: c.log, now: c.now,
		seconds: c.metrics.seconds.WithLabelValues(key.app, key.hook), outcomes: c.metrics.of(key),
		isOpen: c.metrics.open.WithLabelValues(key.app, key.hook),
	}
}

func (c *Client) transport(h *app.Hook) transport {
	switch scheme, rest, _ := strings.Cut(h.URL, ":"); scheme {
	case "http", "https":
		return &httpTransport{client: c.http, url: h.URL, statuses: h.Statuses}
	case "grpc", "grpcs":
		return newGRPCTransport(h.URL)
	case "nats":
		return &natsTransport{nc: c.nc, subject: rest}
	}
	return nowhere{}
}

// roundTrip asks within the hook's timeout, the wait for a slot included.
func (e *endpoint) roundTrip(ctx context.Context, call *Call) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, e.settings.Timeout)
	defer cancel()
	if err := e.enter(ctx); err != nil {
		return nil, err
	}
	defer func() { <-e.slots }()
	body, err := e.transport.encode(call.Request)
	if err != nil {
		return nil, &Failure{malformed, err}
	}
	trial, err := e.mayAsk()
	if err != nil {
		return nil, err
	}
	reply, err := e.transport.send(ctx, call.Kind, body, headersOf(call))
	if err != nil && ctx.Err() != nil {
		err = &Failure{timeout, ctx.Err()}
	}
	e.report(err, trial)
	return reply, err
}

// enter waits for a slot; the line is limited.
func (e *endpoint) enter(ctx context.Context) error {
	select {
	case e.slots <- struct{}{}:
		return nil
	default:
	}
	if e.waiting.Add(1) > int64(inLine*cap(e.slots)) {
		e.waiting.Add(-1)
		return &Failure{full, errors.New("too many questions wait for it")}
	}
	defer e.waiting.Add(-1)
	select {
	case e.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &Failure{full, errors.New("its requests under way left no time for another")}
	}
}

func (e *endpoint) mayAsk() (trial bool, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	ok, trial := e.breaker.allow(e.now())
	if !ok {
		return false, &Failure{open, errors.New("it has failed too often, and is not asked for a while")}
	}
	return trial, nil
}

// report tells the breaker. What the endpoint answered, however odd, shows
// that it lives.
func (e *endpoint) report(err error, trial bool) {
	var f *Failure
	down := errors.As(err, &f) && (f.Outcome == timeout || f.Outcome == unreachable || f.Outcome == overloaded)
	e.mu.Lock()
	wasOpen := e.breaker.open()
	e.breaker.result(e.now(), !down, trial)
	isOpen := e.breaker.open()
	if isOpen {
		e.isOpen.Set(1)
	} else {
		e.isOpen.Set(0)
	}
	e.mu.Unlock()
	if r, ok := e.transport.(renewer); ok && isOpen && (!wasOpen || trial) {
		r.renew()
	}
}

func (e *endpoint) decode(body []byte, out Answer) error {
	// A failed try must not leave half an answer.
	fresh := reflect.New(reflect.TypeOf(out).Elem())
	if err := e.transport.decode(body, fresh.Interface()); err != nil {
		return &Failure{malformed, err}
	}
	reflect.ValueOf(out).Elem().Set(fresh.Elem())
	return nil
}

func (e *endpoint) count(outcome string) { e.outcomes[outcome].Inc() }

// complain logs a failure, at most once in complainEvery.
func (e *endpoint) complain(call *Call, f *Failure) {
	e.mu.Lock()
	now := e.now()
	if !e.complained.IsZero() && now.Sub(e.complained) < complainEvery {
		e.silent++
		e.mu.Unlock()
		return
	}
	silent := e.silent
	e.complained, e.silent = now, 0
	e.mu.Unlock()
	e.log.Warn("a hook gave no answer", "app", e.name.app, "hook", e.name.hook, "kind", string(call.Kind),
		"outcome", f.Outcome, "err", f.Err, "not_logged", silent)
}

// keeps says whether answers to questions of that kind are cached.
func (e *endpoint) keeps(kind Kind) bool {
	return e.settings.Cache > 0 && (kind == Connect || kind == Subscribe)
}

// Malformed reports an answer that could be read and makes no sense. It is not
// kept.
func (c *Client) Malformed(call *Call, why error) {
	e := c.endpoint(call)
	if e.keeps(call.Kind) {
		if k, err := e.question(call); err == nil {
			c.answers.drop(k)
		}
	}
	e.count(malformed)
	e.complain(call, &Failure{malformed, why})
}

// decodeJSON reads exactly one JSON value. Its errors never repeat it.
func decodeJSON(body []byte, out any) error {
	var wrongType *json.UnmarshalTypeError
	switch err := json.Unmarshal(body, out); {
	case err == nil && strings.TrimSpace(string(body)) == "null":
		return errors.New("the answer is null, want an object such as {\"result\":{}}")
	case err == nil:
		return nil
	case errors.As(err, &wrongType):
		return errors.New("the answer has a value of the wrong type: field " + wrongType.Field + ", want " + wrongType.Type.String())
	}
	return errors.New("the answer is not JSON, want an object such as {\"result\":{}}")
}

// nowhere is the transport of a hook without an address.
type nowhere struct{}

func (nowhere) encode(Request) ([]byte, error) { return nil, nil }
func (nowhere) send(context.Context, Kind, []byte, map[string]string) ([]byte, error) {
	return nil, &Failure{unreachable, errors.New("the hook has no url here")}
}
func (nowhere) decode([]byte, any) error { return nil }
func (nowhere) close() error             { return nil }
