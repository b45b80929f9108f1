package edge

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/dialect/pusher"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/message"
)

// startUni starts an edge for clients that only listen, and others.
func startUni(t *testing.T) (*fixture, *answers) {
	t.Helper()
	a := &answers{}
	f := startWith(t, func(cfg *Config) {
		text, binary := codec.NewUnidirectional(codec.JSON), codec.NewUnidirectional(codec.Protobuf)
		cfg.Node, cfg.Answers, cfg.History = "node-a", a, a
		cfg.Protocols = []Protocol{
			Pusher(pusher.New("")), Centrifugo(codec.New(codec.JSON)), CentrifugoHTTP(codec.NewStream(codec.New(codec.JSON))),
			Centrifugo(text), CentrifugoHTTP(codec.NewStream(text)), CentrifugoHTTP(codec.NewStream(binary)), CentrifugoHTTP(codec.NewEvents(text)),
		}
	}, func(settings *app.App) {
		settings.Centrifugo = app.Centrifugo{Enabled: true}
		settings.Policies = []app.Policy{{Match: "log*", History: app.History{Size: 10, TTL: time.Hour, Recover: true}}}
	})
	return f, a
}

// listener is a client that only listens, by whatever transport.
type listener struct {
	*fixture
	next func() string // the next push; "closed CODE" or "ended" at the end
	id   string
}

// listen connects by a transport with a ConnectRequest.
func (f *fixture) listen(transport, request string) *listener {
	f.Helper()
	l := &listener{fixture: f}
	query := "?cf_connect=" + url.QueryEscape(request)
	switch transport {
	case "uni_websocket":
		c := f.raw("/connection/uni_websocket")
		c.send("%s", request)
		l.next = c.push
	case "uni_websocket by URL":
		l.next = f.raw("/connection/uni_websocket" + query).push
	case "uni_sse":
		l.stream(f.visitor().ask("GET", "/connection/uni_sse"+query, ""), "data: ")
		l.want("\r", "")
	case "uni_sse by POST":
		l.stream(f.visitor().ask("POST", "/connection/uni_sse", request), "data: ")
		l.want("\r", "")
	case "uni_http_stream":
		l.stream(f.visitor().ask("POST", "/connection/uni_http_stream", request), "")
	default:
		f.Fatalf("no transport %q", transport)
	}
	return l
}

// stream reads a response; "data: " before each line is left out, and empty
// lines are.
func (l *listener) stream(res *http.Response, begin string) {
	s := l.visitor().stream(res)
	l.next = func() string {
		line, err := s.in.ReadString('\n')
		for err == nil && line == "\n" {
			line, err = s.in.ReadString('\n')
		}
		if err == io.EOF {
			return "ended"
		}
		if err != nil {
			l.Fatal(err)
		}
		return strings.TrimSuffix(strings.TrimPrefix(line, begin), "\n")
	}
}

// push reads a text message, or a close frame.
func (c *wsClient) push() string {
	c.t.Helper()
	_ = c.conn.SetReadDeadline(time.Now().Add(patience))
	h, err := ws.ReadHeader(c.conn)
	if err != nil {
		c.t.Fatal(err)
	}
	payload := make([]byte, h.Length)
	if _, err := io.ReadFull(c.conn, payload); err != nil {
		c.t.Fatal(err)
	}
	switch h.OpCode {
	case ws.OpText:
		return string(payload)
	case ws.OpPing:
		return "ping"
	case ws.OpClose:
		code, _ := ws.ParseCloseFrameDataUnsafe(payload)
		return fmt.Sprint("closed ", code)
	}
	c.t.Fatalf("opcode %d", h.OpCode)
	return ""
}

// want reads pushes, which must be these; "" passes one over.
func (l *listener) want(pushes ...string) {
	l.Helper()
	for i, want := range pushes {
		if want == "" {
			continue
		}
		if got := l.next(); got != want {
			l.Fatalf("push %d is %s, want %s", i, got, want)
		}
	}
}

// ends reads the last words.
func (l *listener) ends(code int, reason string, reconnect bool) {
	l.Helper()
	again := ""
	if reconnect {
		again = `,"reconnect":true`
	}
	l.want(fmt.Sprintf(`{"disconnect":{"code":%d,"reason":%q%s}}`, code, reason, again))
	if got := l.next(); got != "ended" && got != fmt.Sprint("closed ", code) {
		l.Errorf("after the last words: %s", got)
	}
}

// connected reads the first push.
func (l *listener) connected() string {
	l.Helper()
	first := l.next()
	var push struct{ Connect struct{ Client string } }
	if err := json.Unmarshal([]byte(first), &push); err != nil || push.Connect.Client == "" {
		l.Fatalf("the first push is %s", first)
	}
	l.id = push.Connect.Client
	return first
}

var uniTransports = []string{"uni_websocket", "uni_websocket by URL", "uni_sse", "uni_sse by POST", "uni_http_stream"}

func TestUni(t *testing.T) {
	f, a := startUni(t)
	for _, transport := range uniTransports {
		t.Run(transport, func(t *testing.T) {
			f.T = t
			operate := func(op control.Operation) { f.edge.Control(control.Command{App: "1", Operation: &op}) }
			two := f.client("43:news")
			l := f.listen(transport, `{"token":"42:news","name":"n","version":"v","subs":{"secret":{"recover":true}}}`)
			first := l.connected()
			if !strings.HasPrefix(first, `{"connect":{"client":"7.`) || !strings.Contains(first, `"version":"carillon","subs":{"news":{}},"ping":25`) || strings.Contains(first, "pong") {
				t.Errorf("%s", first)
			}
			a.mu.Lock()
			req, _ := a.asked[len(a.asked)-1].(*authz.Connect)
			a.mu.Unlock()
			if name, _, _ := strings.Cut(transport, " "); req == nil || req.Transport != name || req.Name != "n" || req.Version != "v" {
				t.Errorf("the application is asked %+v", req)
			}
			f.publish("news", 0, func(pub *message.Publication) { pub.Event, pub.Data = "said", []byte("{\n\"x\":1}") })
			l.want(`{"channel":"news","pub":{"data":{"x":1},"tags":{"event":"said"}}}`)
			two.expect(`{"push":{"channel":"news","pub":{"data":{"x":1},"tags":{"event":"said"}}}}`)
			f.publish("news", 0, func(pub *message.Publication) { pub.Event, pub.Exclude = "", l.id })
			operate(control.Operation{Select: control.Select{Client: l.id}, Subscribe: &control.SubscribeThem{Channel: "more"}})
			l.want(`{"channel":"more","subscribe":{}}`)
			f.publish("more", 0, func(pub *message.Publication) { pub.Event = "" })
			f.publish("secret", 0)
			l.want(`{"channel":"more","pub":{"data":0}}`)
			operate(control.Operation{Select: control.Select{User: "42"}, Unsubscribe: "more"})
			l.want(`{"channel":"more","unsubscribe":{"code":2000,"reason":"server unsubscribe"}}`)
			operate(control.Operation{Select: control.Select{User: "42"}, Refresh: &authz.Credentials{ExpireAt: time.Now().Unix() + 3600}})
			if push := l.next(); !strings.HasPrefix(push, `{"refresh":{"expires":true,"ttl":3`) {
				t.Errorf("%s", push)
			}
			answer, err := f.edge.Inquire(t.Context(), &control.Question{App: "1", Connections: &control.Select{User: "42"}, Limit: 9})
			if name, _, _ := strings.Cut(transport, " "); err != nil || len(answer.Connections) != 1 || answer.Connections[0].Transport != name {
				t.Errorf("%+v, %v", answer, err)
			}
			operate(control.Operation{Select: control.Select{User: "42"}, Disconnect: &authz.Verdict{Code: 4500, Text: "go away"}})
			l.ends(4500, "go away", false)
			f.until("it is gone", func() bool { return f.member("online 42") == 0 })
		})
	}
}

func TestUniRecovers(t *testing.T) {
	f, a := startUni(t)
	a.set(func() {
		a.past = &resume.Past{Epoch: "e", Entries: []resume.Entry{{
			Position: message.At(4, 0), Publication: &message.Publication{Kind: message.Event, Data: []byte("4")},
		}}}
	})
	partition := channel.Key{App: "1", Name: "log"}.Partition(partitions)
	f.edge.Epoch(partition, "e")
	f.publish("log", 5)
	l := f.listen("uni_sse", `{"token":"42:log","subs":{"log":{"recover":true,"epoch":"e","offset":3072}}}`)
	const want = `"subs":{"log":{"recoverable":true,"epoch":"e","publications":[{"data":4,"offset":4096}],"recovered":true,"offset":3072,"positioned":true,"was_recovering":true}}`
	if first := l.connected(); !strings.Contains(first, want) {
		t.Fatalf("%s", first)
	}
	f.publish("log", 6, func(pub *message.Publication) { pub.Event = "" })
	l.want(`{"channel":"log","pub":{"data":6,"offset":6144}}`)
	f.edge.Broken(partition)
	l.ends(3010, "insufficient state", true)
}

// What a client says after its ConnectRequest changes nothing.
func TestUniOnlyListens(t *testing.T) {
	f, _ := startUni(t)
	c := f.raw("/connection/uni_websocket")
	l := &listener{fixture: f, next: c.push}
	c.send(`{"token":"42"}`)
	l.connected()
	for _, text := range []string{`{"id":2,"subscribe":{"channel":"secret"}}`, `{"subs":{"secret":{}},"token":"43:secret"}`, "nonsense", "{}"} {
		c.send("%s", text)
	}
	f.until("all was ignored", func() bool { return f.edge.Stats().Refused[dialect.Ignored] == 4 })
	if n := f.count(channel.Key{App: "1", Name: "secret"}); n != 0 {
		t.Errorf("it has %d subscriptions", n)
	}

	s := f.listen("uni_http_stream", `{"token":"43"}`)
	var push struct {
		Connect struct{ Session, Node, Client string }
	}
	if err := json.Unmarshal([]byte(s.connected()), &push); err != nil || push.Connect.Session == "" || push.Connect.Session == push.Connect.Client || push.Connect.Node != "node-a" {
		t.Fatalf("%+v, %v", push, err)
	}
	f.visitor().wantAll("POST", "/emulation", post(push.Connect.Node, push.Connect.Session, `{"id":2,"subscribe":{"channel":"secret"}}`),
		"400 the session is unidirectional: it takes no messages\n")
	f.publish("secret", 0)
	f.edge.Control(control.Command{App: "1", TerminateUser: "43"})
	s.ends(3503, "force disconnect", false)
	f.edge.Control(control.Command{App: "1", TerminateUser: "42"})
	l.ends(3503, "force disconnect", false)
}

func TestUniPings(t *testing.T) {
	f, _ := startUni(t)
	socket, stream := f.listen("uni_websocket", "{}"), f.listen("uni_http_stream", "{}")
	socket.connected()
	stream.connected()
	later := func(by time.Duration) {
		t.Helper()
		err := f.edge.onLoops(t.Context(), func(h *handler) {
			h.each(func(c *client) { c.sess.Tick(h.loop.Now() + int64(by)) })
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	later(26 * time.Second)
	socket.want("{}", "ping")
	stream.want("{}")
	later(35 * time.Second) // nobody has answered
	socket.ends(3012, "no pong", true)
}

func TestUniRefusals(t *testing.T) {
	f, _ := startUni(t)
	v := f.visitor()
	for path, body := range map[string]string{
		"/connection/uni_http_stream": "{", "/connection/uni_sse": `{"token":5}`, "/connection/uni_http_stream?app=1": "",
	} {
		if got := v.all("POST", path, body); !strings.HasPrefix(got, "400 ") || !strings.Contains(got, "ConnectRequest") {
			t.Errorf("%s: %q", path, got)
		}
	}
	v.wantAll("GET", "/connection/uni_sse?cf_connect=nonsense", "",
		"400 the ConnectRequest is malformed: not JSON: invalid character 'o' in literal null (expecting 'u')\n")
	v.wantAll("GET", "/connection/uni_http_stream", "", "405 the method is POST\n")
	v.wantAll("PUT", "/connection/uni_sse", "", "405 the method is GET or POST\n")
	v.wantAll("GET", "/connection/uni_nothing", "", "404 not found\n")
	if got := v.all("POST", "/connection/uni_http_stream", strings.Repeat(" ", bodyMax)+"{}"); !strings.HasPrefix(got, "413 ") {
		t.Errorf("%q", got)
	}
	v.wantAll("POST", "/connection/uni_http_stream?app=nope", "{}",
		`200 {"disconnect":{"code":3501,"reason":"bad request: there is no app \"nope\""}}`+"\n")
	socket := f.raw("/connection/uni_websocket?app=nope")
	(&listener{fixture: f, next: socket.push}).ends(3501, `bad request: there is no app "nope"`, false)
	socket = f.raw("/connection/uni_websocket?cf_connect=%5B%5D")
	(&listener{fixture: f, next: socket.push}).ends(3501, "bad request: the ConnectRequest is malformed: a JSON object is expected", false)
	f.edge.draining.Store(true)
	l := &listener{fixture: f, next: f.raw("/connection/uni_websocket?cf_connect=%7B%7D").push}
	l.ends(3001, "shutdown", true)
	f.listen("uni_sse", "{}").ends(3001, "shutdown", true)
}

func TestUniStreamInProtobuf(t *testing.T) {
	f, _ := startUni(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+f.addr+"/connection/uni_http_stream", strings.NewReader("\x0a\x0442:a"))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	res, err := f.visitor().http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 200 || res.Header.Get("Content-Type") != "application/octet-stream" {
		t.Fatalf("%+v", res)
	}
	read := func() string {
		t.Helper()
		length := make([]byte, 1)
		if _, err := io.ReadFull(res.Body, length); err != nil {
			t.Fatal(err)
		}
		push := make([]byte, length[0])
		if _, err := io.ReadFull(res.Body, push); err != nil {
			t.Fatal(err)
		}
		return string(push)
	}
	if push := read(); push[0] != 10<<3|2 || !strings.Contains(push, "\x22\x05\x0a\x01a\x12\x00") {
		t.Errorf("the first push is %q", push)
	}
	f.publish("a", 0, func(pub *message.Publication) { pub.Event, pub.Data = "", []byte("x") })
	if push := read(); push != "\x12\x01a\x22\x03\x22\x01x" {
		t.Errorf("the publication is %q", push)
	}
}
