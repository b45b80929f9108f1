package hook

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func connectCall(h *app.Hook) *Call {
	return &Call{
		App: "1", Hook: h, Kind: Connect, Client: &authz.Client{},
		Request: &ConnectRequest{From: From{Client: "c1", Transport: "websocket", Protocol: "centrifugo", Encoding: "json"}},
	}
}

func (w *world) count(h *app.Hook, outcome string) int {
	return int(testutil.ToFloat64(w.client.metrics.total.WithLabelValues("1", h.Name, outcome)))
}

var from1 = From{Client: "c1", Transport: "websocket", Protocol: "centrifugo", Encoding: "json"}

// rpcType is the metadata "type" of a gRPC call: the kind, but for
// notifications, which RoadRunner's workers know by their method.
func rpcType(kind Kind, method string) string {
	if strings.HasPrefix(method, "Notify") {
		return method
	}
	return string(kind)
}

// Each kind of question arrives as it is, and each answer, over each way.
func TestQuestionsAndAnswers(t *testing.T) {
	w := newWorld(t)
	for _, c := range []struct {
		kind    Kind
		method  string
		request Request
		body    string // of the request as JSON; zero fields of gRPC are left out there
		answer  string
		out     Answer
		want    any
	}{
		{
			Connect, "Connect", &ConnectRequest{From: from1, Data: json.RawMessage(`{"a":"<1>"}`), Name: "js", Version: "1.0", Channels: []string{"x", "y"}},
			`{"client":"c1","transport":"websocket","protocol":"centrifugo","encoding":"json","data":{"a":"<1>"},"name":"js","version":"1.0","channels":["x","y"]}`,
			`{"result":{"user":"7","expire_at":1769864400,"info":{"a":1},"b64info":"MQ==","data":[1],"b64data":"Mg==","channels":["x","y"],"meta":{"m":1},"unknown":1,"caps":[],
			  "subs":{"z":{"expire_at":5,"info":1,"data":2,"override":{"presence":{"value":true},"join_leave":{"value":false},"force_recovery":{"value":true},"force_positioning":{},"force_push_join_leave":{"value":true}}},"e":{}}}}`,
			&Response[ConnectResult]{}, nil,
		},
		{
			Refresh, "Refresh", &RefreshRequest{From: from1, User: "7", Meta: json.RawMessage(`{"m":1}`)},
			`{"client":"c1","transport":"websocket","protocol":"centrifugo","encoding":"json","user":"7","meta":{"m":1}}`,
			`{"result":{"expired":true,"expire_at":-1,"info":1,"b64info":"Mg==","meta":3}}`,
			&Response[RefreshResult]{}, &Response[RefreshResult]{Result: &RefreshResult{true, -1, json.RawMessage(`1`), "Mg==", json.RawMessage(`3`)}},
		},
		{
			Subscribe, "Subscribe", &SubscribeRequest{From: from1, User: "7", Channel: "news", Token: "t", Meta: json.RawMessage(`1`), B64Data: "AA=="},
			`{"client":"c1","transport":"websocket","protocol":"centrifugo","encoding":"json","user":"7","channel":"news","token":"t","meta":1,"b64data":"AA=="}`,
			`{"result":{"expire_at":5,"info":1,"data":"x","override":{"presence":{"value":true}},"allow":["pub","hst"]}}`,
			&Response[SubscribeResult]{}, nil,
		},
		{
			SubRefresh, "SubRefresh", &SubRefreshRequest{From: from1, User: "7", Channel: "news", Meta: json.RawMessage(`1`)},
			`{"client":"c1","transport":"websocket","protocol":"centrifugo","encoding":"json","user":"7","channel":"news","meta":1}`,
			`{"result":{"expired":true,"expire_at":9,"info":1,"b64info":"Mg=="}}`,
			&Response[SubRefreshResult]{}, &Response[SubRefreshResult]{Result: &SubRefreshResult{true, 9, json.RawMessage(`1`), "Mg=="}},
		},
		{
			Publish, "Publish", &PublishRequest{From: from1, User: "7", Channel: "news", Data: json.RawMessage(`{}`), Meta: json.RawMessage(`1`)},
			`{"client":"c1","transport":"websocket","protocol":"centrifugo","encoding":"json","user":"7","channel":"news","data":{},"meta":1}`,
			`{"result":{"data":1,"b64data":"Mg==","skip_history":true,"tags":{"a":"b","c":""},"idempotency_key":"k","delta":true}}`,
			&Response[PublishResult]{}, &Response[PublishResult]{Result: &PublishResult{json.RawMessage(`1`), "Mg==", true, map[string]string{"a": "b", "c": ""}, "k", true}},
		},
		{
			RPC, "RPC", &RPCRequest{From: from1, User: "7", Method: "m", Data: json.RawMessage(`null`), Meta: json.RawMessage(`1`)},
			`{"client":"c1","transport":"websocket","protocol":"centrifugo","encoding":"json","user":"7","method":"m","data":null,"meta":1}`,
			`{"error":{"code":1000,"message":"m","temporary":true},"disconnect":{"code":4500,"reason":"r"}}`,
			&Response[RPCResult]{}, &Response[RPCResult]{Error: &Error{1000, "m", true}, Disconnect: &Disconnect{4500, "r"}},
		},
		{
			CacheEmpty, "NotifyCacheEmpty", &CacheEmptyRequest{Channel: "cache-news"},
			`{"channel":"cache-news"}`,
			`{"result":{"populated":true}}`,
			&Response[CacheEmptyResult]{}, &Response[CacheEmptyResult]{Result: &CacheEmptyResult{true}},
		},
	} {
		for way, b := range w.backends {
			h := &app.Hook{Name: way, URL: b.url}
			b.says(reply{body: c.answer})
			c.out = reflect.New(reflect.TypeOf(c.out).Elem()).Interface().(Answer)
			err := w.client.Ask(t.Context(), &Call{App: "1", Hook: h, Kind: c.kind, Client: &authz.Client{}, Request: c.request}, c.out)
			if err != nil {
				t.Errorf("%s over %s: %v", c.kind, way, err)
				continue
			}
			all := b.requests()
			got := all[len(all)-1]
			if got.body != c.body {
				t.Errorf("%s over %s sent\n%s, want\n%s", c.kind, way, got.body, c.body)
			}
			if way == "grpc" && (got.path != "/centrifugal.centrifugo.proxy.CentrifugoProxy/"+c.method || got.headers["type"] != strings.ToLower(rpcType(c.kind, c.method))) {
				t.Errorf("%s over gRPC called %s with type %q", c.kind, got.path, got.headers["type"])
			}
			if way != "grpc" && got.headers["carillon-hook"] != string(c.kind) {
				t.Errorf("%s over %s has headers %v", c.kind, way, got.headers)
			}
			want := c.want
			if want == nil {
				want = reflect.New(reflect.TypeOf(c.out).Elem()).Interface()
				if err := json.Unmarshal([]byte(c.answer), want); err != nil {
					t.Fatal(err)
				}
			}
			if !reflect.DeepEqual(c.out, want) {
				a, _ := json.Marshal(c.out)
				b, _ := json.Marshal(want)
				t.Errorf("%s over %s gave\n%s, want\n%s", c.kind, way, a, b)
			}
		}
	}
}

func TestNoResult(t *testing.T) {
	w := newWorld(t)
	for way, b := range w.backends {
		for _, body := range []string{`{}`, `{"result":null}`, `{"result":{}}`} {
			if way == "grpc" && strings.Contains(body, "null") {
				continue
			}
			h := &app.Hook{Name: way, URL: b.url}
			b.says(reply{body: body})
			var out Response[ConnectResult]
			if err := w.client.Ask(t.Context(), connectCall(h), &out); err != nil || (out.Result != nil) != strings.Contains(body, "{}}") {
				t.Errorf("%s over %s: %+v, %v", body, way, out, err)
			}
		}
	}
}

// Answers that are none say so, are counted and logged once, and tell neither
// clients nor the log what was in them.
func TestBadAnswers(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	defer close(release)
	for _, c := range []struct {
		name string
		ways string
		say  reply
		want string
	}{
		{"late", "http grpc nats", reply{hang: release, body: `{}`}, timeout},
		{"500", "http", reply{status: 500, body: `{"result":{"user":"hidden"}}`}, overloaded},
		{"503", "http grpc", reply{status: 503}, overloaded},
		{"429", "http grpc", reply{status: 429}, overloaded},
		{"404", "http grpc", reply{status: 404, body: `{"result":{}}`}, status},
		{"201", "http", reply{status: 201, body: `{"result":{}}`}, status},
		{"204", "http", reply{status: 204}, status},
		{"302", "http", reply{status: 302, body: `{"result":{}}`}, status},
		{"service error", "nats", reply{status: 500, body: `{"result":{}}`}, status},
		{"empty", "http nats", reply{}, malformed},
		{"text", "http nats", reply{body: "hidden"}, malformed},
		{"page", "http nats", reply{body: "<html>hidden</html>"}, malformed},
		{"half", "http nats", reply{body: `{"result":{"user":"hidden"`}, malformed},
		{"two", "http nats", reply{body: `{"result":{}}{"hidden":1}`}, malformed},
		{"null", "http nats", reply{body: `null`}, malformed},
		{"list", "http nats", reply{body: `["hidden"]`}, malformed},
		{"number for text", "http nats", reply{body: `{"result":{"user":7}}`}, malformed},
		{"text for number", "http nats", reply{body: `{"result":{"expire_at":"hidden"}}`}, malformed},
		{"text for result", "http nats", reply{body: `{"result":"hidden"}`}, malformed},
		{"negative code", "http nats", reply{body: `{"error":{"code":-1}}`}, malformed},
		{"text for channels", "http nats", reply{body: `{"result":{"channels":"hidden"}}`}, malformed},
		{"huge", "http grpc", reply{body: `{"result":{"user":"` + strings.Repeat("x", answerBytesMax) + `"}}`}, malformed},
		{"no message", "grpc", reply{raw: []byte("hidden")}, malformed},
		{"cut", "grpc", reply{raw: []byte{0x0a, 0x7f, 1}}, malformed},
		{"wrong type", "grpc", reply{raw: []byte{0x08, 1}}, malformed},
		{"wrong type inside", "grpc", reply{raw: []byte{0x0a, 2, 0x08, 1}}, malformed},
		{"user is no text", "grpc", reply{raw: []byte{0x0a, 3, 0x0a, 1, 0xff}}, malformed},
	} {
		for way := range strings.SplitSeq(c.ways, " ") {
			b := w.backends[way]
			h := &app.Hook{Name: way + " " + c.name, URL: b.url, Timeout: 50 * time.Millisecond}
			if c.want != timeout {
				h.Timeout = 10 * time.Second
			}
			b.says(c.say)
			out := Response[ConnectResult]{Result: &ConnectResult{User: "before"}}
			err := w.client.Ask(t.Context(), connectCall(h), &out)
			var f *Failure
			if !errors.As(err, &f) || f.Outcome != c.want {
				t.Errorf("%s over %s: %v, want %s", c.name, way, err, c.want)
			}
			if out.Result == nil || out.Result.User != "before" {
				t.Errorf("%s over %s left half an answer: %+v", c.name, way, out)
			}
			if w.count(h, c.want) != 1 {
				t.Errorf("%s over %s was not counted as %s", c.name, way, c.want)
			}
			if !strings.Contains(w.log.String(), h.Name) {
				t.Errorf("%s over %s: the log does not say so", c.name, way)
			}
		}
	}
	for line := range strings.SplitSeq(w.log.String(), "\n") {
		if strings.Contains(line, "hidden") && !strings.Contains(line, "grpc") {
			t.Errorf("the log repeats an answer: %s", line)
		}
	}
}

func TestNobodyThere(t *testing.T) {
	w := newWorld(t)
	for name, h := range map[string]*app.Hook{
		"http":     {Name: "h", URL: "http://user:hidden@127.0.0.1:1/hidden?x=hidden"},
		"grpc":     {Name: "g", URL: "grpc://127.0.0.1:1"},
		"nats":     {Name: "n", URL: "nats:nobody"},
		"no url":   {Name: "u"},
		"no https": {Name: "s", URL: strings.Replace(w.backends["http"].url, "http", "https", 1)},
	} {
		var out Response[ConnectResult]
		err := w.client.Ask(t.Context(), connectCall(h), &out)
		var f *Failure
		if !errors.As(err, &f) || f.Outcome != unreachable && f.Outcome != overloaded {
			t.Errorf("%s: %v", name, err)
		}
	}
	if strings.Contains(w.log.String(), "hidden") {
		t.Errorf("the log tells a credential: %s", w.log)
	}
}

func TestHeaders(t *testing.T) {
	w := newWorld(t)
	for way, b := range w.backends {
		h := &app.Hook{
			Name: way, URL: b.url, Headers: map[string]string{"X-Static": "own", "X-Both": "own"},
			ForwardHeaders: []string{"Cookie", "X-Both", "X-Real", "X-Bad"}, EmulatedHeaders: []string{"Authorization", "X-Real", "X-Bad"},
		}
		b.says(reply{body: `{}`})
		c := connectCall(h)
		c.Client = &authz.Client{
			Headers:  map[string]string{"cookie": "a=b", "x-both": "client", "x-real": "real", "x-other": "no", "x-bad": "a\r\nb: c"},
			Emulated: map[string]string{"authorization": "token", "x-real": "emulated", "cookie": "emulated", "x-static": "emulated", "x-bad": "emulated"},
		}
		var out Response[ConnectResult]
		if err := w.client.Ask(t.Context(), c, &out); err != nil {
			t.Errorf("%s: %v", way, err)
			continue
		}
		got := b.requests()[0].headers
		for name, want := range map[string]string{
			"x-static": "own", "x-both": "own", "cookie": "a=b", "x-real": "real", "authorization": "token", "x-other": "", "x-bad": "", "b": "",
		} {
			if got[name] != want {
				t.Errorf("%s over %s is %q, want %q", name, way, got[name], want)
			}
		}
	}
}

// Statuses that mean something are answers, whatever else comes with them.
func TestStatuses(t *testing.T) {
	w := newWorld(t)
	b := w.backends["http"]
	h := &app.Hook{Name: "x", URL: b.url, Statuses: []app.StatusAnswer{{Status: 403, Code: 103, Text: "no", Temporary: true}, {Status: 503, Code: 4501, Text: "bye", Disconnect: true}}}
	for status, want := range map[int]authz.Verdict{403: {Code: 103, Text: "no", Temporary: true}, 503: {Disconnect: true, Code: 4501, Text: "bye"}} {
		b.says(reply{status: status, body: `{"result":{"user":"7"}}`})
		var out Response[ConnectResult]
		if err := w.client.Ask(t.Context(), connectCall(h), &out); err != nil || out.Result != nil || *out.Verdict() != want {
			t.Errorf("%d: %+v, %v", status, out, err)
		}
	}
	b.says(reply{status: 404})
	if err := w.client.Ask(t.Context(), connectCall(h), &Response[ConnectResult]{}); err == nil {
		t.Error("404 is an answer")
	}
}

func TestEncode(t *testing.T) {
	for _, c := range []struct {
		hook     app.Hook
		data     string
		raw, b64 string
	}{
		{app.Hook{URL: "http://x"}, "", "", ""},
		{app.Hook{URL: "http://x", Binary: true}, "", "", ""},
		{app.Hook{URL: "http://x"}, `{"a":1}`, `{"a":1}`, ""},
		{app.Hook{URL: "http://x", Binary: true}, `{"a":1}`, "", "eyJhIjoxfQ=="},
		{app.Hook{URL: "nats:x"}, "\x00", "", "AA=="},
		{app.Hook{URL: "grpc://x:1"}, "\x00", "\x00", ""},
		{app.Hook{URL: "grpcs://x:1", Binary: true}, "\x00", "", "AA=="},
	} {
		if raw, b64 := Encode(&c.hook, []byte(c.data)); string(raw) != c.raw || b64 != c.b64 {
			t.Errorf("%q to %+v: %q and %q", c.data, c.hook, raw, b64)
		}
	}
}

func TestNewFrom(t *testing.T) {
	for _, c := range []struct {
		hook                       app.Hook
		client                     authz.Client
		b64                        string
		wantProtocol, wantEncoding string
	}{
		{app.Hook{}, authz.Client{Protocol: "centrifugo", Encoding: "json"}, "", "json", "json"},
		{app.Hook{}, authz.Client{Protocol: "centrifugo", Encoding: "binary"}, "", "protobuf", "json"},
		{app.Hook{}, authz.Client{Protocol: "centrifugo", Encoding: "json"}, "AA==", "json", "binary"},
		{app.Hook{Binary: true}, authz.Client{Protocol: "pusher", Encoding: "json"}, "", "pusher", "binary"},
	} {
		c.client.ID, c.client.Transport = "c1", "sse"
		if got, want := NewFrom(&c.hook, &c.client, c.b64), (From{"c1", "sse", c.wantProtocol, c.wantEncoding}); got != want {
			t.Errorf("%+v of %+v is %+v, want %+v", c.hook, c.client, got, want)
		}
	}
}

func TestMalformedIsCounted(t *testing.T) {
	w := newWorld(t)
	h := &app.Hook{Name: "x", URL: w.backends["http"].url}
	w.client.Malformed(connectCall(h), errors.New("nonsense"))
	if w.count(h, malformed) != 1 || !strings.Contains(w.log.String(), "nonsense") {
		t.Errorf("not counted or not logged: %s", w.log)
	}
}
