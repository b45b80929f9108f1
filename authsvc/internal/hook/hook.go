// Package hook asks the application before something happens: over HTTP, gRPC
// (Centrifugo's proxy protocol) or NATS. It owns the endpoints with their
// limits, breakers and cached answers; what an answer means is decided by who
// asks.
package hook

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"reflect"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
)

const (
	// answerBytesMax is the length of the longest answer that is read.
	answerBytesMax = 1 << 20
	// inLine is how many questions may wait for each one that is asked.
	inLine = 16
)

// Call is one question.
type Call struct {
	App     string
	Hook    *app.Hook
	Kind    Kind
	Client  *authz.Client // for forwarded headers
	Request Request
}

// Client asks hooks. It has no goroutine of its own between calls.
type Client struct {
	// immutable after New
	http    *http.Client
	nc      *nats.Conn // nil: hooks at nats: can't be asked
	log     *slog.Logger
	now     func() time.Time
	metrics *metrics
	answers *answers
	flights singleflight.Group

	mu sync.RWMutex
	// guarded by mu
	endpoints map[name]*endpoint
}

type name struct{ app, hook string }

// New makes a client; nc may be nil.
func New(nc *nats.Conn, log *slog.Logger, reg prometheus.Registerer, now func() time.Time) *Client {
	return &Client{
		http: newHTTPClient(), nc: nc, log: log, now: now, metrics: newMetrics(reg), answers: newAnswers(),
		endpoints: map[name]*endpoint{},
	}
}

// Close lets go of the connections; calls under way fail.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	var errs []error
	for _, e := range c.endpoints {
		errs = append(errs, e.transport.close())
	}
	clear(c.endpoints)
	c.http.CloseIdleConnections()
	return errors.Join(errs...)
}

// Failure is why there is no answer. Its text is for operators and must not
// reach clients.
type Failure struct {
	Outcome string // one of the outcomes below
	Err     error
}

func (f *Failure) Error() string { return f.Outcome + ": " + f.Err.Error() }
func (f *Failure) Unwrap() error { return f.Err }

// Ask asks and reads the answer into out, a *Response[XResult]. An error is a
// *Failure: it has been logged and counted.
func (c *Client) Ask(ctx context.Context, call *Call, out Answer) error {
	e := c.endpoint(call)
	began := c.now()
	err := c.ask(ctx, e, call, out)
	e.seconds.Observe(c.now().Sub(began).Seconds())
	if err == nil {
		e.count(outcomeOf(out))
		return nil
	}
	var f *Failure
	if !errors.As(err, &f) {
		f = &Failure{unreachable, err}
	}
	e.count(f.Outcome)
	e.complain(call, f)
	return f
}

// Answer is a *Response.
type Answer interface {
	Verdict() *authz.Verdict
	// goodUntil is when the first of what it gives expires, in Unix seconds; 0
	// is never.
	goodUntil() int64
}

func (c *Client) ask(ctx context.Context, e *endpoint, call *Call, out Answer) error {
	kept := e.keeps(call.Kind)
	if !kept && call.Kind != CacheEmpty {
		body, err := e.roundTrip(ctx, call)
		if err != nil {
			return err
		}
		return e.decode(body, out)
	}
	k, err := e.question(call)
	if err != nil {
		return err
	}
	if body, ok := c.answers.get(k, c.now()); ok {
		e.count(fromCache)
		return e.decode(body, out)
	}
	// A crowd's questions about one channel are one, too.
	done := c.flights.DoChan(string(k[:]), func() (any, error) {
		return e.roundTrip(context.WithoutCancel(ctx), call) // others wait for it, too
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return r.Err
		}
		body := r.Val.([]byte)
		if err := e.decode(body, out); err != nil {
			return err
		}
		if v := out.Verdict(); kept && (v == nil || !v.Temporary) {
			c.keep(k, e, body, out)
		}
		return nil
	case <-ctx.Done():
		return &Failure{timeout, ctx.Err()}
	}
}

// keep caches an answer, for no longer than what it gives.
func (c *Client) keep(k key, e *endpoint, body []byte, out Answer) {
	until := c.now().Add(e.settings.Cache)
	if at := out.goodUntil(); at > 0 && at < until.Unix() {
		until = time.Unix(at, 0)
	}
	c.answers.keep(k, body, until)
}

// endpoint finds the endpoint of a call's hook. Settings that have changed
// make a new one.
func (c *Client) endpoint(call *Call) *endpoint {
	of := name{call.App, call.Hook.Name}
	c.mu.RLock()
	e := c.endpoints[of]
	c.mu.RUnlock()
	if e != nil && e.is(call.Hook) {
		return e
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e = c.endpoints[of]; e != nil && e.is(call.Hook) {
		return e
	}
	if e != nil {
		if err := e.transport.close(); err != nil {
			c.log.Warn("close a hook whose settings have changed", "app", of.app, "hook", of.hook, "err", err)
		}
	}
	e = c.newEndpoint(of, call.Hook)
	c.endpoints[of] = e
	return e
}

// question names what a call asks: which connection it is about is left out.
func (e *endpoint) question(call *Call) (sum key, err error) {
	from := call.Request.from()
	client, transport := from.Client, from.Transport
	from.Client, from.Transport = "", ""
	body, err := e.transport.encode(call.Request)
	from.Client, from.Transport = client, transport
	if err != nil {
		return sum, &Failure{malformed, err}
	}
	headers, err := json.Marshal(headersOf(call))
	if err != nil {
		return sum, &Failure{malformed, err}
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q %q %q %d %d ", e.name.app, e.name.hook, call.Kind, len(body), e.generation)
	h.Write(body)
	h.Write(headers)
	return key(h.Sum(nil)), nil
}

// is says whether the endpoint was made for these settings.
func (e *endpoint) is(h *app.Hook) bool {
	return e.from == h || reflect.DeepEqual(*e.from, *h)
}
