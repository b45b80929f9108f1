package webhook

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/subject"
)

func TestDeadEventsAndReplay(t *testing.T) {
	r := newReceiver(t, func(_ int, w http.ResponseWriter) { w.WriteHeader(500) })
	other := newReceiver(t, nil)
	cfg := fast()
	cfg.Window = 50 * time.Millisecond
	n := startNode(t, natstest.Server(t), cfg, tell("3", app.Webhook{URL: r.URL}, app.Webhook{URL: other.URL}))
	n.publish("3", occupied("a"), occupied("b"))
	await.True(t, "the events to die", func() bool { return n.stored(subject.DeadHookStream) == 2 })
	n.untilDone()
	stream, err := n.js.Stream(t.Context(), subject.DeadHookStream)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := stream.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if raw.Subject != "car.hook-dead.3" || !strings.Contains(raw.Header.Get(hook.ErrorHeader), "500") || raw.Header.Get(hook.AttemptsHeader) == "0" {
		t.Errorf("dead event on %s with %v", raw.Subject, raw.Header)
	}
	var ev hook.Event
	if err := json.Unmarshal(raw.Data, &ev); err != nil || ev.Channel == "" || ev.TimeMs == 0 {
		t.Errorf("dead event is %s (%v)", raw.Data, err)
	}
	r.mu.Lock()
	r.calls, r.answer = nil, nil
	r.mu.Unlock()
	if got := replay(n, "?limit=x"); got.Code != 400 {
		t.Errorf("replay with a bad limit: %d", got.Code)
	}
	if got := replay(n, "?app=99"); got.Body.String() != "replayed 0\n" {
		t.Errorf("replay of another app: %s", got.Body)
	}
	if got := replay(n, "?app=3&limit=1"); got.Body.String() != "replayed 1\n" {
		t.Errorf("replay of one: %s", got.Body)
	}
	if got := replay(n, ""); got.Body.String() != "replayed 1\n" {
		t.Errorf("replay of the rest: %s", got.Body)
	}
	await.True(t, "the replayed events", func() bool { return len(r.seen()) == 2 })
	n.untilDone()
	if got := other.seen(); got["a"] != 1 || got["b"] != 1 {
		t.Errorf("the endpoint that had them already got %v", got)
	}
	if n.stored(subject.DeadHookStream) != 0 {
		t.Error("replayed events are still dead")
	}
}

func replay(n *node, query string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	n.ReplayPage().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/debug/hooks/replay"+query, nil))
	return w
}

// The address was wrong: events that died for it go to the corrected one.
func TestReplayToCorrectedAddress(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	cfg := fast()
	cfg.Window = 30 * time.Millisecond
	n := startNode(t, natstest.Server(t), cfg, tell("3", app.Webhook{URL: gone.URL + "/?token=hidden"}))
	n.publish("3", occupied("a"))
	await.True(t, "the event to die", func() bool { return n.stored(subject.DeadHookStream) == 1 })
	stream, err := n.js.Stream(t.Context(), subject.DeadHookStream)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := stream.GetMsg(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if text := raw.Header.Get(hook.ErrorHeader); text == "" || strings.Contains(text, "hidden") {
		t.Errorf("the reason is %q, want one without the address", text)
	}
	r := newReceiver(t, nil)
	if err := n.apps.Replace([]app.App{tell("3", app.Webhook{URL: r.URL})}); err != nil {
		t.Fatal(err)
	}
	if count, err := n.Replay(t.Context(), "3", 0); count != 1 || err != nil {
		t.Fatalf("replayed %d: %v", count, err)
	}
	await.True(t, "the event", func() bool { return r.seen()["a"] == 1 })
}

// A webhook that is taken out of the configuration gets nothing more; what waited for it is dropped.
func TestRemovedWebhook(t *testing.T) {
	r := newReceiver(t, func(_ int, w http.ResponseWriter) { w.WriteHeader(500) })
	n := startNode(t, natstest.Server(t), fast(), tell("3", app.Webhook{URL: r.URL}))
	n.publish("3", occupied("a"))
	await.True(t, "a request", func() bool { return len(r.got()) > 0 })
	if err := n.apps.Replace([]app.App{tell("3")}); err != nil {
		t.Fatal(err)
	}
	n.untilDone()
	if v := testutil.ToFloat64(n.metrics.removed); v != 1 {
		t.Errorf("%v removed events counted", v)
	}
	if n.stored(subject.DeadHookStream) != 0 {
		t.Error("it was put to the dead events")
	}
}

func TestPage(t *testing.T) {
	r := newReceiver(t, func(_ int, w http.ResponseWriter) { w.WriteHeader(418) })
	n := startNode(t, natstest.Server(t), fast(), tell("3", app.Webhook{URL: r.URL + "/?token=hidden"}))
	n.publish("3", occupied("a"))
	await.True(t, "the failure to be listed", func() bool {
		w := httptest.NewRecorder()
		n.Page().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/debug/hooks", nil))
		if strings.Contains(w.Body.String(), "hidden") {
			t.Fatal("the page shows the address, which may hold secrets")
		}
		return strings.Contains(w.Body.String(), "418")
	})
}
