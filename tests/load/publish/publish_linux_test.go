package publish_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/proto/signature"
	"github.com/carillon-rt/carillon/tests/load/publish"
	"github.com/carillon-rt/carillon/tests/load/stamp"
)

// api is a Pusher HTTP API that checks what it gets.
type api struct {
	t *testing.T

	mu sync.Mutex
	// guarded by mu
	bodies []string
	refuse bool
}

// ServeHTTP implements http.Handler.
func (a *api) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		a.t.Error(err)
	}
	query := req.URL.Query()
	given := query.Get("auth_signature")
	query.Del("auth_signature")
	if !signature.Verify("s", signature.Request(req.Method, req.URL.Path, query.Encode()), given) {
		a.t.Errorf("the signature of %s is wrong", req.URL)
	}
	if query.Get("body_md5") != signature.BodyMD5(body) {
		a.t.Errorf("body_md5 is wrong")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.bodies = append(a.bodies, req.URL.Path+" "+string(body))
	if a.refuse {
		http.Error(w, "not now", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprint(w, "{}")
}

func newAPI(t *testing.T) (*api, publish.App) {
	a := &api{t: t}
	srv := httptest.NewServer(a)
	t.Cleanup(srv.Close)
	return a, publish.App{Addr: strings.TrimPrefix(srv.URL, "http://"), ID: "1001", Key: "k", Secret: "s"}
}

var began = time.Now()

func now() int64 { return int64(time.Since(began)) + 1 }

func message(size int) publish.Message {
	return publish.Message{Name: func(ch int) string { return fmt.Sprint("c", ch) }, Bytes: size}
}

func settle(t *testing.T, p publish.Publisher) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); ; {
		s := p.Stats()
		if s.Unanswered() == 0 {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("not answered: %+v", s)
		}
		if err := p.Poll(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestHTTP(t *testing.T) {
	a, app := newAPI(t)
	p, err := publish.NewHTTP(app, message(64), 2, 0, now)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for range 3 {
		if err := p.Publish(now(), 7); err != nil {
			t.Fatal(err)
		}
		settle(t, p)
	}
	if s := p.Stats(); s.Answered != 3 || s.Failed != 0 || s.Latency.TotalCount() != 3 {
		t.Errorf("%+v", s)
	}
	for i, body := range a.bodies {
		path, doc, _ := strings.Cut(body, " ")
		var event struct{ Name, Channel, Data string }
		if err := json.Unmarshal([]byte(doc), &event); err != nil {
			t.Fatal(err)
		}
		s, ok := stamp.Find([]byte(event.Data))
		if path != "/apps/1001/events" || !ok || s.Seq != uint32(i+1) || s.Channel != 7 || event.Channel != "c7" || len(event.Data) != 64 {
			t.Errorf("publication %d: %s %+v %+v", i, path, event, s)
		}
	}
	if got := p.Published()[1][7] + p.Published()[0][7]; got != 3 {
		t.Errorf("%d are in the ledger, want 3", got)
	}
}

func TestBatchesAndRefusals(t *testing.T) {
	a, app := newAPI(t)
	a.refuse = true
	p, err := publish.NewHTTP(app, message(stamp.Size), 1, 10, now)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Publish(now(), 1, 2, 3); err != nil {
		t.Fatal(err)
	}
	if p.Ready() {
		t.Error("ready with its only connection in use")
	}
	settle(t, p)
	if s := p.Stats(); s.Failed != 3 || !strings.Contains(s.FirstFailure, "not now") {
		t.Errorf("%+v", s)
	}
	if len(a.bodies) != 1 || !strings.HasPrefix(a.bodies[0], `/apps/1001/batch_events {"batch":[{"name":"message","channel":"c1"`) {
		t.Errorf("bodies %q", a.bodies)
	}
	if !json.Valid([]byte(strings.TrimPrefix(a.bodies[0], "/apps/1001/batch_events "))) {
		t.Errorf("not JSON: %s", a.bodies[0])
	}
}

// TestIdleConnectionIsClosed: a server that closes what is idle costs nothing.
func TestIdleConnectionIsClosed(t *testing.T) {
	a := &api{t: t}
	srv := httptest.NewUnstartedServer(a)
	srv.Config.IdleTimeout, srv.Config.ReadHeaderTimeout = time.Millisecond, time.Millisecond
	srv.Start()
	defer srv.Close()
	p, err := publish.NewHTTP(publish.App{Addr: strings.TrimPrefix(srv.URL, "http://"), ID: "1", Key: "k", Secret: "s"}, message(64), 1, 0, now)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	for end := time.Now().Add(10 * time.Second); p.Connections() > 0; {
		if err := p.Poll(); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(end) {
			t.Fatal("the server has not closed it")
		}
	}
	if err := p.Publish(now(), 1); err != nil {
		t.Fatal(err)
	}
	settle(t, p)
	if s := p.Stats(); s.Answered != 1 {
		t.Errorf("%+v", s)
	}
}

func TestTooSmall(t *testing.T) {
	if _, err := publish.NewSocket(message(stamp.Size-1), now, nil); err == nil {
		t.Error("messages without room for a stamp were accepted")
	}
}
