package centrifugo

import (
	"encoding/json"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
	"github.com/carillon-rt/carillon/proto/message"
)

// head parses a request's head.
func head(t *testing.T, raw string) *httphead.Head {
	t.Helper()
	h := &httphead.Head{}
	if err := h.Parse([]byte(raw + "\r\n")); err != nil {
		t.Fatal(err)
	}
	return h
}

func TestRequestsOfTransports(t *testing.T) {
	text, binary, events := NewStream(New(JSON)), NewStream(New(Protobuf)), NewEvents(New(JSON))
	const typed = "Content-Type: application/octet-stream\r\n"
	for raw, want := range map[string]struct {
		of   *HTTP // nil for nobody's
		kind dialect.RequestKind
		app  string
		says string // first
	}{
		"POST /connection/http_stream?app=7 HTTP/1.1\r\nHost: h\r\n":                      {text, dialect.Stream, "7", ""},
		"POST /connection/http_stream/ HTTP/1.1\r\nHost: h\r\n" + typed:                   {binary, dialect.Stream, "", ""},
		"GET /connection/sse?cf_connect=%7B%22id%22%3A1%7D&app=a HTTP/1.1\r\nHost: h\r\n": {events, dialect.Stream, "a", `{"id":1}`},
		"POST /connection/sse HTTP/1.1\r\nHost: h\r\n":                                    {events, dialect.Stream, "", ""},
		"POST /emulation HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\n":       {text, dialect.Send, "", ""},
		"POST /emulation HTTP/1.1\r\nHost: h\r\n" + typed:                                 {binary, dialect.Send, "", ""},
		"GET /emulation HTTP/1.1\r\nHost: h\r\n":                                          {text, dialect.Fixed, "", ""},
		"GET /connection/http_stream HTTP/1.1\r\nHost: h\r\n":                             {text, dialect.Fixed, "", ""},
		"PUT /connection/sse HTTP/1.1\r\nHost: h\r\n":                                     {events, dialect.Fixed, "", ""},
		"GET /connection/websocket HTTP/1.1\r\nHost: h\r\n":                               {},
		"POST /connection/http_streams HTTP/1.1\r\nHost: h\r\n":                           {},
	} {
		for _, d := range []*HTTP{text, binary, events} {
			req, ok := d.Request(head(t, raw))
			if ok != (d == want.of) {
				t.Errorf("%s: %s says %v", raw, d.Name(), ok)
			}
			if ok && (req.Kind != want.kind || want.kind != dialect.Fixed && (req.Hello.Key != want.app || req.Hello.Host != "h") || string(req.First) != want.says) {
				t.Errorf("%s: %+v", raw, req)
			}
		}
	}
}

// FuzzEmulation: what both encodings read of a request is what was written into
// it, and nothing panics.
// A carriage return ends a line of server-sent events, as a line feed does.
func TestEventsHoldWholeMessages(t *testing.T) {
	d := New(JSON)
	pub := message.Publication{Kind: message.Event, Channel: "news", Data: []byte("{\r\n\"a\":\r1,\n\"b\":\"\\r\\n\"}")}
	event := NewEvents(d).Transport().Framing.Append(nil, d.Views()[ViewPlain].Append(nil, 7, &pub))
	if want := `data: {"push":{"channel":"news","pub":{"data":{"a":1,"b":"\r\n"},"offset":7}}}` + "\n\n"; string(event) != want {
		t.Errorf("%q, want %q", event, want)
	}
}

func FuzzEmulation(f *testing.F) {
	f.Add("node", "session", []byte(`{"id":1,"connect":{}}`))
	f.Add("", "x\n", []byte{0x0a, 0xff, 0xff})
	text, binary, send := NewStream(New(JSON)), NewStream(New(Protobuf)), &dialect.Request{Kind: dialect.Send}
	f.Fuzz(func(t *testing.T, node, session string, data []byte) {
		_, _ = binary.Post(send, data)
		_, _ = text.Post(send, data)
		var b []byte
		for number, value := range []string{1: node, 2: session, 3: string(data), 4: "of a later version"} {
			if number > 0 {
				b = protowire.AppendString(protowire.AppendTag(b, protowire.Number(number), protowire.BytesType), value)
			}
		}
		p, err := binary.Post(send, b)
		if err != nil || p.Node != node || p.ID != session || string(p.Messages[0]) != string(data) {
			t.Fatalf("%+v, %v", p, err)
		}
		b, err = json.Marshal(map[string]string{"node": node, "session": session, "data": string(data)})
		if err != nil {
			t.Fatal(err)
		}
		var want struct{ Node, Session, Data string } // what is no UTF-8 is replaced
		if err := json.Unmarshal(b, &want); err != nil {
			t.Fatal(err)
		}
		if p, err = text.Post(send, b); err != nil || p.Node != want.Node || p.ID != want.Session || string(p.Messages[0]) != want.Data {
			t.Fatalf("%+v, %v", p, err)
		}
	})
}
