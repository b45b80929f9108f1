package api_test

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/publisher"
)

func post(path, body string) request { return request{method: "POST", path: path, body: body} }
func get(path, query string) request { return request{method: "GET", path: path, query: query} }

func events(body string) request { return post("/apps/3/events", body) }

func TestTrigger(t *testing.T) {
	f := start(t).router()
	long, longKey := strings.Repeat("é", 100), strings.Repeat("k", 128)
	type pub struct{ channel, event, data, exclude, key, trace string }
	for _, tc := range []struct {
		name string
		req  request
		want []pub
	}{
		{"channels", events(`{"name":"foo","channels":["a","b"],"data":"{\"x\":1}"}`), []pub{
			{channel: "a", event: "foo", data: `{"x":1}`}, {channel: "b", event: "foo", data: `{"x":1}`},
		}},
		{"channel", events(`{"name":"foo","channel":"a","data":"text"}`), []pub{{channel: "a", event: "foo", data: "text"}}},
		{"the golden body", events(`{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}`), []pub{
			{channel: "project-3", event: "foo", data: `{"some":"data"}`},
		}},
		{"bytes are kept", events(`{"name":"e","channel":"a","data":"<b>&\u00e9\ud83d\ude00 \/\\ \n\u2028é"}`), []pub{
			{channel: "a", event: "e", data: "<b>&é😀 /\\ \n\u2028é"},
		}},
		{"data is an object", events(`{"name":"e","channel":"a","data":{ "b": 1.50e1, "a" : "<\u0041>" }}`), []pub{
			{channel: "a", event: "e", data: `{ "b": 1.50e1, "a" : "<\u0041>" }`},
		}},
		{"data is null", events(`{"name":"e","channel":"a","data":null}`), []pub{{channel: "a", event: "e", data: "null"}}},
		{"empty data", events(`{"name":"e","channel":"a","data":""}`), []pub{{channel: "a", event: "e"}}},
		{"event names of Laravel", events(`{"name":"App\\Events\\Ünï","channel":"a","data":"1"}`), []pub{{channel: "a", event: `App\Events\Ünï`, data: "1"}}},
		{"longest event name", events(`{"name":"` + long + `","channel":"a","data":"1"}`), []pub{{channel: "a", event: long, data: "1"}}},
		{"exclude", events(`{"name":"e","channel":"a","data":"1","socket_id":"123.456"}`), []pub{{channel: "a", event: "e", data: "1", exclude: "123.456"}}},
		{"null socket id", events(`{"name":"e","channel":"a","data":"1","socket_id":null,"info":null}`), []pub{{channel: "a", event: "e", data: "1"}}},
		{"unknown members", events(`{"x":{"name":"no"},"name":"e","y":[{"data":"no"},"]"],"channel":"a","data":"1","z":-1.5e3,"w":true}`), []pub{{channel: "a", event: "e", data: "1"}}},
		{"the last of a repeated member", events(`{"name":"no","name":"e","channel":"a","data":"0","data":"1"}`), []pub{{channel: "a", event: "e", data: "1"}}},
		{"to a user", events(`{"name":"e","channel":"#server-to-user-ä b","data":"1"}`), []pub{{channel: "#server-to-user-ä b", event: "e", data: "1"}}},
		{"one encrypted channel", events(`{"name":"e","channels":["private-encrypted-a"],"data":"{\"nonce\":\"x\",\"ciphertext\":\"y\"}"}`), []pub{
			{channel: "private-encrypted-a", event: "e", data: `{"nonce":"x","ciphertext":"y"}`},
		}},
		{"key in the body", events(`{"name":"e","channel":"a","data":"1","idempotency_key":"k1"}`), []pub{{channel: "a", event: "e", data: "1", key: "k1"}}},
		{"key for several channels", events(`{"name":"e","channels":["a","b"],"data":"1","idempotency_key":"k1"}`), []pub{
			{channel: "a", event: "e", data: "1", key: "k1#0"}, {channel: "b", event: "e", data: "1", key: "k1#1"},
		}},
		{"key in the header", request{
			method: "POST", path: "/apps/3/events", body: `{"name":"e","channel":"a","data":"1"}`, header: "X-Idempotency-Key: k2\r\n",
		}, []pub{{channel: "a", event: "e", data: "1", key: "k2"}}},
		{"sampled trace", request{
			method: "POST", path: "/apps/3/events", body: `{"name":"e","channel":"a","data":"1"}`,
			header: "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n",
		}, []pub{{channel: "a", event: "e", data: "1", trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}},
		{"trace that is not sampled", request{
			method: "POST", path: "/apps/3/events", body: `{"name":"e","channel":"a","data":"1"}`,
			header: "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00\r\n",
		}, []pub{{channel: "a", event: "e", data: "1"}}},
		{"largest data", events(`{"name":"e","channel":"a","data":"` + strings.Repeat("x", 10240) + `"}`), []pub{{channel: "a", event: "e", data: strings.Repeat("x", 10240)}}},
		{"batch", post("/apps/3/batch_events", `{"batch":[{"channel":"a","name":"e","data":"1","socket_id":"1.2"},{"channel":"b","name":"f","data":"2","idempotency_key":"k"}]}`), []pub{
			{channel: "a", event: "e", data: "1", exclude: "1.2"}, {channel: "b", event: "f", data: "2", key: "k"},
		}},
		{"batch with a key in the header", request{
			method: "POST", path: "/apps/3/batch_events", header: "X-Idempotency-Key: " + longKey + "\r\n",
			body: `{"batch":[{"channel":"a","name":"e","data":"1"},{"channel":"b","name":"f","data":"2"}]}`,
		}, []pub{{channel: "a", event: "e", data: "1", key: longKey + "#0"}, {channel: "b", event: "f", data: "2", key: longKey + "#1"}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := f.do(tc.req)
			if got.status != http.StatusOK || got.body != "{}" || got.header.Get("Content-Type") != "application/json" {
				t.Fatalf("answer %d %q (%s), want 200 {}", got.status, got.body, got.header.Get("Content-Type"))
			}
			pubs := f.take()
			byChannel := map[string]message.Publication{} // partitions have no common order
			for _, p := range pubs {
				byChannel[p.Channel] = p
			}
			if len(pubs) != len(tc.want) {
				t.Fatalf("%d publications, want %d", len(pubs), len(tc.want))
			}
			for _, want := range tc.want {
				p := byChannel[want.channel]
				have := pub{p.Channel, p.Event, string(p.Data), p.Exclude, p.IdempotencyKey, p.Trace}
				if have != want || p.App != "3" || p.Kind != message.Event || p.TimeMs == 0 {
					t.Errorf("published %+v, want %+v (%+v)", have, want, p)
				}
			}
		})
	}
}

func TestDeprecatedTrigger(t *testing.T) {
	f := start(t).router()
	got := f.do(request{method: "POST", path: "/apps/3/channels/a/events", query: "name=a+b%20c&socket_id=1.2", signQuery: "name=a+b c&socket_id=1.2", body: `{"x": 1}`})
	if got.status != http.StatusAccepted || got.body != "{}" {
		t.Fatalf("answer %d %q, want 202 {}", got.status, got.body)
	}
	pubs := f.take()
	if len(pubs) != 1 || pubs[0].Event != "a+b c" || string(pubs[0].Data) != `{"x": 1}` || pubs[0].Exclude != "1.2" {
		t.Fatalf("published %+v", pubs)
	}
	for name, req := range map[string]request{
		"no body": {method: "POST", path: "/apps/3/channels/a/events", query: "name=e"},
		"no name": {method: "POST", path: "/apps/3/channels/a/events", body: "x"},
		"not UTF-8": {
			method: "POST", path: "/apps/3/channels/a/events", query: "name=e", body: "\xff",
		},
		"name not UTF-8": {method: "POST", path: "/apps/3/channels/a/events", query: "name=%ff", signQuery: "name=\xff", body: "x"},
	} {
		if got := f.do(req); got.status != http.StatusBadRequest {
			t.Errorf("%s: answer %d %q, want 400", name, got.status, got.body)
		}
	}
}

func TestTriggerRefusals(t *testing.T) {
	f := start(t).router()
	names := func(n int) string {
		list := make([]string, n)
		for i := range list {
			list[i] = `"c` + strconv.Itoa(i) + `"`
		}
		return strings.Join(list, ",")
	}
	items := func(n int) string {
		return strings.TrimSuffix(strings.Repeat(`{"channel":"a","name":"e","data":"1"},`, n), ",")
	}
	for _, tc := range []struct {
		name   string
		req    request
		status int
		text   string // part of the error
	}{
		{"no JSON", events(`{"name":`), 400, "not valid JSON"},
		{"no body", events(``), 400, "not valid JSON"},
		{"two documents", events(`{} {}`), 400, "not valid JSON"},
		{"not UTF-8", events("{\"name\":\"\xff\"}"), 400, "UTF-8"},
		{"an array", events(`[]`), 400, "JSON object"},
		{"no name", events(`{"channel":"a","data":"1"}`), 400, "event name is missing"},
		{"name is a number", events(`{"name":1,"channel":"a","data":"1"}`), 400, "name must be a string"},
		{"name too long", events(`{"name":"` + strings.Repeat("n", 201) + `","channel":"a","data":"1"}`), 400, "at most 200"},
		{"reserved name", events(`{"name":"pusher:x","channel":"a","data":"1"}`), 400, "reserved"},
		{"internal name", events(`{"name":"pusher_internal:x","channel":"a","data":"1"}`), 400, "reserved"},
		{"no data", events(`{"name":"e","channel":"a"}`), 400, "data is missing"},
		{"data too large", events(`{"name":"e","channel":"a","data":"` + strings.Repeat("x", 10241) + `"}`), 413, "at most 10240"},
		{"body too large", events(`{"name":"` + strings.Repeat("x", 3<<20) + `"}`), 413, "at most 2097152"},
		{"no channel", events(`{"name":"e","data":"1"}`), 400, "no channel"},
		{"empty channels", events(`{"name":"e","data":"1","channels":[]}`), 400, "no channel"},
		{"channels is a string", events(`{"name":"e","data":"1","channels":"a"}`), 400, "array of strings"},
		{"a channel is a number", events(`{"name":"e","data":"1","channels":["a",1]}`), 400, "array of strings"},
		{"bad channel", events(`{"name":"e","data":"1","channel":"a b"}`), 400, `holds \" \"`},
		{"long channel", events(`{"name":"e","data":"1","channel":"` + strings.Repeat("c", 201) + `"}`), 400, "at most 200"},
		{"too many channels", events(`{"name":"e","data":"1","channels":[` + names(101) + `]}`), 400, "at most 100"},
		{"encrypted among others", events(`{"name":"e","data":"1","channels":["a","private-encrypted-b"]}`), 400, "encrypted"},
		{"bad socket id", events(`{"name":"e","data":"1","channel":"a","socket_id":"1.2:x"}`), 400, "socket_id"},
		{"socket id with a newline", events(`{"name":"e","data":"1","channel":"a","socket_id":"1.2\n"}`), 400, "socket_id"},
		{"half a socket id", events(`{"name":"e","data":"1","channel":"a","socket_id":"1."}`), 400, "socket_id"},
		{"long key", events(`{"name":"e","data":"1","channel":"a","idempotency_key":"` + strings.Repeat("k", 129) + `"}`), 400, "at most 128"},
		{"batch is missing", post("/apps/3/batch_events", `{}`), 400, "batch must be an array"},
		{"batch is empty", post("/apps/3/batch_events", `{"batch":[]}`), 400, "batch is empty"},
		{"batch is too long", post("/apps/3/batch_events", `{"batch":[`+items(11)+`]}`), 400, "more than 10"},
		{"batch of strings", post("/apps/3/batch_events", `{"batch":["a"]}`), 400, "batch[0]: an event must be"},
		{"batch with channels", post("/apps/3/batch_events", `{"batch":[{"channels":["a","b"],"name":"e","data":"1"}]}`), 400, "goes to one channel"},
		{"batch with a bad item", post("/apps/3/batch_events", `{"batch":[`+items(1)+`,{"channel":"a","name":"","data":"1"}]}`), 400, "batch[1]: event name"},
		{"batch with large data", post("/apps/3/batch_events", `{"batch":[{"channel":"a","name":"e","data":"`+strings.Repeat("x", 10241)+`"}]}`), 413, "batch[0]"},
		{"unknown path", post("/apps/3/nothing", `{}`), 404, "there is no /apps/3/nothing"},
		{"root", get("/", ""), 404, "there is no /"},
		{"too deep", get("/apps/3/channels/a/users/b", ""), 404, "there is no"},
		{"wrong method", get("/apps/3/events", ""), 405, "want POST"},
		{"wrong method of a read", post("/apps/3/channels", "{}"), 405, "want GET"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := f.do(tc.req)
			checkError(t, got, tc.status, tc.text)
			if pubs := f.take(); len(pubs) != 0 {
				t.Errorf("published %d", len(pubs))
			}
			if want := map[int]string{405: "POST"}[tc.status]; want != "" && tc.req.method == "GET" && got.header.Get("Allow") != want {
				t.Errorf("Allow is %q, want %s", got.header.Get("Allow"), want)
			}
		})
	}
}

// checkError looks at the shape that all errors have.
func checkError(t *testing.T, got response, status int, text string) {
	t.Helper()
	if got.status != status || !strings.Contains(got.body, text) {
		t.Fatalf("answer %d %s, want %d with %q", got.status, got.body, status, text)
	}
	var body struct {
		Error string
		Code  int
	}
	if err := json.Unmarshal([]byte(got.body), &body); err != nil || body.Error == "" || body.Code != status {
		t.Errorf("body is %s (%v), want error and code", got.body, err)
	}
	if got.header.Get("Content-Type") != "application/json" {
		t.Errorf("content type is %q", got.header.Get("Content-Type"))
	}
	if (status == 503) != (got.header.Get("Retry-After") != "") {
		t.Errorf("status %d has Retry-After %q", status, got.header.Get("Retry-After"))
	}
	for _, s := range []string{secret, secret2, "secret-of-5"} {
		if strings.Contains(got.body, s) {
			t.Errorf("the answer tells a secret: %s", got.body)
		}
	}
}

func TestTriggerWithInfo(t *testing.T) {
	f := start(t).router().presence()
	f.occupy(presence.ChannelInfo{Name: "presence-a", Subscriptions: 5, Users: 3}, presence.ChannelInfo{Name: "b", Subscriptions: 2})
	for _, tc := range []struct {
		name, path, body, want string
		partial                bool
	}{
		{
			name: "both", path: "events", body: `{"name":"e","data":"1","channels":["b","presence-a","empty"],"info":"user_count,subscription_count"}`,
			want: `{"channels":{"b":{"subscription_count":2},"presence-a":{"user_count":3,"subscription_count":5},"empty":{"subscription_count":0}}}`,
		},
		{
			name: "users only", path: "events", body: `{"name":"e","data":"1","channels":["b","presence-a"],"info":"user_count"}`,
			want: `{"channels":{"b":{},"presence-a":{"user_count":3}}}`,
		},
		{name: "unknown attribute", path: "events", body: `{"name":"e","data":"1","channel":"b","info":"other"}`, want: `{}`},
		{
			name: "partial", path: "events", body: `{"name":"e","data":"1","channel":"b","info":"subscription_count"}`,
			want: `{"channels":{"b":{"subscription_count":2}}}`, partial: true,
		},
		{
			name: "batch", path: "batch_events", body: `{"batch":[{"name":"e","data":"1","channel":"b"},` +
				`{"name":"e","data":"1","channel":"presence-a","info":"user_count,subscription_count"},{"name":"e","data":"1","channel":"b","info":"subscription_count"}]}`,
			want: `{"batch":[{},{"user_count":3,"subscription_count":5},{"subscription_count":2}]}`,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f.mu.Lock()
			f.partial = tc.partial
			f.mu.Unlock()
			got := f.do(post("/apps/3/"+tc.path, tc.body))
			if got.status != 200 || got.body != tc.want {
				t.Errorf("answer %d %s, want %s", got.status, got.body, tc.want)
			}
			if tc.partial != (got.header.Get("X-Carillon-Incomplete") == "true") {
				t.Errorf("X-Carillon-Incomplete is %q", got.header.Get("X-Carillon-Incomplete"))
			}
		})
	}
}

// A published event is not answered with an error because counts are missing: the publisher would send it again.
func TestTriggerWithInfoWithoutPresence(t *testing.T) {
	f := start(t).router()
	got := f.do(events(`{"name":"e","data":"1","channel":"b","info":"subscription_count"}`))
	if got.status != 200 || got.body != `{"channels":{"b":{}}}` || got.header.Get("X-Carillon-Incomplete") != "true" {
		t.Errorf("answer %d %s", got.status, got.body)
	}
	got = f.do(post("/apps/3/batch_events", `{"batch":[{"name":"e","data":"1","channel":"b","info":"subscription_count"}]}`))
	if got.status != 200 || got.body != `{"batch":[{}]}` {
		t.Errorf("answer %d %s", got.status, got.body)
	}
}

func TestTriggerUnavailable(t *testing.T) {
	f := start(t, func(c *apiConfig) { c.PublishTimeout = timeoutShort })
	checkError(t, f.do(events(`{"name":"e","data":"1","channel":"b"}`)), 503, "try again")
	f.router()
	for _, tc := range []struct {
		refuse *publisher.Error
		status int
	}{
		{&publisher.Error{Code: publisher.Unavailable, Message: "no journal, try again"}, 503},
		{&publisher.Error{Code: publisher.Busy, Message: "busy, try again"}, 503},
		{&publisher.Error{Code: publisher.TooLarge, Message: "too large, try again smaller"}, 413},
		{&publisher.Error{Code: publisher.BadEvent, Message: "bad event, try again with another"}, 400},
		{&publisher.Error{Code: publisher.Conflict, Message: "another event had that key"}, 409},
	} {
		f.mu.Lock()
		f.refuse = tc.refuse
		f.mu.Unlock()
		before := f.counted(tc.status)
		checkError(t, f.do(events(`{"name":"e","data":"1","channel":"b"}`)), tc.status, tc.refuse.Message)
		if n := f.counted(tc.status) - before; n != 1 {
			t.Errorf("%d was counted %v times", tc.status, n)
		}
	}
}
