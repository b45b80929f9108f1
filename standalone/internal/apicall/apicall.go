// Package apicall builds and signs calls of the Pusher HTTP API, as an application's backend would. It knows no configuration
// and no server.
package apicall

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/proto/signature"
)

// answerMax is how much of an answer is read, in bytes.
const answerMax = 1 << 20

// Credentials are what a backend signs with.
type Credentials struct {
	App    string // app id
	Key    string
	Secret string
}

// Call is one request, not signed yet. Path begins with a slash.
type Call struct {
	Method string
	Path   string
	Query  map[string]string
	Body   []byte
}

// Event is what Trigger publishes.
type Event struct {
	Name     string   `json:"name"`
	Data     string   `json:"data"`
	Channels []string `json:"channels"`
	// SocketID is the connection that must not receive the event, or "".
	SocketID string `json:"socket_id,omitempty"`
}

// Trigger is the call that publishes an event: POST /apps/<app>/events.
func Trigger(app string, e Event) (Call, error) {
	var body bytes.Buffer
	enc := json.NewEncoder(&body)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(e); err != nil {
		return Call{}, fmt.Errorf("encode event: %w", err)
	}
	return Call{Method: http.MethodPost, Path: "/apps/" + app + "/events", Body: bytes.TrimSuffix(body.Bytes(), []byte("\n"))}, nil
}

// SignedQuery returns the query string of the signed call. The signature is good for 600 s before and after now.
// (Pusher HTTP API, "authentication".)
func (c Call) SignedQuery(cred Credentials, now time.Time) string {
	call := signature.Call{Method: c.Method, Path: c.Path, Params: c.Query, Body: c.Body}
	return call.SignedQuery(cred.Key, cred.Secret, now)
}

// Request makes the signed HTTP request; base is such as http://127.0.0.1:6001.
func (c Call) Request(ctx context.Context, base string, cred Credentials, now time.Time) (*http.Request, error) {
	target := strings.TrimSuffix(base, "/") + c.Path + "?" + c.SignedQuery(cred, now)
	req, err := http.NewRequestWithContext(ctx, c.Method, target, bytes.NewReader(c.Body))
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	if len(c.Body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	return req, nil
}

// Do signs the call, sends it and returns the answer's status and body. Any status is an answer; an error means that there was none.
func (c Call) Do(ctx context.Context, base string, cred Credentials) (status int, body []byte, err error) {
	req, err := c.Request(ctx, base, cred, time.Now())
	if err != nil {
		return 0, nil, err
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, fmt.Errorf("call the API: %w", err)
	}
	defer res.Body.Close()
	body, err = io.ReadAll(io.LimitReader(res.Body, answerMax))
	if err != nil {
		return 0, nil, fmt.Errorf("read the API's answer: %w", err)
	}
	return res.StatusCode, body, nil
}

// Curl is the signed call as a line for a POSIX shell.
func (c Call) Curl(base string, cred Credentials, now time.Time) string {
	line := "curl"
	if c.Method != http.MethodGet && (c.Method != http.MethodPost || len(c.Body) == 0) {
		line += " -X " + c.Method
	}
	if len(c.Body) > 0 {
		line += " -H 'Content-Type: application/json' --data-binary " + shellQuote(string(c.Body))
	}
	return line + " " + shellQuote(strings.TrimSuffix(base, "/")+c.Path+"?"+c.SignedQuery(cred, now))
}

func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
