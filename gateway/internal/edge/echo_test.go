package edge

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/framing"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/exchange"
	"github.com/carillon-rt/carillon/proto/message"
)

// echo is a protocol of the tests over HTTP, as a dialect may be: sessions that
// the gateway names, or the client; streams, polls, and messages by POST. Its
// sessions subscribe to what they are told to, say what they are called, and
// repeat everything else.
//
//	POST|GET /BASE/stream[/NAME]   the body's lines, or ?first=, are heard first
//	POST     /BASE/poll/NAME
//	POST     /BASE/send[/NAME]     {"node":..,"session":..,"data":"lines"}
type echo struct {
	base      string
	transport dialect.Transport
}

func (e *echo) Name() string                                    { return e.base }
func (e *echo) Hello(*httphead.Head) (h dialect.Hello, ok bool) { return h, false }
func (e *echo) Binary() bool                                    { return false }
func (e *echo) Closing(why dialect.Reason) (int, string)        { return 3000, why.String() }
func (e *echo) Transport() *dialect.Transport                   { return &e.transport }

func (e *echo) Views() []dialect.View {
	return []dialect.View{{Append: func(dst []byte, _ message.Position, pub *message.Publication) []byte {
		return fmt.Appendf(dst, "%s: %s", pub.Channel, pub.Data)
	}}}
}

func (e *echo) Request(head *httphead.Head) (dialect.Request, bool) {
	path, ok := strings.CutPrefix(head.Path, "/"+e.base+"/")
	what, name, _ := strings.Cut(path, "/")
	kind, known := map[string]dialect.RequestKind{"stream": dialect.Stream, "poll": dialect.Poll, "send": dialect.Send}[what]
	if name != "" {
		name = e.base + "/" + name
	}
	first, _ := strings.CutPrefix(head.RawQuery, "first=")
	return dialect.Request{Kind: kind, Session: name, First: []byte(first)}, ok && known
}

func (e *echo) Post(req *dialect.Request, body []byte) (dialect.Post, error) {
	lines := func(text string) (all [][]byte) {
		for line := range strings.Lines(text) {
			all = append(all, []byte(strings.TrimSuffix(line, "\n")))
		}
		return all
	}
	if req.Kind != dialect.Send {
		return dialect.Post{Messages: lines(string(req.First) + string(body))}, nil
	}
	var p struct{ Node, Session, Data string }
	if err := json.Unmarshal(body, &p); err != nil {
		return dialect.Post{}, errors.New("not JSON")
	}
	return dialect.Post{Node: p.Node, ID: p.Session, Messages: lines(p.Data)}, nil
}

// protocol is the echo as the edge has it.
func (e *echo) protocol() Protocol {
	return Protocol{Protocol: e, http: e, birth: func(b *birth) *client {
		s := &echoSession{opened: b.h.loop.Now()}
		c := b.client(s)
		s.c = &c
		return &c
	}}
}

// echoSession is a client's life.
type echoSession struct {
	c      *client
	opened int64
	closed bool
}

func (s *echoSession) say(format string, args ...any) {
	s.c.conn.SendText(fmt.Appendf(nil, format, args...))
}

func (s *echoSession) Open(int64) { s.say("hello") }

func (s *echoSession) Message(payload []byte, _ int64) dialect.Reason {
	word, rest, _ := strings.Cut(string(payload), " ")
	switch word {
	case "who":
		node, id, ok := s.c.SessionID()
		s.say("%s %s %v", node, id, ok)
	case "subscribe":
		s.c.Attach(rest, session.Attach{})
	case "bye":
		s.Shut(dialect.Terminated)
	default:
		s.say("%s", payload)
	}
	return dialect.None
}

func (s *echoSession) Attached(r session.Attached, _ int64) { s.say("subscribed %s", r.Channel) }

func (s *echoSession) Shut(why dialect.Reason) {
	if !s.closed {
		s.closed = true
		s.say("goodbye")
		s.c.Close(why)
	}
}

func (s *echoSession) Active(int64)           {}
func (s *echoSession) Tick(int64) int64       { return 0 }
func (s *echoSession) Lost(func(string) bool) {}
func (s *echoSession) Gone()                  {}
func (s *echoSession) Opened() int64          { return s.opened }
func (s *echoSession) App() *app.App          { return &app.App{ID: "1"} }
func (s *echoSession) UserID() string         { return "" }
func (s *echoSession) Channels() iter.Seq2[string, session.State] {
	return func(func(string, session.State) bool) {}
}

// joint joins edges without NATS: it is all of their Sessions.
type joint struct {
	mu sync.Mutex
	// guarded by mu
	nodes map[string]*Edge
	names map[string]string
	cut   bool // nobody answers
}

// set cuts the joint, or mends it.
func (j *joint) set(cut bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.cut = cut
}

// seat is one node's side of a joint.
type seat struct {
	*joint
	node string
}

func (s seat) Claim(name string, answer func(error)) {
	s.mu.Lock()
	at, taken := s.names[name]
	cut := s.cut
	if !taken && !cut {
		s.names[name] = s.node
	}
	s.mu.Unlock()
	switch {
	case cut:
		answer(errors.New("nobody answers"))
	case taken && at != s.node:
		answer(exchange.ErrElsewhere)
	default:
		answer(nil)
	}
}

func (s seat) Release(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.names[name] == s.node {
		delete(s.names, name)
	}
}

func (s seat) Ask(node string, req *exchange.Request, answer func(exchange.Reply)) {
	s.mu.Lock()
	if req.Name != "" {
		node = s.names[req.Name]
	}
	e, cut := s.nodes[node], s.cut
	s.mu.Unlock()
	switch {
	case cut:
		answer(exchange.Reply{Status: 503})
	case e == nil:
		answer(exchange.Reply{Status: 404})
	default:
		travelled, err := exchange.ParseRequest(req.Append(nil))
		if err != nil {
			panic(err)
		}
		e.Exchange(&travelled, answer)
	}
}

// echoes are those of the tests.
func echoes() []*echo {
	const often = 300 * time.Millisecond
	return []*echo{
		{"lines", dialect.Transport{Framing: framing.Lines, ContentType: "text/plain"}},
		{"events", dialect.Transport{Framing: framing.Events, ContentType: "text/event-stream", Prelude: "\r\n", Beat: ":\n\n", BeatEvery: often}},
		{"sock", dialect.Transport{Framing: framing.SockJS, ContentType: "text/plain", Opening: "o\n", Beat: "h\n", BeatEvery: often, Linger: often}},
		{"quiet", dialect.Transport{Framing: framing.Lines, ContentType: "text/plain", Beat: "\n", BeatEvery: often, Linger: often}},
	}
}

// startTwo starts two nodes that speak echo.
func startTwo(t *testing.T) (j *joint, a, b *fixture) {
	j = &joint{nodes: map[string]*Edge{}, names: map[string]string{}}
	one := func(node string) *fixture {
		f := startWith(t, func(cfg *Config) {
			cfg.Protocols = nil
			for _, e := range echoes() {
				cfg.Protocols = append(cfg.Protocols, e.protocol())
			}
			cfg.Node, cfg.Sessions, cfg.RelayWait = node, seat{j, node}, 50*time.Millisecond
		})
		j.mu.Lock()
		j.nodes[node] = f.edge
		j.mu.Unlock()
		return f
	}
	return j, one("a"), one("b")
}

// visitor is a client of an echo at one node.
type visitor struct {
	*fixture
	http *http.Client
}

func (f *fixture) visitor() *visitor {
	transport := &http.Transport{}
	f.Cleanup(transport.CloseIdleConnections)
	return &visitor{f, &http.Client{Transport: transport, Timeout: patience}}
}

func (v *visitor) ask(method, path, body string) *http.Response {
	v.Helper()
	req, err := http.NewRequestWithContext(v.Context(), method, "http://"+v.addr+path, strings.NewReader(body))
	if err != nil {
		v.Fatal(err)
	}
	res, err := v.http.Do(req)
	if err != nil {
		v.Fatal(err)
	}
	v.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// all is status and body of an exchange.
func (v *visitor) all(method, path, body string) string {
	v.Helper()
	res := v.ask(method, path, body)
	got, err := io.ReadAll(res.Body)
	if err != nil {
		v.Fatal(err)
	}
	return fmt.Sprint(res.StatusCode, " ", string(got))
}

func (v *visitor) wantAll(method, path, body, want string) {
	v.Helper()
	if got := v.all(method, path, body); got != want {
		v.Fatalf("%s: %q, want %q", path, got, want)
	}
}

// stream reads what a response without an end says, line by line.
func (v *visitor) stream(res *http.Response) *said {
	v.Helper()
	if res.StatusCode != 200 || res.ContentLength != -1 {
		v.Fatalf("%+v", res)
	}
	return &said{v, bufio.NewReader(res.Body)}
}

type said struct {
	*visitor
	in *bufio.Reader
}

// want reads lines, which must be these, but for beats between them.
func (s *said) want(lines ...string) {
	s.Helper()
	for _, want := range lines {
		if got := s.line(); got != want+"\n" {
			s.Fatalf("got %q, want %q", got, want)
		}
	}
}

func (s *said) line() string {
	s.Helper()
	for {
		line, err := s.in.ReadString('\n')
		if err != nil {
			s.Fatalf("%v after %q", err, line)
		}
		if line != "h\n" && line != "\n" && line != ":\n" {
			return line
		}
	}
}

func (s *said) wantEnd() {
	s.Helper()
	if rest, err := io.ReadAll(s.in); err != nil || len(rest) > 0 {
		s.Fatalf("got %q, %v, want the end", rest, err)
	}
}

// post is the body of a send to a session that the gateway has named.
func post(node, id, data string) string {
	b, _ := json.Marshal(map[string]string{"node": node, "session": id, "data": data})
	return string(b)
}

// TestSessionsThatTheGatewayNames: streams whose messages come by POST to any
// node.
func TestSessionsThatTheGatewayNames(t *testing.T) {
	j, a, b := startTwo(t)
	here, there := a.visitor(), b.visitor()
	s := here.stream(here.ask("POST", "/lines/stream", "who\none\n"))
	s.want("hello")
	node, id, _ := strings.Cut(strings.TrimSuffix(s.line(), " true\n"), " ")
	s.want("one")
	for i, v := range []*visitor{here, there, here, there} {
		if got := v.all("POST", "/lines/send", post(node, id, fmt.Sprintf("two\nthree %d\n", i))); got != "204 " {
			t.Fatal(got)
		}
		s.want("two", fmt.Sprint("three ", i))
	}
	const none, later = "404 no such session: it has ended, or never began\n", "503 the session can't be reached now, try again in a few seconds\n"
	for _, c := range []struct{ node, id, want string }{
		{"nobody", id, none},
		{node, id + "x", none}, // another secret
		{node, "0-0", none},
		{node, "", none},
		{node, strings.Repeat("z", 40), none},
	} {
		there.wantAll("POST", "/lines/send", post(c.node, c.id, "x"), c.want)
	}
	there.wantAll("POST", "/lines/send", "{", "400 not JSON\n")
	j.set(true)
	there.wantAll("POST", "/lines/send", post(node, id, "x"), later)
	j.set(false)

	here.wantAll("POST", "/lines/send", post(node, id, "subscribe news"), "204 ")
	s.want("subscribed news")
	a.publish("news", 0)
	s.want("news: 0")
	there.wantAll("POST", "/lines/send", post(node, id, "bye"), "204 ")
	s.want("goodbye")
	s.wantEnd()
	there.wantAll("POST", "/lines/send", post(node, id, "x"), none)

	s = here.stream(here.ask("GET", "/events/stream?first=one", ""))
	s.want("\r", "data: hello", "data: one")
	for range 3 { // beats
		if line, err := s.in.ReadString(':'); err != nil || strings.Trim(line, "\n:") != "" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	if st := a.edge.Stats(); st.Opened != 2 || st.Posts == 0 {
		t.Errorf("%d opened, %d posts", st.Opened, st.Posts)
	}
}

// TestStreamsWithoutLingerEndWithTheirConnection: a client that is gone is gone.
func TestStreamsWithoutLingerEndWithTheirConnection(t *testing.T) {
	_, a, _ := startTwo(t)
	v := a.visitor()
	res := v.ask("POST", "/lines/stream", "subscribe news\n")
	v.stream(res).want("hello", "subscribed news")
	_ = res.Body.Close()
	a.until("it is gone", func() bool { s := a.edge.Stats(); return s.Opened == 1 && s.Closed == 1 && s.Channels == 0 })
}

// TestPollsAreAnsweredByTheOwner, wherever they arrive; and the newest exchange
// is the one that counts.
func TestPollsAreAnsweredByTheOwner(t *testing.T) {
	j, a, b := startTwo(t)
	here, there := a.visitor(), b.visitor()
	here.wantAll("POST", "/sock/poll/x", "subscribe news\n", "200 o\n")
	there.wantAll("POST", "/sock/poll/x", "", "200 a[\"hello\"]\na[\"subscribed news\"]\n")
	for i := range 10 {
		v := []*visitor{here, there}[i%2]
		got := make(chan string, 1)
		go func() { got <- v.all("POST", "/sock/poll/x", "") }()
		a.publish("news", 0, func(p *message.Publication) { p.Data = fmt.Appendf(nil, "%d", i) })
		if all := <-got; all != fmt.Sprintf("200 a[\"news: %d\"]\n", i) {
			t.Fatal(all)
		}
	}
	there.wantAll("POST", "/sock/poll/x", "", "200 h\n") // nothing for a while
	relays := b.edge.Stats().Relays
	old := make(chan string, 1)
	go func() { old <- there.all("POST", "/sock/poll/x", "") }()
	b.until("it polls", func() bool { return b.edge.Stats().Relays > relays })
	s := here.stream(here.ask("POST", "/sock/stream/x", ""))
	if got := <-old; got != "409 another exchange receives what the session says\n" && got != "200 h\n" {
		t.Errorf("the older exchange got %q", got)
	}
	there.wantAll("POST", "/sock/send/x", post("", "", "one"), "204 ")
	s.want(`a["one"]`)
	next := there.stream(there.ask("POST", "/sock/stream/x", ""))
	there.wantAll("POST", "/sock/send/x", post("", "", "two"), "204 ")
	next.want(`a["two"]`)
	rest, err := io.ReadAll(s.in)
	if err != nil || strings.Trim(string(rest), "h\n") != "" {
		t.Errorf("the older stream got %q, %v", rest, err)
	}
	there.wantAll("POST", "/sock/send/x", post("", "", "bye"), "204 ")
	next.want(`a["goodbye"]`, `c[3000,"terminated"]`)
	next.wantEnd()
	a.until("it is gone", func() bool { s := a.edge.Stats(); return s.Opened == s.Closed })
	there.wantAll("POST", "/sock/poll/x", "", "200 o\n") // a new session, there
	if s := b.edge.Stats(); s.Opened != 1 {
		t.Errorf("%d sessions began there", s.Opened)
	}
	j.set(true)
	here.wantAll("POST", "/sock/poll/y", "", "503 the session can't begin now, try again in a few seconds\n")
}

// TestSilentSessionsEnd: without an exchange for longer than the transport
// lingers, and with nothing to say.
func TestSilentSessionsEnd(t *testing.T) {
	j, a, b := startTwo(t)
	v := a.visitor()
	s := v.stream(v.ask("POST", "/quiet/stream/x", "subscribe news\n"))
	s.want("hello", "subscribed news")
	other := b.visitor()
	res := other.ask("POST", "/quiet/stream/x", "") // takes its place
	s.wantEnd()
	a.publish("news", 0)
	other.stream(res).want("news: 0")
	_ = res.Body.Close()
	a.until("it is gone", func() bool { s := a.edge.Stats(); return s.Opened == 1 && s.Closed == 1 && s.Channels == 0 })
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.names) != 0 {
		t.Errorf("names are left: %v", j.names)
	}
}

// TestFirstPollsWait where the transport has no words to open a session with.
func TestFirstPollsWait(t *testing.T) {
	_, a, _ := startTwo(t)
	v := a.visitor()
	v.wantAll("POST", "/quiet/poll/x", "one\n", "200 hello\none\n")
	v.wantAll("POST", "/quiet/send/x", post("", "", "bye"), "204 ")
	v.wantAll("POST", "/quiet/poll/x", "", "200 goodbye\n")
	a.until("it is gone", func() bool { s := a.edge.Stats(); return s.Opened == s.Closed })
}
