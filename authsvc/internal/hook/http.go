package hook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/carillon-rt/carillon/proto/app"
)

// newHTTPClient makes the client of all hooks. It follows no redirects: where
// to is not the hook's to say.
func newHTTPClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true,
			MaxIdleConnsPerHost: 128, IdleConnTimeout: 60 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
			// A connection to a machine that is gone without a word is noticed by these.
			HTTP2: &http.HTTP2Config{SendPingTimeout: 5 * time.Second, PingTimeout: 2 * time.Second},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// httpTransport posts JSON.
type httpTransport struct {
	client   *http.Client
	url      string
	statuses []app.StatusAnswer
}

func (t *httpTransport) encode(req Request) ([]byte, error) { return encodeJSON(req) }
func (t *httpTransport) decode(body []byte, out any) error  { return decodeJSON(body, out) }
func (t *httpTransport) close() error                       { return nil }

func (t *httpTransport) send(ctx context.Context, kind Kind, body []byte, headers map[string]string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, t.url, bytes.NewReader(body))
	if err != nil {
		return nil, &Failure{unreachable, errors.New("its url is none")}
	}
	req.Header.Set("User-Agent", "carillon")
	for name, value := range headers {
		req.Header.Set(name, value)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Carillon-Hook", string(kind))
	resp, err := t.client.Do(req)
	if err != nil {
		return nil, &Failure{unreachable, withoutURL(err)}
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, answerBytesMax+1))
	meant := slices.IndexFunc(t.statuses, func(s app.StatusAnswer) bool { return s.Status == resp.StatusCode })
	switch {
	case meant >= 0:
		return asAnswer(&t.statuses[meant])
	case resp.StatusCode == http.StatusTooManyRequests || resp.StatusCode >= 500:
		return nil, &Failure{overloaded, errors.New("it answered " + resp.Status)}
	case resp.StatusCode != http.StatusOK:
		return nil, &Failure{status, errors.New("it answered " + resp.Status + ", want 200")}
	case err != nil:
		return nil, &Failure{unreachable, fmt.Errorf("its answer broke off: %w", err)}
	case len(data) > answerBytesMax:
		return nil, &Failure{malformed, fmt.Errorf("its answer has more than %d bytes", answerBytesMax)}
	}
	return data, nil
}

// withoutURL drops the address, which may hold a credential.
func withoutURL(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

// encodeJSON leaves <, > and & as they are in what belongs to the application.
func encodeJSON(req Request) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(req); err != nil {
		return nil, errors.New("what the client sent can't be written as JSON")
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// asAnswer writes the answer that a status stands for.
func asAnswer(s *app.StatusAnswer) ([]byte, error) {
	var r Response[struct{}]
	if s.Disconnect {
		r.Disconnect = &Disconnect{Code: s.Code, Reason: s.Text}
	} else {
		r.Error = &Error{Code: s.Code, Message: s.Text, Temporary: s.Temporary}
	}
	return json.Marshal(r)
}
