package centrifugoapi

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/app"
)

// path is where the API is over HTTP: the calls below it, the old form at it.
const path = "/api"

// HTTPConfig of a Handler.
type HTTPConfig struct {
	// BodyMax is the size limit of a request body in bytes.
	BodyMax int64
}

// Handler is the API over HTTP. It may be used by any goroutine.
type Handler struct {
	// immutable after NewHandler
	cfg     HTTPConfig
	core    *Core
	keys    *Keys
	tracer  trace.Tracer
	metrics *metrics
}

// NewHandler returns the API over HTTP.
func NewHandler(cfg HTTPConfig, core *Core, keys *Keys, tracer trace.TracerProvider, reg prometheus.Registerer) *Handler {
	return &Handler{cfg: cfg, core: core, keys: keys, tracer: tracer.Tracer("carillon/api/centrifugo"), metrics: newMetrics(reg, "centrifugo")}
}

// Serves says whether a path is the API's.
func Serves(of string) bool { return of == path || strings.HasPrefix(of, path+"/") }

// response is what is written.
type response struct {
	status int
	body   []byte
	header [2]string // one more, or none
}

// ServeHTTP answers one request: POST /api/<method>, or POST /api with
// commands in lines.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := h.core.deps.Now()
	name := strings.Trim(strings.TrimPrefix(r.URL.Path, path), "/")
	ctx, span := h.tracer.Start(telemetry.ContextWithTraceparent(r.Context(), r.Header.Get("Traceparent")), "centrifugo "+spanName(name),
		trace.WithSpanKind(trace.SpanKindServer))
	out := h.serve(ctx, r, name)
	span.End()
	w.Header().Set("Content-Type", "application/json")
	if out.header[0] != "" {
		w.Header().Set(out.header[0], out.header[1])
	}
	w.WriteHeader(out.status)
	_, _ = w.Write(out.body) // a client that is gone has no use for the error
	h.metrics.done(name, out.status, h.core.deps.Now().Sub(start))
}

// spanName keeps names of spans few.
func spanName(name string) string {
	if _, known := methods[name]; known || name == "batch" {
		return name
	}
	return "api"
}

func (h *Handler) serve(ctx context.Context, r *http.Request, name string) response {
	if name != "" && name != "batch" {
		if _, err := find(name); err != nil && !err.absent {
			return h.refusal(http.StatusNotFound, err)
		}
	}
	if r.Method != http.MethodPost {
		out := h.refusal(http.StatusMethodNotAllowed, refuse(codeBadRequest, "method %s is not allowed here, want POST", r.Method))
		out.header = [2]string{"Allow", http.MethodPost}
		return out
	}
	a := h.keys.App(keyOf(r))
	if a == nil {
		return h.refusal(http.StatusUnauthorized, refuse(codeUnauthorized,
			"unauthorized: send a key of an app's centrifugo.api_keys as X-API-Key: <key>, Authorization: apikey <key>, or ?api_key=<key>"))
	}
	if a.Disabled {
		return h.refusal(http.StatusForbidden, refuse(codePermissionDenied, "permission denied: app %s is disabled", a.ID))
	}
	body, status, err := h.read(r)
	if err != nil {
		return h.refusal(status, err)
	}
	switch name {
	case "":
		return h.lines(ctx, a, body)
	case "batch":
		return h.batch(ctx, r, a, body)
	}
	m, err := find(name)
	if err != nil {
		return h.failure(r, err)
	}
	result, failed := m(ctx, h.core, a, body)
	return h.respond(r, result, failed)
}

// keyOf is the API key of a request, "" if there is none.
func keyOf(r *http.Request) string {
	if key := r.Header.Get("X-API-Key"); key != "" {
		return key
	}
	if key, ok := apiKey(r.Header.Get("Authorization")); ok {
		return key
	}
	if r.URL.RawQuery == "" {
		return ""
	}
	return r.URL.Query().Get("api_key")
}

// apiKey is the key of an Authorization: apikey <key>.
func apiKey(authorization string) (string, bool) {
	scheme, key, ok := strings.Cut(authorization, " ")
	if !ok || !strings.EqualFold(scheme, "apikey") {
		return "", false
	}
	return strings.TrimSpace(key), true
}

// read reads the whole body, of memory of its own.
func (h *Handler) read(r *http.Request) (body []byte, status int, refused *Error) {
	if r.Body == nil {
		return nil, 0, nil
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, h.cfg.BodyMax+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, http.StatusRequestTimeout, badRequest("the body did not arrive in time: %d bytes came", len(body))
	case err != nil:
		return nil, http.StatusBadRequest, badRequest("the body can't be read: %v", err)
	case int64(len(body)) > h.cfg.BodyMax:
		// A client that is still sending when the connection is closed gets a
		// reset in place of the answer.
		_, _ = io.CopyN(io.Discard, r.Body, 2*h.cfg.BodyMax)
		return nil, http.StatusRequestEntityTooLarge, limitExceeded("the body has more than %d bytes", h.cfg.BodyMax)
	}
	return body, 0, nil
}

// respond makes the response of a result or an error.
func (h *Handler) respond(r *http.Request, result any, err error) response {
	var unread *malformed
	if errors.As(err, &unread) {
		return h.refusal(http.StatusBadRequest, badRequest("%v", unread))
	}
	if got := answer(result, err); got.err != nil {
		return h.failure(r, got.err)
	}
	return response{status: http.StatusOK, body: encode(answered{Result: result})}
}

// answered is a reply in JSON: it has one of both.
type answered struct {
	Error  *Error `json:"error,omitempty"`
	Result any    `json:"result,omitempty"`
}

// failure is the response to a call that failed: 200 and what failed, unless
// the caller wants HTTP's own statuses.
func (h *Handler) failure(r *http.Request, err *Error) response {
	h.metrics.failed(err.Code)
	if !strings.EqualFold(r.Header.Get("X-Centrifugo-Error-Mode"), "transport") {
		return response{status: http.StatusOK, body: encode(answered{Error: err})}
	}
	out := response{status: statusOf(err), body: encode(err)}
	if out.status == http.StatusTooManyRequests {
		out.header = [2]string{"Retry-After", strconv.Itoa(max(err.retryAfter, 1))}
	}
	return out
}

// refusal is the response to a request that is none of the API's.
func (h *Handler) refusal(status int, err *Error) response {
	h.metrics.failed(err.Code)
	return response{status: status, body: encode(answered{Error: err})}
}

// statusOf is the HTTP status of an error.
func statusOf(err *Error) int {
	switch {
	case err.absent:
		return http.StatusNotFound
	case err.Code >= codeApplication: // the application's own
		return http.StatusBadRequest
	}
	switch err.Code {
	case codeUnauthorized:
		return http.StatusUnauthorized
	case codePermissionDenied:
		return http.StatusForbidden
	case codeUnknownChannel, codeMethodNotFound:
		return http.StatusNotFound
	case codeLimitExceeded, codeBadRequest, codeNotAvailable:
		return http.StatusBadRequest
	case codeTooManyRequests:
		return http.StatusTooManyRequests
	case codeUnrecoverable:
		return http.StatusRequestedRangeNotSatisfiable
	case codeConflict:
		return http.StatusConflict
	}
	return http.StatusInternalServerError
}

// encode writes v as JSON, application data in it as it came but for white
// space.
func encode(v any) []byte {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil { // a hook that answered something else than JSON
		buf.Reset()
		_ = enc.Encode(answered{Error: refuse(codeInternal, "internal server error: the result can't be written as JSON: %v", err)})
	}
	return bytes.TrimSuffix(buf.Bytes(), []byte("\n"))
}

// line is a command of the old form.
type line struct {
	Method string          `json:"method"`
	Params json.RawMessage `json:"params"`
}

// lines answers commands in lines, with a reply in a line each. All are read
// before the first is done.
func (h *Handler) lines(ctx context.Context, a *app.App, body []byte) response {
	var commands []command
	for dec := json.NewDecoder(bytes.NewReader(body)); ; {
		var l line
		err := dec.Decode(&l)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return h.refusal(http.StatusBadRequest, badRequest(`%v; want lines of {"method": ..., "params": {...}}`, &malformed{err}))
		}
		commands = append(commands, h.command(a, l.Method, l.Params))
	}
	if len(commands) == 0 {
		return h.refusal(http.StatusBadRequest, badRequest(`the body is empty; want lines of {"method": ..., "params": {...}}`))
	}
	replies, err := batch(ctx, commands, false)
	if err != nil {
		return h.refusal(http.StatusBadRequest, err)
	}
	var out bytes.Buffer
	for i := range replies {
		if i > 0 {
			out.WriteByte('\n')
		}
		out.Write(encode(answered{Error: h.counted(replies[i].err), Result: replies[i].result}))
	}
	return response{status: http.StatusOK, body: out.Bytes()}
}

// counted counts an error, if it is one.
func (h *Handler) counted(err *Error) *Error {
	if err != nil {
		h.metrics.failed(err.Code)
	}
	return err
}

func (h *Handler) command(a *app.App, name string, params []byte) command {
	m, err := find(name)
	return func(ctx context.Context) (any, error) {
		if err != nil {
			return nil, err
		}
		return m(ctx, h.core, a, params)
	}
}

// batchRequest is a list of commands, each {"<method>": <params>}.
type batchRequest struct {
	Commands []map[string]json.RawMessage `json:"commands"`
	Parallel bool                         `json:"parallel"`
}

func (h *Handler) batch(ctx context.Context, r *http.Request, a *app.App, body []byte) response {
	var req batchRequest
	if err := json.Unmarshal(body, &req); err != nil {
		return h.respond(r, nil, &malformed{err})
	}
	commands, names := make([]command, len(req.Commands)), make([]string, len(req.Commands))
	for i, one := range req.Commands {
		commands[i], names[i] = h.only(a, one)
	}
	replies, err := batch(ctx, commands, req.Parallel)
	if err != nil {
		return h.failure(r, err)
	}
	list := make([]map[string]any, len(replies))
	for i := range replies {
		if err := h.counted(replies[i].err); err != nil {
			list[i] = map[string]any{"error": err}
			continue
		}
		list[i] = map[string]any{names[i]: replies[i].result}
	}
	return response{status: http.StatusOK, body: encode(map[string]any{"replies": list})}
}

// only gives the one command that there must be.
func (h *Handler) only(a *app.App, of map[string]json.RawMessage) (do command, name string) {
	if len(of) != 1 {
		err := badRequest(`a command has %d methods, want one, such as {"publish": {...}}`, len(of))
		return func(context.Context) (any, error) { return nil, err }, ""
	}
	for n, params := range of {
		do, name = h.command(a, n, params), n
	}
	return do, name
}

var _ http.Handler = (*Handler)(nil)
