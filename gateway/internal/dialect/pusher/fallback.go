package pusher

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/framing"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
)

const (
	// beatEvery is how often a client hears something: proxies commonly end
	// exchanges that were silent for a minute, and pusher-js connections for 30
	// s after it asked.
	beatEvery = 25 * time.Second
	// linger is how long a client may take to come back: SockJS servers wait
	// that long.
	linger = 5 * time.Second
	// preludeBytes fill the buffers of what waits for so much before it passes
	// anything on (SockJS protocol 0.3.3, "/xhr_streaming").
	preludeBytes = 2048
	// sessionBytesMax limits what a client may call its session.
	sessionBytesMax = 64
)

// transport is that of pusher-js's xhr_streaming and xhr_polling.
var transport = dialect.Transport{
	Framing: framing.SockJS, StreamName: "xhr_streaming", PollName: "xhr_polling", ContentType: "application/javascript; charset=UTF-8",
	Prelude: strings.Repeat("h", preludeBytes) + "\n", Opening: "o\n", Beat: "h\n", BeatEvery: beatEvery, Linger: linger,
}

// Fallback is the dialect for clients that can't use WebSockets, as pusher-js
// falls back to them: xhr_streaming and xhr_polling.
//
//	POST [prefix]/app/KEY/SERVER/SESSION/xhr_streaming?protocol=7&...   receive
//	POST [prefix]/app/KEY/SERVER/SESSION/xhr?protocol=7&...             receive
//	POST [prefix]/app/KEY/SERVER/SESSION/xhr_send                       send
//	GET  [prefix]/timeline/v2/...                                       statistics
//
// SERVER is a number below 1,000 and SESSION a random string, both the
// client's; prefix is "/pusher" (pusher-js: httpPath), that of New, or none.
type Fallback struct{ *Pusher }

var (
	_ dialect.Dialect = Fallback{}
	_ dialect.Namer   = Fallback{}
	_ dialect.HTTP    = Fallback{}
	_ dialect.Alike   = Fallback{}
)

// Name implements dialect.Protocol.
func (f Fallback) Name() string { return "pusher-http" }

// ViewsFrom implements dialect.Alike.
func (f Fallback) ViewsFrom() any { return f.Pusher }

// Hello implements dialect.Protocol.
func (f Fallback) Hello(*httphead.Head) (dialect.Hello, bool) { return dialect.Hello{}, false }

// Transport implements dialect.HTTP.
func (f Fallback) Transport() *dialect.Transport { return &transport }

// httpPrefix is pusher-js's default for httpPath.
const httpPrefix = "/pusher"

// rest is a path without its prefix.
func (f Fallback) rest(path string) string {
	for _, prefix := range []string{httpPrefix, f.prefix} {
		if rest, ok := strings.CutPrefix(path, prefix); ok && prefix != "" && strings.HasPrefix(rest, "/") {
			return rest
		}
	}
	return path
}

// Request implements dialect.HTTP.
func (f Fallback) Request(head *httphead.Head) (dialect.Request, bool) {
	path := f.rest(head.Path)
	if strings.HasPrefix(path, "/timeline/v2/") {
		return dialect.Request{Status: 200, Type: "application/json", Body: "{}"}, true
	}
	path, ok := strings.CutPrefix(path, "/app/")
	if !ok {
		return dialect.Request{}, false
	}
	parts := strings.Split(path, "/")
	if len(parts) != 4 {
		return dialect.Request{}, false
	}
	key := unescapePath(parts[0])
	req, ok := receiver(head, "pusher/"+key+"/", parts[1], parts[2], parts[3])
	req.Hello = hello(key, head.RawQuery)
	return req, ok
}

// receiver reads a request of a session that its client calls by a number and
// a string; namespace keeps the names of different kinds apart.
func receiver(head *httphead.Head, namespace, server, session, what string) (dialect.Request, bool) {
	req := dialect.Request{Session: namespace + server + "/" + session}
	switch what {
	case "xhr_streaming":
		req.Kind = dialect.Stream
	case "xhr":
		req.Kind = dialect.Poll
	case "xhr_send":
		req.Kind = dialect.Send
	default:
		return refused(404, "not found: the transports are xhr_streaming, xhr and xhr_send"), true
	}
	switch {
	case head.Method != "POST":
		no := refused(405, "the method of "+what+" is POST")
		no.Header = "Allow: OPTIONS, POST\r\n"
		return no, true
	case server == "" || session == "" || len(server)+len(session) > sessionBytesMax:
		return refused(404, "not found: a session is called by a number and a random string, 64 characters at most"), true
	}
	return req, true
}

func refused(status int, text string) dialect.Request {
	return dialect.Request{Status: status, Type: "text/plain; charset=utf-8", Body: text + "\n"}
}

var (
	errNoBody = errors.New("payload expected: an array of messages, each a JSON string")
	errBody   = errors.New("broken JSON encoding: an array of messages is expected, each a JSON string")
)

// Post implements dialect.HTTP.
func (f Fallback) Post(req *dialect.Request, body []byte) (dialect.Post, error) {
	if req.Kind != dialect.Send { // pusher-js sends something to ask for a stream, but says nothing
		return dialect.Post{}, nil
	}
	return post(body)
}

// post reads the messages that a client sends (SockJS protocol 0.3.3,
// "/xhr_send").
func post(body []byte) (dialect.Post, error) {
	if len(body) == 0 {
		return dialect.Post{}, errNoBody
	}
	var texts []string
	if err := json.Unmarshal(body, &texts); err != nil {
		return dialect.Post{}, errBody
	}
	p := dialect.Post{Messages: make([][]byte, len(texts))}
	for i, text := range texts {
		p.Messages[i] = []byte(text)
	}
	return p, nil
}
