package webhook

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/proto/signature"
)

// call is one request that a receiver got.
type call struct {
	header http.Header
	body   string
	TimeMs int64 `json:"time_ms"`
	Events []map[string]any
}

func (c call) channels() string {
	var all []string
	for _, ev := range c.Events {
		all = append(all, fmt.Sprint(ev["channel"]))
	}
	return strings.Join(all, ",")
}

// receiver is an application's endpoint; it checks what every request must have.
type receiver struct {
	*httptest.Server
	t *testing.T

	mu sync.Mutex
	// guarded by mu
	calls  []call
	answer func(n int, w http.ResponseWriter) // n is the number of the request, from 1
}

func newReceiver(t *testing.T, answer func(n int, w http.ResponseWriter)) *receiver {
	r := &receiver{t: t, answer: answer}
	r.Server = httptest.NewServer(r)
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, _ := io.ReadAll(req.Body)
	c := call{header: req.Header, body: string(body)}
	if err := json.Unmarshal(body, &c); err != nil {
		r.t.Errorf("body %s: %v", body, err)
	}
	if got := req.Header.Values("Content-Type"); len(got) != 1 || got[0] != "application/json" {
		r.t.Errorf("Content-Type is %q", got)
	}
	if req.Header.Get("X-Pusher-Key") != "key" || !signature.Verify("secret", string(body), req.Header.Get("X-Pusher-Signature")) {
		r.t.Errorf("signature %q of key %q is wrong", req.Header.Get("X-Pusher-Signature"), req.Header.Get("X-Pusher-Key"))
	}
	if age := time.Since(time.UnixMilli(c.TimeMs)); age < -time.Second || age > 5*time.Second {
		r.t.Errorf("time_ms is %s old", age)
	}
	r.mu.Lock()
	r.calls = append(r.calls, c)
	n, answer := len(r.calls), r.answer
	r.mu.Unlock()
	if answer != nil {
		answer(n, w)
	}
}

func (r *receiver) got() []call {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.calls)
}

// seen counts how often each channel was told of.
func (r *receiver) seen() map[string]int {
	out := map[string]int{}
	for _, c := range r.got() {
		for _, ev := range c.Events {
			out[fmt.Sprint(ev["channel"])]++
		}
	}
	return out
}
