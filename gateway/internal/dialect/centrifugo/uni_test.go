package centrifugo

import (
	"reflect"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/proto/message"
)

func TestUniPushes(t *testing.T) {
	push := func(name, channel string, p Push) said {
		return said{name, func(d *Dialect) []byte { return d.AppendPush(nil, channel, p) }}
	}
	view := func(name string, view int, p message.Publication) said {
		p.Channel = "news"
		return said{name, func(d *Dialect) []byte { return d.Views()[view].Append(nil, 7, &p) }}
	}
	info := AppendClientInfo(nil, &ClientInfo{User: "42", Client: "1.2"})
	checkWords(t, "testdata/uni.txt", NewUnidirectional, []said{
		{"ping", func(d *Dialect) []byte { return d.AppendPing(nil) }},
		push("connect", "", &Connect{Client: "1.2", Version: "v", Ping: 25, Session: "s", Node: "n"}),
		push("connect with all", "", &Connect{
			Client: "1.2", Version: "v", Expires: true, TTL: 60, Data: []byte(`{"a":1}`), Ping: 25,
			Subs: map[string]*SubscribeResult{"b": {}, "a": {
				Recoverable: true, Epoch: "e", Offset: 5, Recovered: true, Positioned: true, WasRecovering: true,
				Publications: []Publication{{Position: 6, Publication: &message.Publication{Kind: message.Event, Data: []byte("1")}}},
			}},
		}),
		push("join", "news", &Join{info}),
		push("unsubscribe", "news", &Unsubscribe{2000, "server unsubscribe"}),
		push("subscribe", "news", &Subscribe{Recoverable: true, Epoch: "e", Offset: 5, Positioned: true, Data: []byte("{}")}),
		push("refresh", "", &Refresh{true, 60}),
		push("disconnect, come back", "", NewDisconnect(3001, "shutdown")),
		push("disconnect for good", "", NewDisconnect(3500, "invalid token")),
		view("publication", ViewPlain, message.Publication{Kind: message.Event, Event: "said", Data: []byte(`{"text":"hi"}`), Info: info}),
		view("member added, not asked for", ViewPlain, message.Publication{Kind: message.MemberAdded, UserID: `"1.2"`, Data: info}),
		view("member added", ViewMembers, message.Publication{Kind: message.MemberAdded, UserID: `"1.2"`, Data: info}),
	})
}

func TestConnectRequests(t *testing.T) {
	want := ConnectRequest{
		Token: "t", Data: []byte(`{"a":1}`), Name: "js", Version: "5", Headers: map[string]string{"a": "b"},
		Subs: map[string]SubscribeRequest{"news": {Recover: true, Epoch: "e", Offset: 5}},
	}
	for _, c := range []struct {
		encoding Encoding
		message  string
		want     ConnectRequest
	}{
		{JSON, "{}", ConnectRequest{}},
		{JSON, " {\n}\n", ConnectRequest{}},
		{JSON, `{"token":"t","data":{"a":1},"name":"js","version":"5","headers":{"a":"b"},"subs":{"news":{"recover":true,"epoch":"e","offset":5}},"later":1}`, want},
		{Protobuf, "", ConnectRequest{}},
		{Protobuf, "\x0a\x01t\x12\x07" + `{"a":1}` + "\x1a\x0f\x0a\x04news\x12\x07\x18\x01\x32\x01e\x38\x05\x22\x02js\x2a\x015\x32\x06\x0a\x01a\x12\x01b", want},
	} {
		got, err := all(NewUnidirectional(c.encoding), []byte(c.message))
		if err != nil || len(got) != 1 || !reflect.DeepEqual(got[0].Body, &c.want) {
			t.Errorf("%q: %+v, %v, want %+v", c.message, got, err, c.want)
		}
	}
	for _, c := range []struct {
		encoding      Encoding
		message, says string
	}{
		{JSON, "", "{} without a token"},
		{JSON, " \n", "{} without a token"},
		{JSON, "{", "malformed: not JSON"},
		{JSON, "[]", "object is expected"},
		{JSON, "null", "object is expected"},
		{JSON, "{}\n{}", "malformed: not JSON"},
		{JSON, "{\"token\":\"\xff\"}", "not valid UTF-8"},
		{JSON, `{"token":5}`, "not a string"},
		{JSON, `{"subs":{"a":{"offset":-1}}}`, "whole number"},
		{Protobuf, "\x0a\x05t", "cut short"},
		{Protobuf, "\x0a\x01\xff", "UTF-8"},
	} {
		if got, err := all(NewUnidirectional(c.encoding), []byte(c.message)); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: %+v, %v, want an error with %q", c.message, got, err, c.says)
		}
	}
}

func TestEnding(t *testing.T) {
	for _, c := range []struct {
		e      Error
		code   int
		reason string
	}{
		{ErrTokenExpired, 3005, "connection expired"},
		{Error{Code: 109, Message: "token expired: fetch a new one"}, 3005, "connection expired: fetch a new one"},
		{ErrExpired, 3005, "connection expired"},
		{Error{Code: 110, Message: "too late"}, 3005, "connection expired: too late"},
		{ErrTooMany, 3013, "too many requests"},
		{ErrDenied, 3507, "permission denied"},
		{ErrInternal, 3004, "internal server error"},
		{ErrLimit, 3004, "internal server error: error 106, limit exceeded"},
		{Error{Code: 1000, Message: "sold out"}, 3004, "internal server error: error 1000, sold out"},
	} {
		if code, reason := Ending(&c.e); code != c.code || reason != c.reason {
			t.Errorf("%+v ends with %d %q, want %d %q", c.e, code, reason, c.code, c.reason)
		}
	}
}

func TestUniRequests(t *testing.T) {
	text, binary := NewUnidirectional(JSON), NewUnidirectional(Protobuf)
	lines, delimited, events := NewStream(text), NewStream(binary), NewEvents(text)
	const (
		host  = " HTTP/1.1\r\nHost: h\r\n"
		typed = host + "Content-Type: application/octet-stream\r\n"
	)
	for _, c := range []struct {
		raw    string
		of     *HTTP // nil for nobody's
		kind   dialect.RequestKind
		first  string
		allows string
	}{
		{raw: "POST /connection/uni_http_stream?app=7" + host, of: lines, kind: dialect.Stream},
		{raw: "POST /connection/uni_http_stream/?app=7" + typed, of: delimited, kind: dialect.Stream},
		{raw: "GET /connection/uni_http_stream" + host, of: lines, allows: "OPTIONS, POST"},
		{raw: "GET /connection/uni_sse?cf_connect=%7B%22token%22%3A%22a%2Bb%22%7D&app=7" + host, of: events, kind: dialect.Stream, first: `{"token":"a+b"}`},
		{raw: "GET /connection/uni_sse?app=7" + host, of: events, kind: dialect.Stream, first: "{}"},
		{raw: "POST /connection/uni_sse?app=7" + host, of: events, kind: dialect.Stream},
		{raw: "PUT /connection/uni_sse" + host, of: events, allows: "GET, OPTIONS, POST"},
		{raw: "POST /emulation" + host},
		{raw: "GET /connection/sse" + host},
		{raw: "GET /connection/uni_sses" + host},
		{raw: "GET /connection/uni_websocket" + host},
	} {
		for _, d := range []*HTTP{lines, delimited, events} {
			req, ok := d.Request(head(t, c.raw))
			switch {
			case ok != (d == c.of):
				t.Errorf("%s: %s says %v", c.raw, d.Name(), ok)
			case !ok:
			case req.Kind != c.kind || string(req.First) != c.first || c.kind == dialect.Stream && (req.Hello.Key != "7" || req.Hello.Host != "h"):
				t.Errorf("%s: %+v", c.raw, req)
			case c.allows != "" && (req.Status != 405 || req.Header != "Allow: "+c.allows+"\r\n"):
				t.Errorf("%s: %+v", c.raw, req)
			}
		}
	}
	hello, ok := text.Hello(head(t, "GET /connection/uni_websocket/?cf_connect=%7B%7D&app=7"+host))
	if !ok || hello.First != "{}" || hello.Key != "7" || hello.Host != "h" {
		t.Errorf("%+v, %v", hello, ok)
	}
	if _, ok = text.Hello(head(t, "GET /connection/websocket"+host)); ok {
		t.Error("takes what is bidirectional")
	}
	if _, ok = New(JSON).Hello(head(t, "GET /connection/uni_websocket"+host)); ok {
		t.Error("the bidirectional dialect takes what is not")
	}
}

func TestUniBodies(t *testing.T) {
	events := NewEvents(NewUnidirectional(JSON))
	for _, c := range []struct{ first, body, want, says string }{
		{first: "{}", want: "{}"},
		{body: `{"token":"t"}`, want: `{"token":"t"}`},
		{first: "{}", body: `{"token":"t"}`, want: `{"token":"t"}`},
		{says: "{} without a token"},
		{first: "{", says: "malformed"},
	} {
		post, err := events.Post(&dialect.Request{Kind: dialect.Stream, First: []byte(c.first)}, []byte(c.body))
		switch {
		case c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%+v: %v", c, err)
		case c.says == "" && (err != nil || len(post.Messages) != 1 || string(post.Messages[0]) != c.want):
			t.Errorf("%+v: %q, %v", c, post.Messages, err)
		}
	}
	if _, err := events.Post(&dialect.Request{Kind: dialect.Send}, []byte(`{"data":"x"}`)); err != errNoMessages {
		t.Errorf("messages: %v", err)
	}
}
