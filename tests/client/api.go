package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/proto/signature"
)

const (
	answerMax  = 4 << 20
	retryEvery = 20 * time.Millisecond
)

// API calls the Pusher HTTP API of one app. Its fields are not changed while
// it is used; it may be used by several goroutines.
type API struct {
	Base             string // such as http://127.0.0.1:6001
	App, Key, Secret string
	HTTP             *http.Client // nil: http.DefaultClient
}

// Call is one request, not signed yet.
type Call struct {
	Method string
	Path   string // below /apps/<app>, such as /events
	Query  map[string]string
	Header map[string]string
	Body   []byte
}

// Answer is what came back.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Event is what Trigger publishes.
type Event struct {
	Name     string   `json:"name"`
	Data     string   `json:"data"`
	Channels []string `json:"channels"`
	SocketID string   `json:"socket_id,omitempty"`
	// IdempotencyKey makes a repeat harmless.
	IdempotencyKey string `json:"idempotency_key,omitempty"`
	// Traceparent goes as the header.
	Traceparent string `json:"-"`
}

// Do signs the call, sends it and gives the answer, whatever its status.
func (a API) Do(ctx context.Context, c Call) (Answer, error) {
	path := "/apps/" + a.App + c.Path
	signed := signature.Call{Method: c.Method, Path: path, Params: c.Query, Body: c.Body}
	target := strings.TrimSuffix(a.Base, "/") + path + "?" + signed.SignedQuery(a.Key, a.Secret, time.Now())
	req, err := http.NewRequestWithContext(ctx, c.Method, target, bytes.NewReader(c.Body))
	if err != nil {
		return Answer{}, fmt.Errorf("make request: %w", err)
	}
	if len(c.Body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range c.Header {
		req.Header.Set(name, value)
	}
	httpClient := a.HTTP
	if httpClient == nil {
		httpClient = http.DefaultClient
	}
	res, err := httpClient.Do(req)
	if err != nil {
		return Answer{}, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, answerMax))
	if err != nil {
		return Answer{}, fmt.Errorf("read the answer: %w", err)
	}
	return Answer{Status: res.StatusCode, Header: res.Header, Body: body}, nil
}

// Trigger publishes an event once.
func (a API) Trigger(ctx context.Context, e Event) (Answer, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return Answer{}, err
	}
	c := Call{Method: http.MethodPost, Path: "/events", Body: body}
	if e.Traceparent != "" {
		c.Header = map[string]string{"Traceparent": e.Traceparent}
	}
	return a.Do(ctx, c)
}

// Publish publishes an event and repeats that while the server can't take it
// or can't be reached, until ctx ends. Give the event an idempotency key, or
// it may be there twice. It says how many attempts failed.
func (a API) Publish(ctx context.Context, e Event) (failed int, err error) {
	for {
		answer, err := a.Trigger(ctx, e)
		switch {
		case err == nil && answer.Status == http.StatusOK:
			return failed, nil
		case err == nil && answer.Status < http.StatusInternalServerError:
			return failed, fmt.Errorf("refused for good: %d %s", answer.Status, answer.Body)
		}
		failed++
		select {
		case <-ctx.Done():
			return failed, fmt.Errorf("%w; last answer: %d %s %v", ctx.Err(), answer.Status, answer.Body, err)
		case <-time.After(retryEvery):
		}
	}
}

// MustPublish is Publish within Patience; it fails the test.
func (a API) MustPublish(tb testing.TB, e Event) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), Patience)
	defer cancel()
	if _, err := a.Publish(ctx, e); err != nil {
		tb.Fatalf("publish %s to %v: %v", e.Name, e.Channels, err)
	}
}

// Get reads below /apps/<app> and decodes the answer into out; an answer that
// is not 200 is an error.
func (a API) Get(ctx context.Context, path string, query map[string]string, out any) error {
	answer, err := a.Do(ctx, Call{Method: http.MethodGet, Path: path, Query: query})
	if err != nil {
		return err
	}
	if answer.Status != http.StatusOK {
		return fmt.Errorf("GET %s: %d %s", path, answer.Status, answer.Body)
	}
	if err := json.Unmarshal(answer.Body, out); err != nil {
		return fmt.Errorf("GET %s: %w", path, err)
	}
	return nil
}

// Users lists the members of a presence channel in their order.
func (a API) Users(ctx context.Context, channel string) ([]string, error) {
	var out struct {
		Users []struct {
			ID string `json:"id"`
		} `json:"users"`
	}
	if err := a.Get(ctx, "/channels/"+channel+"/users", nil, &out); err != nil {
		return nil, err
	}
	ids := make([]string, len(out.Users))
	for i, u := range out.Users {
		ids[i] = u.ID
	}
	slices.Sort(ids)
	return ids, nil
}

// Counts are how many subscriptions a channel has and, if it is a presence
// channel, how many users.
type Counts struct {
	Subscriptions int `json:"subscription_count"`
	Users         int `json:"user_count"`
}

// Counts asks for those of one channel.
func (a API) Counts(ctx context.Context, channel string) (c Counts, err error) {
	info := "subscription_count"
	if strings.HasPrefix(channel, "presence-") {
		info += ",user_count"
	}
	err = a.Get(ctx, "/channels/"+channel, map[string]string{"info": info}, &c)
	return c, err
}
