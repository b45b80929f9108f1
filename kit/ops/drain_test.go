package ops_test

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/kit/ops"
)

// askDrain sends a request to /drain; it may be called on any goroutine.
func askDrain(s *ops.Server, method, origin string) (status int, body string, err error) {
	req, err := http.NewRequest(method, "http://"+s.Addr()+"/drain", nil)
	if err != nil {
		return 0, "", err
	}
	if origin != "" {
		req.Header.Set("Origin", origin)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(raw), err
}

func TestDrainRefused(t *testing.T) {
	s := start(t)
	for _, tt := range []struct {
		name, method, origin string
		status               int
	}{
		{"a look", http.MethodGet, "", http.StatusMethodNotAllowed},
		{"a page of a browser", http.MethodPost, "https://elsewhere.example", http.StatusForbidden},
	} {
		t.Run(tt.name, func(t *testing.T) {
			status, body, err := askDrain(s, tt.method, tt.origin)
			if err != nil || status != tt.status {
				t.Errorf("answered %d %q, %v, want %d", status, body, err, tt.status)
			}
		})
	}
	select {
	case <-s.DrainAsked():
		t.Error("a refused request began a drain")
	default:
	}
}

func TestDrainAnswersAtItsEnd(t *testing.T) {
	for _, tt := range []struct {
		name   string
		err    error
		status int
		body   string
	}{
		{"well", nil, http.StatusOK, "drained\n"},
		{"not well", errors.New("router: did not stop in time"), http.StatusInternalServerError, "router: did not stop in time"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t)
			type answer struct {
				status int
				body   string
				err    error
			}
			answers := make(chan answer, 2)
			for range 2 { // the second waits for the same drain
				go func() {
					status, body, err := askDrain(s, http.MethodPost, "")
					answers <- answer{status, body, err}
				}()
			}
			<-s.DrainAsked()
			s.Drained(tt.err)
			s.Drained(errors.New("a second end"))
			for range 2 {
				if a := <-answers; a.err != nil || a.status != tt.status || !strings.Contains(a.body, tt.body) {
					t.Errorf("answered %d %q, %v, want %d %q", a.status, a.body, a.err, tt.status, tt.body)
				}
			}
		})
	}
}
