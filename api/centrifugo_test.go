package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/publisher"
	"github.com/carillon-rt/carillon/proto/subject"
)

// centrifugoApp has an API key, known namespaces, and calls that a hook
// answers. App 8 is disabled, app 9 may publish once a second.
func centrifugoApp(id, apiKey string) app.App {
	a := app.App{
		ID: id, Keys: []app.Key{{Key: "key-of-" + id, Secret: "secret"}}, Disabled: id == "8",
		Policies: []app.Policy{
			{Match: "news:*", History: app.History{Size: 10, TTL: time.Minute}},
			{Match: "room:*", Presence: true},
			{Match: "cache:*", CacheTTL: time.Minute},
			{Match: "plain:*"},
		},
		Hooks: []app.Hook{{Name: "backend", URL: "http://127.0.0.1:1/"}},
		Centrifugo: app.Centrifugo{
			Enabled: true, KnownNamespaces: true, APIKeys: []app.APIKey{{Name: "backend", Secret: apiKey}},
			RPC: []app.RPC{{Match: "chat.*", Hook: "backend"}},
		},
	}
	if id == "9" {
		a.Limits.PublishesPerSecond = 1
	}
	return a
}

// post sends a request to the Centrifugo API; headers end in \r\n.
func (f *fixture) post(path, body, headers string) response {
	f.t.Helper()
	return f.raw(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: %d\r\n%s\r\n%s", path, len(body), headers, body))
}

const withKey = "X-API-Key: api-key\r\n"

// gateways answers questions and takes commands, which it hands out.
func (f *fixture) gateways(answers ...control.Answer) <-chan control.Command {
	f.t.Helper()
	commands := make(chan control.Command, 16)
	f.subscribe(subject.GatewayControl, func(msg *nats.Msg) {
		var cmd control.Command
		if err := json.Unmarshal(msg.Data, &cmd); err != nil {
			f.t.Errorf("command %s: %v", msg.Data, err)
		}
		commands <- cmd
	})
	f.subscribe(subject.GatewayQuestion, func(msg *nats.Msg) {
		for _, a := range answers {
			body, _ := json.Marshal(a)
			_ = msg.Respond(body)
		}
	})
	return commands
}

// hooks answers calls of hooks.
func (f *fixture) hooks() *fixture {
	f.subscribe(subject.AuthRPC, func(msg *nats.Msg) {
		var call authz.RPC
		if err := json.Unmarshal(msg.Data, &call); err != nil {
			f.t.Errorf("call %s: %v", msg.Data, err)
		}
		d := authz.Decision{Allow: true, Reply: []byte(`{"echo":` + string(call.Data) + `}`)}
		switch call.Method {
		case "chat.own":
			d = authz.Decision{Verdict: &authz.Verdict{Code: 1000, Text: "own words"}}
		case "chat.none":
			d = authz.Refuse(authz.NoMethod, "nobody")
		case "chat.away":
			d = authz.Refuse(authz.Unavailable, "later")
		case "chat.nonsense":
			d.Reply = []byte("nonsense")
		}
		body, _ := json.Marshal(d)
		_ = msg.Respond(body)
	})
	return f
}

// sameJSON compares documents, whatever the order of their members.
func sameJSON(t *testing.T, got, want string) bool {
	t.Helper()
	var g, w any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("%s: %v", want, err)
	}
	return json.Unmarshal([]byte(got), &g) == nil && reflect.DeepEqual(g, w)
}

func TestCentrifugoPublish(t *testing.T) {
	f := start(t).router()
	const at = `{"result":{"offset":1024,"epoch":"epoch"}}`
	tagged := []message.Tag{{Key: "a", Value: "1"}, {Key: "b", Value: "2"}}
	for _, tc := range []struct {
		name, body, answer string
		want               message.Publication
	}{
		{"kept", `{"channel":"news:1","data":{"a":"<b>"}}`, at, message.Publication{Channel: "news:1", Data: []byte(`{"a":"<b>"}`)}},
		{"not kept", `{"channel":"plain:1","data":"x"}`, `{"result":{}}`, message.Publication{Channel: "plain:1", Data: []byte(`"x"`)}},
		{"without a namespace", `{"channel":"x y #ü","data":null}`, `{"result":{}}`, message.Publication{Channel: "x y #ü", Data: []byte(`null`)}},
		{"skip_history", `{"channel":"news:1","data":1,"skip_history":true}`, `{"result":{}}`, message.Publication{Channel: "news:1", Data: []byte(`1`), Transient: true}},
		{"tags", `{"channel":"news:1","data":1,"tags":{"b":"2","a":"1"}}`, at, message.Publication{Channel: "news:1", Data: []byte(`1`), Tags: tagged}},
		{"base64", `{"channel":"news:1","b64data":"AAH/"}`, at, message.Publication{Channel: "news:1", Data: []byte{0, 1, 0xff}}},
		{"key", `{"channel":"news:1","data":1,"idempotency_key":"k","delta":true}`, at, message.Publication{Channel: "news:1", Data: []byte(`1`), IdempotencyKey: "k"}},
		{"unknown fields", `{"channel":"cache:1","data":1,"future":[1]}`, at, message.Publication{Channel: "cache:1", Data: []byte(`1`)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := f.post("/api/publish", tc.body, withKey)
			if got.status != 200 || got.body != tc.answer || got.header.Get("Content-Type") != "application/json" {
				t.Errorf("answer %d %s, want %s", got.status, got.body, tc.answer)
			}
			pubs := f.take()
			tc.want.Kind, tc.want.App = message.Event, "7"
			if len(pubs) == 1 {
				tc.want.TimeMs = pubs[0].TimeMs
			}
			if len(pubs) != 1 || pubs[0].TimeMs == 0 || !reflect.DeepEqual(pubs[0], tc.want) {
				t.Errorf("published %+v, want %+v", pubs, tc.want)
			}
		})
	}
}

func TestCentrifugoBroadcast(t *testing.T) {
	f := start(t).router()
	got := f.post("/api/broadcast", `{"channels":["news:1","","nobody:1","plain:1"],"data":{},"idempotency_key":"k"}`, withKey)
	var answer struct {
		Result struct {
			Responses []struct {
				Error  *struct{ Code int }
				Result *struct{ Offset uint64 }
			}
		}
	}
	if err := json.Unmarshal([]byte(got.body), &answer); err != nil || len(answer.Result.Responses) != 4 {
		t.Fatalf("answer %s: %v", got.body, err)
	}
	r := answer.Result.Responses
	if r[0].Result == nil || r[0].Result.Offset != 1024 || r[1].Error == nil || r[1].Error.Code != 107 ||
		r[2].Error == nil || r[2].Error.Code != 102 || r[3].Result == nil || r[3].Result.Offset != 0 {
		t.Errorf("answer %s", got.body)
	}
	pubs := f.take()
	if len(pubs) != 2 || pubs[0].Channel != "news:1" || pubs[1].Channel != "plain:1" || pubs[1].IdempotencyKey != "k" {
		t.Errorf("published %+v", pubs)
	}
}

// TestCentrifugoErrors: each wrong request gets an error that says what is
// wrong, in either of the ways in which errors are told.
func TestCentrifugoErrors(t *testing.T) {
	f := start(t).router().presence().history().hooks()
	for _, tc := range []struct {
		name, method, body string
		code, status       int
		text               string
	}{
		{"no channel", "publish", `{"data":1}`, 107, 400, "empty"},
		{"no data", "publish", `{"channel":"a"}`, 107, 400, "data is missing"},
		{"bad base64", "publish", `{"channel":"a","b64data":"%"}`, 107, 400, "b64data is not base64"},
		{"long channel", "publish", `{"channel":"` + strings.Repeat("c", 256) + `","data":1}`, 107, 400, "256 bytes"},
		{"reserved channel", "publish", `{"channel":"#online-7","data":1}`, 107, 400, "#online-"},
		{"unknown namespace", "publish", `{"channel":"nobody:1","data":1}`, 102, 404, "nobody:1"},
		{"large data", "publish", `{"channel":"a","data":"` + strings.Repeat("x", 10<<10) + `"}`, 106, 400, "10240"},
		{"long key", "publish", `{"channel":"a","data":1,"idempotency_key":"` + strings.Repeat("k", 129) + `"}`, 106, 400, "129"},
		{"many tags", "publish", `{"channel":"a","data":1,"tags":{` + manyTags(65) + `}}`, 106, 400, "65 tags"},
		{"version", "publish", `{"channel":"a","data":1,"version":7}`, 108, 400, "version"},
		{"no channels", "broadcast", `{"data":1}`, 107, 400, "channels is empty"},
		{"no presence", "presence", `{"channel":"news:1"}`, 108, 400, "presence"},
		{"no presence to count", "presence_stats", `{"channel":"news:1"}`, 108, 400, "presence"},
		{"no history", "history", `{"channel":"plain:1"}`, 108, 400, "history.size"},
		{"no such offset", "history", `{"channel":"news:1","since":{"offset":18446744073709551615}}`, 107, 400, "since.offset"},
		{"another epoch", "history", `{"channel":"news:1","since":{"offset":1,"epoch":"old"}}`, 112, 416, `"epoch"`},
		{"no history to remove", "history_remove", `{"channel":"plain:1"}`, 108, 400, "history"},
		{"negative limit", "channels", `{"limit":-1}`, 107, 400, "limit"},
		{"nobody named", "subscribe", `{"channel":"a"}`, 107, 400, "all_users"},
		{"session", "unsubscribe", `{"channel":"a","user":"u","session":"s"}`, 108, 400, "session"},
		{"labels", "disconnect", `{"user":"u","label_filter":{"a":"b"}}`, 108, 400, "label_filter"},
		{"no channel to leave", "unsubscribe", `{"user":"u"}`, 107, 400, "channel"},
		{"code out of range", "disconnect", `{"user":"u","disconnect":{"code":2000,"reason":"r"}}`, 107, 400, "3000 to 4999"},
		{"long reason", "disconnect", `{"user":"u","disconnect":{"code":4000,"reason":"` + strings.Repeat("r", 121) + `"}}`, 107, 400, "121 bytes"},
		{"reason that is JSON", "disconnect", `{"user":"u","disconnect":{"code":4000,"reason":"true"}}`, 107, 400, "is JSON"},
		{"info that is not JSON", "subscribe", `{"user":"u","channel":"a","b64info":"AAE="}`, 107, 400, "info"},
		{"expression", "connections", `{"expression":"true"}`, 108, 400, "expression"},
		{"no method", "rpc", `{}`, 107, 400, "method is missing"},
		{"no hook", "rpc", `{"method":"other"}`, 108, 400, "centrifugo.rpc"},
		{"the hook's own error", "rpc", `{"method":"chat.own"}`, 1000, 400, "own words"},
		{"the hook does not know it", "rpc", `{"method":"chat.none"}`, 104, 404, "nobody"},
		{"the hook is away", "rpc", `{"method":"chat.away"}`, 100, 500, "later"},
		{"large params", "rpc", `{"method":"chat.echo","params":"` + strings.Repeat("x", 1<<20) + `"}`, 106, 400, "max_payload"},
		{"large data to give", "subscribe", `{"user":"u","channel":"a","data":"` + strings.Repeat("x", 1<<20) + `"}`, 106, 400, "max_payload"},
		{"paid", "block_user", `{"user":"u"}`, 108, 404, "block_user"},
		{"experiment", "map_publish", `{}`, 108, 404, "map_publish"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var e struct {
				Code    int    `json:"code"`
				Message string `json:"message"`
			}
			wrapped := struct{ Error any }{&e}
			got := f.post("/api/"+tc.method, tc.body, withKey)
			if err := json.Unmarshal([]byte(got.body), &wrapped); err != nil || got.status != 200 || e.Code != tc.code || !strings.Contains(e.Message, tc.text) {
				t.Errorf("answer %d %s, want error %d with %q", got.status, got.body, tc.code, tc.text)
			}
			e.Code, e.Message = 0, ""
			got = f.post("/api/"+tc.method, tc.body, withKey+"X-Centrifugo-Error-Mode: transport\r\n")
			if err := json.Unmarshal([]byte(got.body), &e); err != nil || got.status != tc.status || e.Code != tc.code {
				t.Errorf("as HTTP: %d %s, want %d with error %d", got.status, got.body, tc.status, tc.code)
			}
		})
	}
	if pubs := f.take(); len(pubs) > 0 {
		t.Errorf("published %+v", pubs)
	}
}

func manyTags(n int) string {
	tags := make([]string, n)
	for i := range tags {
		tags[i] = fmt.Sprintf("\"%d\":\"\"", i)
	}
	return strings.Join(tags, ",")
}

// TestCentrifugoDoors: who and what gets in at all.
func TestCentrifugoDoors(t *testing.T) {
	f := start(t, func(c *apiConfig) { c.BodyMax = 1000 }).router()
	const body = `{"channel":"a","data":1}`
	for _, tc := range []struct {
		name, path, body, headers string
		status                    int
		text                      string
	}{
		{"X-API-Key", "/api/publish", body, withKey, 200, "result"},
		{"Authorization", "/api/publish", body, "Authorization: apikey api-key\r\n", 200, "result"},
		{"Authorization in capitals", "/api/publish", body, "Authorization: APIKEY api-key\r\n", 200, "result"},
		{"query", "/api/publish?api_key=api-key", body, "", 200, "result"},
		{"slash at the end", "/api/publish/", body, withKey, 200, "result"},
		{"no key", "/api/publish", body, "", 401, "X-API-Key"},
		{"wrong key", "/api/publish", body, "X-API-Key: api-kez\r\n", 401, "X-API-Key"},
		{"Pusher's key", "/api/publish", body, "X-API-Key: key-of-7\r\n", 401, "X-API-Key"},
		{"another scheme", "/api/publish", body, "Authorization: Bearer api-key\r\n", 401, "X-API-Key"},
		{"disabled app", "/api/publish", body, "X-API-Key: api-key-of-8\r\n", 403, "app 8 is disabled"},
		{"no such method", "/api/nothing", body, withKey, 404, "presence_stats"},
		{"no JSON", "/api/publish", "{", withKey, 400, "can't be read"},
		{"another type", "/api/publish", `{"channel":7}`, withKey, 400, "channel"},
		{"no JSON in a batch", "/api/batch", "{", withKey, 400, "can't be read"},
		{"large body", "/api/publish", strings.Repeat(" ", 1001), withKey, 413, "1000 bytes"},
		{"empty lines", "/api", "\n", withKey, 400, "lines"},
		{"bad line", "/api", `{"method":"info"}` + "\nx", withKey, 400, "lines"},
	} {
		got := f.post(tc.path, tc.body, tc.headers)
		if got.status != tc.status || !strings.Contains(got.body, tc.text) || !json.Valid([]byte(got.body)) {
			t.Errorf("%s: answer %d %s, want %d with %q", tc.name, got.status, got.body, tc.status, tc.text)
		}
	}
	got := f.raw("GET /api/publish HTTP/1.1\r\nHost: test\r\nConnection: close\r\n" + withKey + "\r\n")
	if got.status != 405 || got.header.Get("Allow") != http.MethodPost {
		t.Errorf("GET: %d %s, Allow %q", got.status, got.body, got.header.Get("Allow"))
	}
}

// A broadcast within the limits is published whole.
func TestCentrifugoLargeBroadcast(t *testing.T) {
	f := start(t).router()
	names := make([]string, 10_000)
	for i := range names {
		names[i] = fmt.Sprintf(`"c%d"`, i)
	}
	body := `{"channels":[` + strings.Join(names, ",") + `],"data":"` + strings.Repeat("x", 10_000) + `"}`
	got := f.post("/api/broadcast", body, withKey)
	if n := strings.Count(got.body, `"result":{}`); n != len(names) {
		t.Errorf("%d of %d were published: %d %.300s", n, len(names), got.status, got.body)
	}
}

// An app's rate is one for all APIs.
func TestCentrifugoRate(t *testing.T) {
	f := start(t).router()
	const withKey9 = "X-API-Key: api-key-of-9\r\n"
	if got := f.post("/api/publish", `{"channel":"a","data":1}`, withKey9); got.body != `{"result":{}}` {
		t.Fatalf("the first: %s", got.body)
	}
	got := f.post("/api/publish", `{"channel":"a","data":1}`, withKey9+"X-Centrifugo-Error-Mode: transport\r\n")
	if got.status != 429 || got.header.Get("Retry-After") != "1" || !strings.Contains(got.body, `"code":111`) {
		t.Errorf("the second: %d %s", got.status, got.body)
	}
	r := request{method: "POST", path: "/apps/9/events", body: `{"name":"e","channel":"a","data":"1"}`, key: "key-of-9", secret: "secret"}
	if got := f.do(r); got.status != 429 {
		t.Errorf("the third, by Pusher's API: %d %s", got.status, got.body)
	}
}

func TestCentrifugoRefused(t *testing.T) {
	f := start(t).router()
	for code, want := range map[publisher.Code]int{
		publisher.Conflict: 113, publisher.TooLarge: 106, publisher.BadPublication: 107, publisher.Busy: 100, publisher.AppDisabled: 103,
	} {
		f.mu.Lock()
		f.refuse = &publisher.Error{Code: code, Message: "because"}
		f.mu.Unlock()
		if got := f.post("/api/publish", `{"channel":"a","data":1}`, withKey); !strings.Contains(got.body, fmt.Sprintf(`"code":%d,`, want)) ||
			!strings.Contains(got.body, "because") {
			t.Errorf("publisher's code %d: %s, want %d", code, got.body, want)
		}
	}
}

func TestCentrifugoReads(t *testing.T) {
	f := start(t).router().presence().history().hooks()
	f.occupy(
		presence.ChannelInfo{Name: "room:1", Subscriptions: 3, Users: 3, Members: []presence.MemberInfo{
			{ID: "1.1", Info: `{"user":"u","client":"1.1","conn_info":{"a":1},"chan_info":[2]}`}, {ID: "1.2", Info: `{"user":"u","client":"1.2"}`}, {ID: "1.3"},
		}},
		presence.ChannelInfo{Name: "presence-x", Subscriptions: 5, Users: 1, Members: []presence.MemberInfo{{ID: "7", RawID: "7", Info: `{"n":1}`}}},
		presence.ChannelInfo{Name: "#online-7", Subscriptions: 1},
		presence.ChannelInfo{Name: "#7", Subscriptions: 1},
		presence.ChannelInfo{Name: "news:1", Subscriptions: 2},
		presence.ChannelInfo{Name: "news:2", Subscriptions: 2},
	)
	f.keep(1<<10, message.Publication{Kind: message.Event, Data: []byte(`{"a":1}`), Info: []byte(`{"user":"u","client":"1.1"}`), Tags: []message.Tag{{Key: "k", Value: "v"}}})
	f.keep(2<<10, message.Publication{Kind: message.Event, Event: "said", Data: []byte("no JSON")})
	f.keep(3<<10, message.Publication{Kind: message.Event, Data: []byte(`3`)})
	first, second, third := `{"data":{"a":1},"info":{"user":"u","client":"1.1"},"offset":1024,"tags":{"k":"v"}}`, `{"data":"no JSON","offset":2048,"tags":{"event":"said"}}`, `{"data":3,"offset":3072}`
	past := func(of ...string) string {
		return `{"result":{"publications":[` + strings.Join(of, ",") + `],"epoch":"epoch","offset":9216}}`
	}
	for _, tc := range []struct{ name, method, body, want string }{
		{"presence of clients", "presence", `{"channel":"room:1"}`, `{"result":{"presence":{
			"1.1":{"user":"u","client":"1.1","conn_info":{"a":1},"chan_info":[2]},"1.2":{"user":"u","client":"1.2"},"1.3":{"user":"","client":"1.3"}}}}`},
		{"presence of users", "presence", `{"channel":"presence-x"}`, `{"result":{"presence":{"7":{"user":"7","client":"","conn_info":{"n":1}}}}}`},
		{"presence of nobody", "presence", `{"channel":"room:2"}`, `{"result":{"presence":{}}}`},
		{"stats of clients", "presence_stats", `{"channel":"room:1"}`, `{"result":{"num_clients":3,"num_users":2}}`},
		{"stats of users", "presence_stats", `{"channel":"presence-x"}`, `{"result":{"num_clients":5,"num_users":1}}`},
		{"stats of nobody", "presence_stats", `{"channel":"room:2"}`, `{"result":{"num_clients":0,"num_users":0}}`},
		{"position", "history", `{"channel":"news:1"}`, past()},
		{"all", "history", `{"channel":"news:1","limit":-1}`, past(first, second, third)},
		{"the oldest", "history", `{"channel":"news:1","limit":2,"since":{"offset":0,"epoch":""}}`, past(first, second)},
		{"what follows", "history", `{"channel":"news:1","limit":2,"since":{"offset":1024,"epoch":"epoch"}}`, past(second, third)},
		{"the newest", "history", `{"channel":"news:1","limit":2,"reverse":true}`, past(third, second)},
		{"what came before", "history", `{"channel":"news:1","limit":2,"reverse":true,"since":{"offset":2048}}`, past(first)},
		{"before everything", "history", `{"channel":"news:1","limit":2,"reverse":true,"since":{"offset":0}}`, past()},
		{"all channels", "channels", `{}`, `{"result":{"channels":{"room:1":{"num_clients":3},"presence-x":{"num_clients":5},"#7":{"num_clients":1},"news:1":{"num_clients":2},"news:2":{"num_clients":2}}}}`},
		{"without params", "channels", ``, `{"result":{"channels":{"room:1":{"num_clients":3},"presence-x":{"num_clients":5},"#7":{"num_clients":1},"news:1":{"num_clients":2},"news:2":{"num_clients":2}}}}`},
		{"by pattern", "channels", `{"pattern":"n*:2"}`, `{"result":{"channels":{"news:2":{"num_clients":2}}}}`},
		{"by one character", "channels", `{"pattern":"?oom:1"}`, `{"result":{"channels":{"room:1":{"num_clients":3}}}}`},
		{"by name", "channels", `{"pattern":"news"}`, `{"result":{"channels":{}}}`},
		{"a page", "channels", `{"limit":2}`, `{"result":{"channels":{"#7":{"num_clients":1},"news:1":{"num_clients":2}},"next":"news:1"}}`},
		{"the next", "channels", `{"limit":2,"after":"news:1"}`, `{"result":{"channels":{"news:2":{"num_clients":2},"presence-x":{"num_clients":5}},"next":"presence-x"}}`},
		{"the last", "channels", `{"limit":2,"after":"presence-x"}`, `{"result":{"channels":{"room:1":{"num_clients":3}}}}`},
		{"rpc", "rpc", `{"method":"chat.echo","params":{"a":[1]}}`, `{"result":{"data":{"echo":{"a":[1]}}}}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := f.post("/api/"+tc.method, tc.body, withKey); got.status != 200 || !sameJSON(t, got.body, tc.want) {
				t.Errorf("answer %d %s, want %s", got.status, got.body, tc.want)
			}
		})
	}
	f.keep(4<<10, message.Publication{Kind: message.Event, Data: []byte(`"<&>"`)})
	if got := f.post("/api/history", `{"channel":"news:1","limit":1,"reverse":true}`, withKey); !strings.Contains(got.body, `"data":"<&>"`) {
		t.Errorf("data that HTML would escape: %s", got.body)
	}
	if got := f.post("/api/rpc", `{"method":"chat.nonsense"}`, withKey); !strings.Contains(got.body, `"code":100`) {
		t.Errorf("a hook that answers no JSON: %s", got.body)
	}
	if got := f.post("/api/history_remove", `{"channel":"cache:1"}`, withKey); got.body != `{"result":{}}` {
		t.Errorf("history_remove: %s", got.body)
	}
	if pubs := f.take(); len(pubs) != 1 || pubs[0].Kind != message.HistoryRemoved || pubs[0].Channel != "cache:1" || pubs[0].App != "7" {
		t.Errorf("published %+v", pubs)
	}
}

func TestCentrifugoUnavailable(t *testing.T) {
	f := start(t, func(c *apiConfig) { c.PublishTimeout, c.QueryTimeout = timeoutShort, timeoutShort })
	for method, body := range map[string]string{
		"publish": `{"channel":"a","data":1}`, "history": `{"channel":"news:1"}`, "presence": `{"channel":"room:1"}`, "presence_stats": `{"channel":"presence-x"}`,
		"channels": `{}`, "history_remove": `{"channel":"news:1"}`, "rpc": `{"method":"chat.echo"}`,
	} {
		got := f.post("/api/"+method, body, withKey+"X-Centrifugo-Error-Mode: transport\r\n")
		if got.status != 500 || !strings.Contains(got.body, `"code":100,`) {
			t.Errorf("%s: %d %s", method, got.status, got.body)
		}
	}
}

func TestCentrifugoOperations(t *testing.T) {
	f := start(t)
	commands := f.gateways()
	yes := true
	for _, tc := range []struct {
		method, body string
		want         control.Operation
	}{
		{"subscribe", `{"user":"u","channel":"news:1","expire_at":7,"info":{"a":1},"b64data":"AAE=","recover_since":{"offset":5,"epoch":"e"},
			"override":{"presence":{"value":true},"join_leave":{"value":false}}}`, control.Operation{
			Select: control.Select{User: "u"}, Subscribe: &control.SubscribeThem{
				Channel: "news:1", SinceOffset: 5, SinceEpoch: "e",
				Grant: authz.Grant{ExpireAt: 7, Info: `{"a":1}`, Data: []byte{0, 1}, Presence: &yes, JoinLeave: new(bool)},
			},
		}},
		{"subscribe", `{"client":"1.1","channel":"a"}`, control.Operation{Select: control.Select{Client: "1.1"}, Subscribe: &control.SubscribeThem{Channel: "a"}}},
		{"unsubscribe", `{"all_users":true,"channel":"a"}`, control.Operation{Select: control.Select{All: true}, Unsubscribe: "a"}},
		{"disconnect", `{"user":"u","whitelist":["1.1"]}`, control.Operation{
			Select: control.Select{User: "u", Except: []string{"1.1"}}, Disconnect: &authz.Verdict{Disconnect: true, Code: 3503, Text: "force disconnect"},
		}},
		{"disconnect", `{"user":"u","client":"1.1","disconnect":{"code":4001,"reason":"because"}}`, control.Operation{
			Select: control.Select{User: "u", Client: "1.1"}, Disconnect: &authz.Verdict{Disconnect: true, Code: 4001, Text: "because"},
		}},
		{"refresh", `{"user":"u","expire_at":9,"info":{"a":1}}`, control.Operation{
			Select: control.Select{User: "u"}, Refresh: &authz.Credentials{User: "u", ExpireAt: 9, Info: `{"a":1}`},
		}},
		{"refresh", `{"user":"u","expired":true}`, control.Operation{Select: control.Select{User: "u"}, Refresh: &authz.Credentials{User: "u", Expired: true}}},
	} {
		if got := f.post("/api/"+tc.method, tc.body, withKey); got.body != `{"result":{}}` {
			t.Errorf("%s %s: %s", tc.method, tc.body, got.body)
			continue
		}
		if cmd := <-commands; cmd.App != "7" || cmd.Operation == nil || !reflect.DeepEqual(*cmd.Operation, tc.want) {
			t.Errorf("%s %s: %+v, want %+v", tc.method, tc.body, cmd.Operation, tc.want)
		}
	}
}

func TestCentrifugoConnections(t *testing.T) {
	f := startAs(t, []string{"api", "gateway"}, noop.NewTracerProvider())
	f.gateways(control.Answer{
		Node: "api-1", Numbers: &control.Numbers{Clients: 4, Users: 3, Channels: 2, Subscriptions: 1},
		Connections: []control.Connection{
			{Client: "1.1", User: "u", Name: "js", Version: "1", Transport: "websocket", Protocol: "centrifugo", Meta: `{"a":1}`, Channels: []string{"a"}}, {Client: "1.2"},
		},
	})
	got := f.post("/api/connections", `{"user":"u"}`, withKey)
	if !sameJSON(t, got.body, `{"result":{"connections":{"1.1":{"user":"u","app_name":"js","app_version":"1","transport":"websocket","protocol":"centrifugo",
		"state":{"meta":{"a":1},"channels":{"a":{}}}},"1.2":{"state":{}}}}}`) {
		t.Errorf("connections: %s", got.body)
	}
	got = f.post("/api/info", ``, withKey)
	var info struct {
		Result struct{ Nodes []map[string]any }
	}
	if err := json.Unmarshal([]byte(got.body), &info); err != nil || len(info.Result.Nodes) != 1 {
		t.Fatalf("info: %s, %v", got.body, err)
	}
	n := info.Result.Nodes[0]
	if n["name"] != "api-1" || n["num_clients"] != 4. || n["num_users"] != 3. || n["num_channels"] != 2. || n["num_subs"] != 1. || n["uid"] == "" {
		t.Errorf("info: %s", got.body)
	}
}

// A gateway that does not answer is told, rather than left out.
func TestCentrifugoConnectionsOfAGatewayThatIsAway(t *testing.T) {
	f := startAs(t, []string{"api", "gateway"}, noop.NewTracerProvider(), func(c *apiConfig) { c.QueryTimeout = timeoutShort })
	f.gateways()
	for _, method := range []string{"connections", "info"} {
		if got := f.post("/api/"+method, `{}`, withKey); !strings.Contains(got.body, `"code":100,`) || !strings.Contains(got.body, "api-1") {
			t.Errorf("%s: %s", method, got.body)
		}
	}
}

func TestCentrifugoBatch(t *testing.T) {
	f := start(t).router().presence()
	for _, parallel := range []string{"false", "true"} {
		got := f.post("/api/batch", `{"parallel":`+parallel+`,"commands":[
			{"publish":{"channel":"news:1","data":1}},{"presence_stats":{"channel":"room:1"}},{"publish":{"channel":7}},{"block_user":{}},{"nothing":{}},{},
			{"publish":{"channel":"a","data":1},"info":{}}]}`, withKey)
		var answer struct{ Replies []map[string]json.RawMessage }
		if err := json.Unmarshal([]byte(got.body), &answer); err != nil || len(answer.Replies) != 7 {
			t.Fatalf("answer %s: %v", got.body, err)
		}
		r := answer.Replies
		if string(r[0]["publish"]) != `{"offset":1024,"epoch":"epoch"}` || string(r[1]["presence_stats"]) != `{"num_clients":0,"num_users":0}` {
			t.Errorf("answer %s", got.body)
		}
		for i, code := range map[int]string{2: "107", 3: "108", 4: "104", 5: "107", 6: "107"} {
			if !strings.Contains(string(r[i]["error"]), `"code":`+code+`,`) || len(r[i]) != 1 {
				t.Errorf("reply %d is %s, want error %s", i, r[i], code)
			}
		}
	}
	many := strings.Repeat(`{"info":{}},`, 1000) + `{"info":{}}`
	if got := f.post("/api/batch", `{"commands":[`+many+`]}`, withKey); !strings.Contains(got.body, `"code":106`) {
		t.Errorf("1001 commands: %s", got.body)
	}
}

// The form of older versions: lines of commands, lines of replies.
func TestCentrifugoLines(t *testing.T) {
	f := start(t).router().presence()
	got := f.post("/api", `{"method":"publish","params":{"channel":"news:1","data":{}}}`+"\n"+`{"method":"channels"}`+"\n"+
		`{"method":"nothing"}`+"\n"+`{"method":"publish","params":{"channel":7}}`+"\n", withKey)
	lines := strings.Split(got.body, "\n")
	if got.status != 200 || len(lines) != 4 || lines[0] != `{"result":{"offset":1024,"epoch":"epoch"}}` || lines[1] != `{"result":{"channels":{}}}` ||
		!strings.Contains(lines[2], `"code":104`) || !strings.Contains(lines[3], `"code":107`) {
		t.Errorf("answer %d %q", got.status, lines)
	}
}
