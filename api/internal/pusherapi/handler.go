// Package pusherapi serves the HTTP API of Pusher Channels: triggers, channel and user reads, terminating a user's connections. It owns
// that API's wire format, authentication and errors; it knows nothing of how publications are stored or presence is kept.
package pusherapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/carillon-rt/carillon/api/internal/fleet"
	"github.com/carillon-rt/carillon/api/internal/occupancy"
	"github.com/carillon-rt/carillon/api/internal/publish"
	"github.com/carillon-rt/carillon/api/internal/rate"
	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/app"
)

// Config of a Handler.
type Config struct {
	// PathPrefix is a path that a proxy in front adds or strips, such as "/pusher"; "" for none.
	PathPrefix string
	// BodyMax is the size limit of a request body in bytes.
	BodyMax int64
}

// Deps are what a Handler works with.
type Deps struct {
	Apps    *app.Registry // with secrets
	Publish *publish.Path
	Reader  *occupancy.Reader
	Rates   *rate.Limits
	Fleet   *fleet.Fleet // takes commands to the gateways
	Ready   func() error // nil while requests can be served
	Log     *slog.Logger
	Metrics prometheus.Registerer
	Tracer  trace.TracerProvider
	Now     func() time.Time
}

// Handler is the API. It may be used by any goroutine.
type Handler struct {
	// immutable after New
	cfg     Config
	deps    Deps
	auth    authenticator
	metrics *metrics
	tracer  trace.Tracer
	tracing bool

	// atomic
	saidRawData atomic.Bool
}

// New returns the API.
func New(cfg Config, deps Deps) *Handler {
	cfg.PathPrefix = strings.TrimSuffix(cfg.PathPrefix, "/")
	_, off := deps.Tracer.(noop.TracerProvider)
	return &Handler{
		cfg: cfg, deps: deps, metrics: newMetrics(deps.Metrics),
		auth:    authenticator{apps: deps.Apps, prefix: cfg.PathPrefix, now: deps.Now},
		tracer:  deps.Tracer.Tracer("carillon/api/pusher"),
		tracing: !off,
	}
}

// call is one authenticated request.
type call struct {
	target
	app   *app.App
	query params
	body  []byte
	trace string // W3C traceparent for publications, or ""
	key   string // idempotency key from the header, or ""
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := h.deps.Now()
	path := rawPath(r)
	routed := path
	if rest, ok := strings.CutPrefix(path, h.cfg.PathPrefix); ok && strings.HasPrefix(rest, "/") {
		routed = rest
	}
	t := parsePath(routed)
	ctx, traceparent, end := h.span(r, t.route)
	ans := h.serve(ctx, r, path, t, traceparent)
	ans.write(w)
	end(ans.status)
	h.metrics.done(t.route, ans.status, h.deps.Now().Sub(start))
}

// serve routes, authenticates and answers.
func (h *Handler) serve(ctx context.Context, r *http.Request, path string, t target, traceparent string) answer {
	if t.route == routeNone {
		return failure(http.StatusNotFound, "there is no "+path)
	}
	if want := t.route.method(); r.Method != want {
		ans := failure(http.StatusMethodNotAllowed, "method "+r.Method+" is not allowed here, want "+want)
		ans.allow = want
		return ans
	}
	switch t.route {
	case routeUp:
		return answer{status: http.StatusOK, body: emptyObject}
	case routeReady:
		return h.ready()
	}
	c, err := h.authenticate(r, path, t)
	if err != nil {
		return h.failed(ctx, err)
	}
	c.trace = traceparent
	ans, err := h.dispatch(ctx, c)
	if err != nil {
		return h.failed(ctx, err)
	}
	return ans
}

func (h *Handler) ready() answer {
	if err := h.deps.Ready(); err != nil {
		return failure(http.StatusServiceUnavailable, err.Error())
	}
	return answer{status: http.StatusOK, body: emptyObject}
}

// authenticate checks everything but the body before it reads the body.
func (h *Handler) authenticate(r *http.Request, path string, t target) (*call, error) {
	query, ok := parseQuery(r.URL.RawQuery)
	if !ok {
		return nil, refuse(http.StatusBadRequest, "the query has more than %d parameters", paramsMax)
	}
	a, err := h.auth.app(t, query)
	if err != nil {
		return nil, err
	}
	if err := h.auth.check(a, r.Method, path, query); err != nil {
		return nil, err
	}
	body, err := h.readBody(r)
	if err != nil {
		return nil, err
	}
	if err := checkBody(query, body); err != nil {
		return nil, err
	}
	return &call{target: t, app: a, query: query, body: body, key: idempotencyKey(r.Header)}, nil
}

// readBody reads the whole body into a buffer of its own: publications alias it for longer than the request may last.
func (h *Handler) readBody(r *http.Request) ([]byte, error) {
	if r.ContentLength == 0 || r.Body == nil {
		return nil, nil
	}
	if r.ContentLength > h.cfg.BodyMax {
		discard(r.Body)
		return nil, refuse(http.StatusRequestEntityTooLarge, "the body has %d bytes, at most %d are allowed", r.ContentLength, h.cfg.BodyMax)
	}
	if r.ContentLength > 0 {
		body := make([]byte, r.ContentLength)
		if n, err := io.ReadFull(r.Body, body); err != nil {
			return nil, unread(err, fmt.Sprintf("%d of %d bytes", n, r.ContentLength))
		}
		return body, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, h.cfg.BodyMax+1))
	if err != nil {
		return nil, unread(err, fmt.Sprintf("%d bytes", len(body)))
	}
	if int64(len(body)) > h.cfg.BodyMax {
		discard(r.Body)
		return nil, refuse(http.StatusRequestEntityTooLarge, "the body has more than %d bytes", h.cfg.BodyMax)
	}
	return body, nil
}

// discardMax is how much of a body that is too large is read all the same.
const discardMax = 4 << 20

// discard reads on for a while: a client that is still sending when the
// connection is closed gets a reset in place of the answer.
func discard(body io.Reader) { _, _ = io.CopyN(io.Discard, body, discardMax) }

// unread refuses a body of which only a part came.
func unread(err error, came string) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return refuse(http.StatusRequestTimeout, "the body did not arrive in time: %s came", came)
	}
	return refuse(http.StatusBadRequest, "the body can't be read beyond %s: %v", came, err)
}

func (h *Handler) dispatch(ctx context.Context, c *call) (answer, error) {
	switch c.route {
	case routeEvents:
		return h.trigger(ctx, c)
	case routeBatch:
		return h.batch(ctx, c)
	case routeChannelEvents:
		return h.triggerChannel(ctx, c)
	case routeChannels:
		return h.channels(ctx, c)
	case routeChannel:
		return h.channel(ctx, c)
	case routeUsers:
		return h.users(ctx, c)
	case routeTerminate:
		return h.terminate(ctx, c)
	}
	return answer{}, refuse(http.StatusNotFound, "there is no such call")
}

// idempotencyKey is that of the whole request: X-Idempotency-Key as Pusher's libraries send it, or the header of
// draft-ietf-httpapi-idempotency-key-header, whose value is a quoted string.
func idempotencyKey(h http.Header) string {
	if key := h.Get("X-Idempotency-Key"); key != "" {
		return key
	}
	return strings.Trim(h.Get("Idempotency-Key"), `"`)
}

// failed makes an answer of an error, which is handled here and nowhere else.
func (h *Handler) failed(ctx context.Context, err error) answer {
	var r *refusal
	switch {
	case errors.As(err, &r):
		ans := failure(r.status, err.Error())
		ans.retryAfter = r.retryAfter
		return ans
	case errors.Is(err, publish.ErrTooLarge):
		return failure(http.StatusRequestEntityTooLarge, err.Error())
	case errors.Is(err, publish.ErrConflict):
		return failure(http.StatusConflict, err.Error())
	case errors.Is(err, publish.ErrInvalid):
		return failure(http.StatusBadRequest, err.Error())
	case unavailable(err):
		return failure(http.StatusServiceUnavailable, err.Error())
	}
	h.deps.Log.ErrorContext(ctx, "Pusher API call failed", "err", err)
	return failure(http.StatusInternalServerError, "internal error")
}

// span starts a server span when tracing is on. It returns the traceparent that publications carry: the span's when that is
// sampled, else the caller's.
func (h *Handler) span(r *http.Request, rt route) (ctx context.Context, traceparent string, end func(status int)) {
	header := r.Header.Get("Traceparent")
	if !h.tracing {
		if !telemetry.Sampled(header) {
			header = ""
		}
		return r.Context(), header, func(int) {}
	}
	ctx, span := h.tracer.Start(telemetry.ContextWithTraceparent(r.Context(), header), spanNames[rt],
		trace.WithSpanKind(trace.SpanKindServer))
	if traceparent = telemetry.Traceparent(ctx); !telemetry.Sampled(traceparent) {
		traceparent = ""
	}
	return ctx, traceparent, func(status int) { endSpan(span, status) }
}
