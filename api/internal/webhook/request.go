package webhook

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/kit/jsonx"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/signature"
)

const (
	dialTimeout = 3 * time.Second
	// answerMax is how much of an answer is read, so that its connection can be used again.
	answerMax = 4 << 10
	// errorMax bounds what is kept of an error's text.
	errorMax = 300
)

// newClient follows no redirects: the signature is for the address that the app configured.
func newClient(cfg Config) *http.Client {
	return &http.Client{
		Timeout: cfg.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
		Transport: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSHandshakeTimeout: dialTimeout,
			MaxIdleConnsPerHost: cfg.Concurrency,
			IdleConnTimeout:     90 * time.Second,
			ForceAttemptHTTP2:   true,
		},
	}
}

// outcome of one request.
type outcome struct {
	err        error         // nil: the endpoint has taken it
	gone       bool          // the app or the webhook is no longer configured
	retryAfter time.Duration // what the endpoint asked for, or 0
}

// endpointID names a webhook of an app by what it is, not by its place in the list. Headers take no part: a corrected one counts
// for what waits.
func endpointID(w *app.Webhook) string {
	sum := sha256.Sum256([]byte(strings.Join(append([]string{w.URL, w.ChannelPrefix, w.ChannelSuffix}, w.Events...), "\x00")))
	return hex.EncodeToString(sum[:8])
}

// find looks an endpoint up in the present configuration.
func (s *Service) find(appID, id string) (*app.App, *app.Webhook) {
	a := s.apps.ByID(appID)
	if a == nil {
		return nil, nil
	}
	for i := range a.Webhooks {
		if endpointID(&a.Webhooks[i]) == id {
			return a, &a.Webhooks[i]
		}
	}
	return a, nil
}

// post makes one request with items. Time and signature are of now: receivers refuse old ones.
func (s *Service) post(ctx context.Context, appID, id string, items []*item) outcome {
	a, w := s.find(appID, id)
	if w == nil {
		return outcome{gone: true}
	}
	start := time.Now()
	l, err := compose(a, w, items, start)
	if err != nil {
		return outcome{err: err}
	}
	defer func() { s.metrics.seconds.Observe(time.Since(start).Seconds()) }()
	if subject, ok := w.Subject(); ok {
		return s.ask(ctx, subject, l)
	}
	request, err := l.request(ctx, w)
	if err != nil {
		return outcome{err: err}
	}
	response, err := s.client.Do(request)
	if err != nil {
		s.metrics.attempts["error"].Inc()
		return outcome{err: shorten(err)}
	}
	defer response.Body.Close()
	_, _ = io.CopyN(io.Discard, response.Body, answerMax)
	s.metrics.attempts[class(response.StatusCode)].Inc()
	return judge(response, start)
}

// class is the metric label of a status.
func class(status int) string {
	switch status / 100 {
	case 2:
		return "2xx"
	case 3:
		return "3xx"
	case 4:
		return "4xx"
	}
	return "5xx"
}

// judge says what a response means: 2xx is taken, everything else is not.
func judge(response *http.Response, now time.Time) outcome {
	switch class(response.StatusCode) {
	case "2xx":
		return outcome{}
	case "3xx":
		return outcome{err: fmt.Errorf("answered %s: redirects are not followed, configure the address that they lead to", response.Status)}
	}
	return outcome{err: fmt.Errorf("answered %s", response.Status), retryAfter: retryAfter(response.Header.Get("Retry-After"), now)}
}

// retryAfter reads seconds or a date (RFC 9110 10.2.3), 0 if it is neither or over.
func retryAfter(value string, now time.Time) time.Duration {
	if seconds, err := strconv.Atoi(value); err == nil {
		return time.Duration(min(max(seconds, 0), 3600)) * time.Second
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0
	}
	return min(max(at.Sub(now), 0), time.Hour)
}

// shorten drops the address from an error: it may hold the app's secrets.
func shorten(err error) error {
	inner := errors.Unwrap(err) // net/http's error begins with method and address
	if inner == nil {
		inner = err
	}
	text := inner.Error()
	if len(text) > errorMax {
		text = text[:errorMax]
	}
	return errors.New(strings.ToValidUTF8(text, ""))
}

// letter is what an endpoint is told, however that gets there.
type letter struct {
	header http.Header
	host   string // instead of the address's, or ""
	body   []byte
}

// compose builds and signs. (Pusher webhooks: the content type has no charset, the key is the app's.)
func compose(a *app.App, w *app.Webhook, items []*item, now time.Time) (*letter, error) {
	key, ok := firstKey(a)
	if !ok {
		return nil, fmt.Errorf("app %s has no enabled key to sign with", a.ID)
	}
	l := &letter{header: http.Header{"User-Agent": {"carillon-webhook"}}, body: encode(items, now)}
	for name, value := range w.Headers {
		if strings.EqualFold(name, "Host") {
			l.host = value
			continue
		}
		l.header.Set(name, value)
	}
	l.header.Set("Content-Type", "application/json")
	l.header.Set("X-Pusher-Key", key.Key)
	l.header.Set("X-Pusher-Signature", signature.Sign(key.Secret, string(l.body)))
	return l, nil
}

func (l *letter) request(ctx context.Context, w *app.Webhook) (*http.Request, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.URL, bytes.NewReader(l.body))
	if err != nil {
		return nil, shorten(err)
	}
	request.Header, request.Host = l.header, cmp.Or(l.host, request.Host)
	return request, nil
}

// serviceError is a header that services of the NATS clients' micro package set when they fail.
const serviceError = "Nats-Service-Error-Code"

// ask tells an endpoint over NATS. Its reply says that it has taken the events, unless it is JSON with an error or a service's.
func (s *Service) ask(ctx context.Context, subject string, l *letter) outcome {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Timeout)
	defer cancel()
	reply, err := s.nc.RequestMsgWithContext(ctx, &nats.Msg{Subject: subject, Header: nats.Header(l.header), Data: l.body})
	if err != nil {
		s.metrics.attempts["error"].Inc()
		return outcome{err: shorten(err)}
	}
	var said struct{ Error json.RawMessage }
	if reply.Header.Get(serviceError) != "" || json.Unmarshal(reply.Data, &said) == nil && len(said.Error) > 0 && string(said.Error) != "null" {
		s.metrics.attempts["refused"].Inc()
		return outcome{err: errors.New("answered with an error")}
	}
	s.metrics.attempts["taken"].Inc()
	return outcome{}
}

func firstKey(a *app.App) (app.Key, bool) {
	for _, k := range a.Keys {
		if !k.Disabled {
			return k, true
		}
	}
	return app.Key{}, false
}

// encode is the body: the time of this attempt and the events, with the members that Pusher's have.
func encode(items []*item, now time.Time) []byte {
	body := append(make([]byte, 0, 256), `{"time_ms":`...)
	body = strconv.AppendInt(body, now.UnixMilli(), 10)
	body = append(body, `,"events":[`...)
	for i, it := range items {
		if i > 0 {
			body = append(body, ',')
		}
		body = appendEvent(body, &it.event)
	}
	return append(body, "]}"...)
}

func appendEvent(body []byte, ev *hook.Event) []byte {
	member := func(name, value string) {
		body = append(body, `,"`...)
		body = append(body, name...)
		body = append(body, `":`...)
		body = jsonx.AppendString(body, value)
	}
	body = append(body, `{"name":`...)
	body = jsonx.AppendString(body, ev.Name)
	if ev.Channel != "" {
		member("channel", ev.Channel)
	}
	if ev.Name == hook.ClientEvent {
		member("event", ev.Event)
		member("data", ev.Data)
		member("socket_id", ev.SocketID)
	}
	if ev.UserID != "" {
		member("user_id", ev.UserID)
	}
	switch ev.Name {
	case hook.Connected, hook.Disconnected, hook.Unsubscribed:
		if ev.SocketID != "" {
			member("socket_id", ev.SocketID)
		}
		if ev.Name != hook.Connected {
			body = strconv.AppendInt(append(body, `,"code":`...), int64(ev.Code), 10)
			member("reason", ev.Reason)
		}
		body = strconv.AppendInt(append(body, `,"time_ms":`...), ev.TimeMs, 10)
	}
	if ev.SubscriptionCount != nil {
		body = append(body, `,"subscription_count":`...)
		body = strconv.AppendInt(body, int64(*ev.SubscriptionCount), 10)
	}
	return append(body, '}')
}
