package edge

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/dialect/pusher"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/message"
	"google.golang.org/protobuf/encoding/protowire"
)

// startCentrifugoHTTP starts an edge for clients of Centrifugo with and without
// WebSockets.
func startCentrifugoHTTP(t *testing.T) (*fixture, *answers) {
	t.Helper()
	a := &answers{}
	f := startWith(t, func(cfg *Config) {
		text, binary := codec.New(codec.JSON), codec.New(codec.Protobuf)
		cfg.Node, cfg.Answers, cfg.History = "node-a", a, a
		cfg.Protocols = []Protocol{
			Pusher(pusher.New("")), Centrifugo(text), CentrifugoHTTP(codec.NewStream(text)),
			CentrifugoHTTP(codec.NewStream(binary)), CentrifugoHTTP(codec.NewEvents(text)),
		}
	}, func(settings *app.App) { settings.Centrifugo = app.Centrifugo{Enabled: true} })
	return f, a
}

// connected reads a reply to connect, which names the session.
func connected(t *testing.T, line string) (node, session string) {
	t.Helper()
	var reply struct {
		ID      int
		Connect struct{ Client, Session, Node string }
	}
	if err := json.Unmarshal([]byte(line), &reply); err != nil || reply.ID != 1 || reply.Connect.Node != "node-a" ||
		reply.Connect.Session == "" || reply.Connect.Session == reply.Connect.Client {
		t.Fatalf("%q: %+v, %v", line, reply, err)
	}
	return reply.Connect.Node, reply.Connect.Session
}

func TestCentrifugoWithoutWebSocket(t *testing.T) {
	f, a := startCentrifugoHTTP(t)
	connect := `{"id":1,"connect":{"token":"42"}}`
	for _, c := range []struct {
		name, transport string
		open            func(v *visitor) *http.Response
		begin           string // of a message
	}{
		{"stream", "http_stream", func(v *visitor) *http.Response { return v.ask("POST", "/connection/http_stream", connect) }, ""},
		{"events", "sse", func(v *visitor) *http.Response {
			return v.ask("GET", "/connection/sse?cf_connect="+url.QueryEscape(connect), "")
		}, "data: "},
		{"events by POST", "sse", func(v *visitor) *http.Response { return v.ask("POST", "/connection/sse", connect) }, "data: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := f.visitor()
			v.fixture.T = t
			s := v.stream(c.open(v))
			if c.begin != "" {
				s.want("\r")
			}
			said := func() string {
				t.Helper()
				return strings.TrimPrefix(s.line(), c.begin)
			}
			node, session := connected(t, said())
			v.wantAll("POST", "/emulation", post(node, session, "{\"id\":2,\"subscribe\":{\"channel\":\"news\"}}"), "204 ")
			if line := said(); line != `{"id":2,"subscribe":{}}`+"\n" {
				t.Fatalf("got %q", line)
			}
			f.publish("news", 0, func(pub *message.Publication) { pub.Event, pub.Data = "", []byte(`{"x":1}`) })
			if line := said(); line != `{"push":{"channel":"news","pub":{"data":{"x":1}}}}`+"\n" {
				t.Fatalf("got %q", line)
			}
			v.wantAll("POST", "/emulation", post(node, session, "nonsense"), "204 ")
			if line := said(); !strings.HasPrefix(line, `{"push":{"disconnect":{"code":3501,"reason":"bad request`) {
				t.Errorf("got %q", line)
			}
			a.mu.Lock()
			defer a.mu.Unlock()
			if req, ok := a.asked[len(a.asked)-1].(*authz.Connect); !ok || req.Transport != c.transport {
				t.Errorf("the application is asked %+v", a.asked[len(a.asked)-1])
			}
		})
	}
}

func TestCentrifugoStreamInProtobuf(t *testing.T) {
	f, _ := startCentrifugoHTTP(t)
	v := f.visitor()
	ask := func(path string, body []byte) *http.Response {
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+f.addr+path, strings.NewReader(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/octet-stream")
		res, err := v.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = res.Body.Close() })
		return res
	}
	field := func(number protowire.Number, value []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
	}
	command := func(id uint64, number protowire.Number, body []byte) []byte {
		cmd := append(protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), id), field(number, body)...)
		return protowire.AppendBytes(nil, cmd)
	}
	res := ask("/connection/http_stream", command(1, 4, field(1, []byte("42"))))
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/octet-stream" {
		t.Fatalf("%+v", res)
	}
	message := func() []byte {
		t.Helper()
		var length []byte
		for {
			b := make([]byte, 1)
			if _, err := io.ReadFull(res.Body, b); err != nil {
				t.Fatal(err)
			}
			if length = append(length, b[0]); b[0] < 0x80 {
				break
			}
		}
		n, _ := protowire.ConsumeVarint(length)
		m := make([]byte, n)
		if _, err := io.ReadFull(res.Body, m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	// fields of the connect result by number, out of the reply
	fields := func(b []byte) map[protowire.Number][]byte {
		all := map[protowire.Number][]byte{}
		for len(b) > 0 {
			number, kind, n := protowire.ConsumeTag(b)
			m := protowire.ConsumeFieldValue(number, kind, b[n:])
			if n < 0 || m < 0 {
				t.Fatalf("malformed: %x", b)
			}
			if value, m := protowire.ConsumeBytes(b[n:]); kind == protowire.BytesType && m > 0 {
				all[number] = value
			}
			b = b[n+m:]
		}
		return all
	}
	result := fields(fields(message())[5])
	session, node := result[9], result[10]
	emulation := append(append(field(1, node), field(2, session)...), field(3, command(2, 5, field(1, []byte("news"))))...)
	if res := ask("/emulation", emulation); res.StatusCode != 204 {
		t.Fatal(res.Status)
	}
	if reply := fields(message()); reply[6] == nil {
		t.Errorf("got %v, want the result of subscribe", reply)
	}
	if res := ask("/emulation", emulation[:len(emulation)-3]); res.StatusCode != 400 {
		t.Errorf("half a request: %s", res.Status)
	}
}

func TestCentrifugoRequestsWithoutWebSocket(t *testing.T) {
	f, _ := startCentrifugoHTTP(t)
	v := f.visitor()
	v.wantAll("POST", "/connection/http_stream", "", "400 "+"the first command is missing: connect, in the body, or as cf_connect in the query of server-sent events\n")
	v.wantAll("GET", "/connection/http_stream", "", "405 the method is POST\n")
	v.wantAll("POST", "/emulation", post("node-b", "1-2", "{}"), "404 no such session: it has ended, or never began\n")
	if got := v.all("POST", "/emulation", "{"); !strings.HasPrefix(got, `400 not JSON of {"session":..,"node":..,"data":..}: `) {
		t.Errorf("%q", got)
	}
	got := v.all("POST", "/connection/http_stream?app=nobody", `{"id":1,"connect":{}}`)
	if !strings.HasPrefix(got, `200 {"push":{"disconnect":{"code":35`) {
		t.Errorf("%q", got)
	}
}
