package edge

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/gateway/internal/dialect/pusher"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/message"
)

// startHTTP starts an edge whose clients may come without WebSockets.
func startHTTP(t *testing.T, changes ...func(*Config)) *fixture {
	t.Helper()
	return startWith(t, func(cfg *Config) {
		p := pusher.New("/ws")
		cfg.Protocols = []Protocol{Pusher(p), Pusher(pusher.Fallback{Pusher: p})}
		for _, change := range changes {
			change(cfg)
		}
	})
}

// browser is a client that has no WebSockets.
type browser struct {
	*fixture
	http    *http.Client
	session string
	socket  string // id
}

func (f *fixture) browser(session string) *browser {
	transport := &http.Transport{}
	f.Cleanup(transport.CloseIdleConnections)
	return &browser{fixture: f, http: &http.Client{Transport: transport, Timeout: patience}, session: session}
}

const fallbackQuery = "?protocol=7&client=js&version=8.6.0&t=1&n=1"

// post is one exchange of the session; its body is not read yet.
func (b *browser) post(what, body string) *http.Response {
	b.Helper()
	return b.do("POST", "/pusher/app/k/"+b.session+"/"+what, body)
}

func (b *browser) do(method, path, body string) *http.Response {
	b.Helper()
	req, err := http.NewRequestWithContext(b.Context(), method, "http://"+b.addr+path, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	req.Header.Set("Origin", "http://example.com")
	res, err := b.http.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = res.Body.Close() })
	return res
}

// say sends messages of the client.
func (b *browser) say(messages ...string) {
	b.Helper()
	quoted := make([]string, len(messages))
	for i, m := range messages {
		quoted[i] = fmt.Sprintf("%q", m)
	}
	if res := b.post("xhr_send", "["+strings.Join(quoted, ",")+"]"); res.StatusCode != 204 {
		b.Fatalf("xhr_send was answered %s", res.Status)
	}
}

// poll receives with one exchange.
func (b *browser) poll() string {
	b.Helper()
	res := b.post("xhr"+fallbackQuery, "")
	body, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 {
		b.Fatalf("%s, %v: %s", res.Status, err, body)
	}
	return string(body)
}

// pollFor polls until what came contains part.
func (b *browser) pollFor(part string) string {
	b.Helper()
	got := ""
	for !strings.Contains(got, part) {
		got += b.poll()
	}
	return got
}

// stream is a response that goes on.
type stream struct {
	*browser
	in   *bufio.Reader
	stop func()
}

func (b *browser) stream(query string) *stream {
	b.Helper()
	ctx, stop := context.WithCancel(b.Context())
	b.Cleanup(stop)
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+b.addr+"/pusher/app/k/"+b.session+"/xhr_streaming"+query, nil)
	if err != nil {
		b.Fatal(err)
	}
	res, err := b.http.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = res.Body.Close() })
	if res.StatusCode != 200 || res.ContentLength != -1 || res.Header.Get("X-Accel-Buffering") != "no" || !strings.Contains(res.Header.Get("Cache-Control"), "no-store") {
		b.Fatalf("%+v", res)
	}
	s := &stream{browser: b, in: bufio.NewReader(res.Body), stop: stop}
	if line := s.line(); strings.Trim(line, "h") != "\n" || len(line) != 2049 {
		b.Fatalf("a stream begins with %q", line)
	}
	return s
}

func (s *stream) line() string {
	s.Helper()
	line, err := s.in.ReadString('\n')
	if err != nil {
		s.Fatalf("%v after %q", err, line)
	}
	return line
}

// expect reads lines until one contains part.
func (s *stream) expect(part string) string {
	s.Helper()
	for {
		if line := s.line(); strings.Contains(line, part) {
			return line
		}
	}
}

// greeted takes the socket id out of a greeting.
func (b *browser) greeted(line string) {
	b.Helper()
	_, rest, _ := strings.Cut(line, `socket_id\\\":\\\"`)
	if b.socket, _, _ = strings.Cut(rest, `\`); b.socket == "" {
		b.Fatalf("no socket id in %q", line)
	}
}

const (
	subscribeNews = `{"event":"pusher:subscribe","data":{"channel":"news"}}`
	subscribed    = `pusher_internal:subscription_succeeded`
)

func TestStreamingFallback(t *testing.T) {
	f := startHTTP(t)
	ws := f.dial()
	ws.subscribe("news")
	b := f.browser("1/abc")
	s := b.stream(fallbackQuery)
	if line := s.line(); line != "o\n" {
		t.Fatalf("opened with %q", line)
	}
	b.greeted(s.line())
	b.say(subscribeNews, `{"event":"pusher:ping","data":{}}`)
	s.expect("pusher:pong") // at once
	s.expect(subscribed)
	f.publish("news", 0, func(p *message.Publication) { p.Exclude = b.socket })
	f.publish("news", 0, func(p *message.Publication) { p.Data = []byte(`{"a":"é\n"}`) })
	var frame []string
	if line := s.line(); json.Unmarshal([]byte(line[1:]), &frame) != nil || len(frame) != 1 || frame[0] != `{"event":"e","channel":"news","data":"{\"a\":\"é\\n\"}"}` {
		t.Errorf("got %q", line)
	}
	ws.expect(`"data":"0"`)
	go func() { _ = f.edge.Drain(t.Context(), 0) }()
	if line := s.expect("c["); line != "c[4200,\"Please reconnect immediately\"]\n" {
		t.Errorf("closed with %q", line)
	}
	if _, err := s.in.ReadByte(); err != io.EOF {
		t.Errorf("after the goodbye: %v", err)
	}
}

func TestPollingFallback(t *testing.T) {
	f := startHTTP(t)
	b := f.browser("2/abc")
	if got := b.poll(); got != "o\n" {
		t.Fatalf("opened with %q", got)
	}
	b.greeted(b.poll())
	for round := range 20 { // connections come to both loops
		b.http.CloseIdleConnections()
		b.say(strings.ReplaceAll(subscribeNews, "news", fmt.Sprint("news-", round)))
		b.pollFor(subscribed)
		got := make(chan string)
		go func() { got <- b.poll() }()
		f.publish(fmt.Sprint("news-", round), 0)
		if body := <-got; !strings.Contains(body, fmt.Sprintf(`\"channel\":\"news-%d\"`, round)) {
			t.Fatalf("got %q", body)
		}
	}
	last := make(chan string)
	go func() { last <- b.poll() }()
	drained := make(chan error)
	go func() { drained <- f.edge.Drain(t.Context(), 0) }()
	if body := <-last; !strings.HasSuffix(body, "\nc[4200,\"Please reconnect immediately\"]\n") {
		t.Errorf("closed with %q", body)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
	if n := f.count(channel.Key{App: "1", Name: "news-0"}); n != 0 {
		t.Errorf("%d subscriptions are left", n)
	}
}

// Backends are told how clients are connected, whatever these were reached by
// since.
func TestTransportsOfClients(t *testing.T) {
	f := startHTTP(t)
	ws := f.dial()
	f.browser("7/abc").stream(fallbackQuery).expect("connection_established")
	b := f.browser("8/abc")
	b.poll()
	b.greeted(b.poll())
	var got []string
	answer, err := f.edge.Inquire(t.Context(), &control.Question{App: "1", Connections: &control.Select{All: true}, Limit: 9})
	for _, c := range answer.Connections {
		got = append(got, c.Transport+" "+c.Protocol)
	}
	slices.Sort(got)
	if want := []string{"websocket pusher", "xhr_polling pusher-http", "xhr_streaming pusher-http"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("connected by %q, %v, want %q", got, err, want)
	}

	// Those who decide about their subscriptions are told, too.
	const subscribePrivate = `{"event":"pusher:subscribe","data":{"channel":"private-x","auth":"ok"}}`
	ws.send(subscribePrivate)
	ws.expect("subscription_succeeded")
	b.say(subscribePrivate)
	b.pollFor("subscription_succeeded")
	f.cluster.mu.Lock()
	defer f.cluster.mu.Unlock()
	if want := []string{"websocket", "xhr_polling"}; !slices.Equal(f.cluster.transports, want) {
		t.Errorf("asked about %q, want %q", f.cluster.transports, want)
	}
}

// TestLastWordsWaitForThePoll: a session that ends between two polls says why
// with the next.
func TestLastWordsWaitForThePoll(t *testing.T) {
	f := startHTTP(t)
	b := f.browser("3/abc")
	b.poll()
	b.poll()
	b.say(strings.Repeat("x", 10), "x", "x", "x", "x", "x", "x", "x", "x", "x", "x") // malformed, once too often
	f.until("the session is closed", func() bool { return f.edge.Stats().Connections["1"] == 0 })
	if res := b.post("xhr_send", "[]"); res.StatusCode != 404 {
		t.Errorf("a closed session takes messages: %s", res.Status)
	}
	if got := b.pollFor("c["); !strings.Contains(got, "c[1002,") {
		t.Errorf("got %q", got)
	}
	f.until("it is gone", func() bool { s := f.edge.Stats(); return s.Opened == s.Closed })
	if got := b.poll(); got != "o\n" {
		t.Errorf("a new session began with %q", got)
	}
}

// TestStreamsAreContinued: pusher-js gives up a stream of 256 KiB and asks for
// another one, of the same session.
func TestStreamsAreContinued(t *testing.T) {
	f := startHTTP(t)
	b := f.browser("4/abc")
	s := b.stream(fallbackQuery)
	s.expect("connection_established")
	b.say(subscribeNews)
	s.expect(subscribed)
	for round := range 12 {
		next := b.stream(fallbackQuery)
		if round%2 == 0 {
			s.stop() // before, or because, the server noticed
		}
		for i := range 10 {
			f.publish("news", 0, func(p *message.Publication) { p.Data = fmt.Appendf(nil, "%d-%d", round, i) })
		}
		for i := range 10 {
			if line, want := next.line(), fmt.Sprintf(`\"data\":\"%d-%d\"`, round, i); !strings.Contains(line, want) {
				t.Fatalf("got %q, want %q", line, want)
			}
		}
		if round%2 == 1 {
			if rest, err := io.ReadAll(s.in); err != nil || len(rest) != 0 {
				t.Fatalf("the stream that was given up: %q, %v", rest, err)
			}
		}
		s = next
	}
	if st := f.edge.Stats(); st.Opened != 1 || st.Relays != 12 {
		t.Errorf("%d opened, %d relays", st.Opened, st.Relays)
	}
}

func TestFallbackRequests(t *testing.T) {
	f := startHTTP(t)
	b := f.browser("5/abc")
	preflight := func(path string) *http.Response {
		req, _ := http.NewRequestWithContext(t.Context(), "OPTIONS", "http://"+f.addr+path, nil)
		req.Header.Set("Origin", "http://example.com")
		req.Header.Set("Access-Control-Request-Method", "POST")
		req.Header.Set("Access-Control-Request-Headers", "content-type")
		res, err := b.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = res.Body.Close()
		return res
	}
	res := preflight("/pusher/app/k/5/abc/xhr_send")
	if h := res.Header; res.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != "http://example.com" ||
		h.Get("Access-Control-Allow-Headers") != "content-type" || !strings.Contains(h.Get("Access-Control-Allow-Methods"), "POST") {
		t.Errorf("%+v", res)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		answer             string
	}{
		{"POST", "/pusher/app/k/5/abc/xhr_send", `["x"]`, 404, "no such session: it has ended, or never began\n"},
		{"POST", "/pusher/app/k/5/abc/xhr_send", ``, 400, "payload expected: an array of messages, each a JSON string\n"},
		{"POST", "/ws/app/k/5/abc/xhr_send", `{"x":1}`, 400, "broken JSON encoding: an array of messages is expected, each a JSON string\n"},
		{"POST", "/app/k/5/abc/xhr_send", strings.Repeat("x", 64<<10+1), 413, "request body is larger than 65536 bytes\n"},
		{"GET", "/pusher/app/k/5/abc/xhr", "", 405, "the method of xhr is POST\n"},
		{"POST", "/pusher/app/k/5/abc/xdr", "", 404, "not found: the transports are xhr_streaming, xhr and xhr_send\n"},
		{"POST", "/pusher/app/k/5/" + strings.Repeat("x", 64) + "/xhr", "", 404, "not found: a session is called by a number and a random string, 64 characters at most\n"},
		{"GET", "/pusher/timeline/v2/xhr/2?x=1", "", 200, "{}"},
		{"GET", "/timeline/v2/jsonp/1", "", 200, "{}"},
	} {
		res := b.do(c.method, c.path, c.body)
		body, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != c.status || string(body) != c.answer {
			t.Errorf("%s %s: %s %q, %v, want %d %q", c.method, c.path, res.Status, body, err, c.status, c.answer)
		}
		if c.status != 413 && res.Header.Get("Access-Control-Allow-Origin") != "http://example.com" {
			t.Errorf("%s %s: the page may not read the answer: %v", c.method, c.path, res.Header)
		}
	}
}

// TestFallbacksAreRefusedAsOthersAre: what would close a WebSocket closes the
// session.
func TestFallbacksAreRefusedAsOthersAre(t *testing.T) {
	f := startWith(t, func(cfg *Config) {
		cfg.Protocols = []Protocol{Pusher(pusher.Fallback{Pusher: pusher.New("")})}
	}, func(a *app.App) { a.AllowedOrigins = []string{"elsewhere.com"} })
	b := f.browser("1/a")
	if got := b.poll() + b.poll(); !strings.Contains(got, "Origin not allowed") || !strings.Contains(got, "c[4009,") {
		t.Errorf("got %q", got)
	}
	f.until("it is gone", func() bool { s := f.edge.Stats(); return s.Opened == s.Closed })
	b.session = "1/b"
	b.stream("").expect("c[4008,")
}

func TestFallbacksAreAdmittedAsOthersAre(t *testing.T) {
	f := startHTTP(t, func(cfg *Config) { cfg.Limits.PerAddress = 3 })
	b := f.browser("")
	for _, session := range []string{"2/a", "2/b", "2/c"} {
		b.session = session
		b.poll()
	}
	b.session = "2/d"
	res := b.post("xhr"+fallbackQuery, "")
	if res.StatusCode != 429 || res.Header.Get("Retry-After") == "" {
		t.Errorf("one too many: %+v", res)
	}
}

// TestLostPollsEndTheSession: nobody comes back.
func TestLostPollsEndTheSession(t *testing.T) {
	f := startHTTP(t)
	b := f.browser("6/abc")
	b.poll()
	b.poll()
	b.say(subscribeNews)
	b.pollFor(subscribed)
	connections := func() (n int64) {
		for _, l := range f.edge.Stats().Loops {
			n += l.Connections
		}
		return n
	}
	before := f.edge.Stats().Relays
	ctx, stop := context.WithCancel(t.Context())
	req, _ := http.NewRequestWithContext(ctx, "POST", "http://"+f.addr+"/pusher/app/k/6/abc/xhr"+fallbackQuery, nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		if res, err := b.http.Do(req); err == nil {
			_ = res.Body.Close()
		}
	}()
	f.until("it polls", func() bool { return f.edge.Stats().Relays > before })
	held := connections()
	stop()
	<-done
	f.until("the poll is seen to be lost", func() bool { return connections() < held }) // what comes before goes to nobody
	f.publish("news", 0)
	if got := b.poll(); !strings.Contains(got, `\"event\":\"e\"`) { // it does come back, once
		t.Errorf("got %q", got)
	}
	f.until("the session is gone", func() bool { s := f.edge.Stats(); return s.Opened == s.Closed })
	if n := f.count(channel.Key{App: "1", Name: "news"}); n != 0 {
		t.Errorf("%d subscriptions are left", n)
	}
}

// TestSockJS: a session with the client of pusher-js's sockjs transport.
func TestSockJS(t *testing.T) {
	f := startWith(t, func(cfg *Config) {
		p := pusher.Fallback{Pusher: pusher.New("")}
		cfg.Protocols = []Protocol{Pusher(p), PusherIntroduced(pusher.SockJS{Fallback: p})}
	})
	if n := len(f.edge.interest.Encodings); n != 2 {
		t.Errorf("%d encodings of the same words in the same framing", n)
	}
	b := f.browser("")
	info, err := io.ReadAll(b.do("GET", "/pusher/info?t=1", "").Body)
	if err != nil || !strings.HasPrefix(string(info), `{"websocket":false,"origins":["*:*"],"cookie_needed":false,"entropy":`) {
		t.Errorf("%s, %v", info, err)
	}
	post := func(what, body string) *http.Response { return b.do("POST", "/pusher/7/abc/"+what, body) }
	open := func() *stream {
		s := &stream{browser: b, in: bufio.NewReader(post("xhr_streaming", "").Body)}
		if line := s.line(); len(line) != 2049 {
			t.Fatalf("a stream begins with %q", line)
		}
		return s
	}
	s := open()
	if line := s.line(); line != "o\n" {
		t.Fatalf("opened with %q", line)
	}
	if res := post("xhr_send", `["{\"path\":\"/app/k?protocol=7&client=js\"}"]`); res.StatusCode != 204 {
		t.Fatal(res.Status)
	}
	s.expect("connection_established")
	post("xhr_send", `["{\"event\":\"pusher:subscribe\",\"data\":{\"channel\":\"news\"}}"]`)
	s.expect(subscribed)
	big := []byte(strings.Repeat("x", 8000))
	sent := 0
	for ; sent*len(big) < 128<<10; sent++ {
		f.publish("news", 0, func(p *message.Publication) { p.Data = append(fmt.Appendf(nil, "%d-", sent), big...) })
		s.expect(fmt.Sprintf(`\"data\":\"%d-x`, sent))
	}
	if _, err := s.in.ReadByte(); err != io.EOF {
		t.Errorf("after 128 KiB: %v", err)
	}
	f.publish("news", 0) // with no stream there
	s = open()
	s.expect(`\"event\":\"e\"`)
}

func TestSockJSClientsSayWhoTheyAre(t *testing.T) {
	f := startWith(t, func(cfg *Config) {
		cfg.Protocols = []Protocol{PusherIntroduced(pusher.SockJS{Fallback: pusher.Fallback{Pusher: pusher.New("")}})}
	})
	for first, want := range map[string]string{
		`{}`:                               `c[1002,`,
		`x`:                                `c[1002,`,
		`{\"path\":\"/ap/k?protocol=7\"}`:  `c[1002,`,
		`{\"path\":\"/app/k?protocol=x\"}`: `c[4006,`,
		`{\"path\":\"/app/x?protocol=7\"}`: `c[4001,`,
	} {
		b := f.browser("")
		session := fmt.Sprintf("/pusher/1/%d/", len(want)+len(first))
		b.do("POST", session+"xhr", "")
		if res := b.do("POST", session+"xhr_send", `["`+first+`"]`); res.StatusCode != 204 {
			t.Errorf("%s: %s", first, res.Status)
		}
		got, err := io.ReadAll(b.do("POST", session+"xhr", "").Body)
		if err != nil || !strings.Contains(string(got), want) {
			t.Errorf("%s: %q, %v, want %q", first, got, err, want)
		}
	}
	f.until("all are gone", func() bool { s := f.edge.Stats(); return s.Opened == s.Closed })
}
