package api_test

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// An app that publishes too much is told to wait for as long as it takes, and
// nothing of the request is published; others don't notice.
func TestPublishRate(t *testing.T) {
	f := start(t).router()
	channels := make([]string, 100)
	for i := range channels {
		channels[i] = fmt.Sprintf(`"a-%d"`, i)
	}
	of6 := func(path, body string) response {
		r := post("/apps/6/"+path, body)
		if path == "channels/a/events" {
			r.query = "name=e"
		}
		r.key, r.secret = "key-of-6", "secret-of-6"
		return f.do(r)
	}
	one := `{"name":"e","channel":"a","data":"1"}`
	if got := of6("events", `{"name":"e","channels":[`+strings.Join(channels, ",")+`],"data":"1"}`); got.status != http.StatusOK {
		t.Fatalf("the first is answered %d %s", got.status, got.body)
	}
	if n := len(f.take()); n != len(channels) {
		t.Fatalf("%d were published", n)
	}
	for path, body := range map[string]string{"events": one, "batch_events": `{"batch":[` + one + `]}`, "channels/a/events": one} {
		got := of6(path, body)
		wait, err := strconv.Atoi(got.header.Get("Retry-After"))
		if got.status != http.StatusTooManyRequests || err != nil || wait < 2 || wait > len(channels) {
			t.Errorf("%s is answered %d, Retry-After %q, want 429 and up to %d s", path, got.status, got.header.Get("Retry-After"), len(channels))
		}
		if !strings.Contains(got.body, "may publish 1 messages a second (limits.publishes_per_second), try again in") {
			t.Errorf("%s is answered %s", path, got.body)
		}
	}
	if got := f.do(events(one)); got.status != http.StatusOK {
		t.Errorf("another app is answered %d %s", got.status, got.body)
	}
	if n := len(f.take()); n != 1 {
		t.Errorf("%d were published, want that of the other app", n)
	}
}
