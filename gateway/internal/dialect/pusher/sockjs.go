package pusher

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
)

// streamBytesMax is how much a SockJS client is sent with one exchange: it
// keeps all of it (SockJS protocol 0.3.3, "response limit").
const streamBytesMax = 128 << 10

var sockJSTransport = func() dialect.Transport {
	t := transport
	t.StreamBytesMax = streamBytesMax
	return t
}()

// SockJS is the dialect for pusher-js's sockjs transport, the last one that
// it falls back to in browsers: a SockJS client, whose first message says what
// others say with their URL, {"path":"/app/KEY?protocol=7&..."}.
//
//	GET  PREFIX/info                           what is offered
//	POST PREFIX/SERVER/SESSION/xhr_streaming   receive
//	POST PREFIX/SERVER/SESSION/xhr             receive
//	POST PREFIX/SERVER/SESSION/xhr_send        send
//
// PREFIX is "/pusher" (pusher-js: httpPath), or that of New. WebSockets are
// not offered: who can use them has no need of SockJS.
type SockJS struct{ Fallback }

// Name implements dialect.Protocol.
func (s SockJS) Name() string { return "pusher-sockjs" }

// Transport implements dialect.HTTP.
func (s SockJS) Transport() *dialect.Transport { return &sockJSTransport }

// Request implements dialect.HTTP.
func (s SockJS) Request(head *httphead.Head) (dialect.Request, bool) {
	path := s.rest(head.Path)
	if len(path) == len(head.Path) { // no prefix
		return dialect.Request{}, false
	}
	if path == "/info" {
		info := `{"websocket":false,"origins":["*:*"],"cookie_needed":false,"entropy":` + strconv.FormatUint(uint64(rand.Uint32()), 10) + `}`
		return dialect.Request{Status: 200, Type: "application/json; charset=UTF-8", Body: info}, true
	}
	parts := strings.Split(path[1:], "/")
	if len(parts) != 3 || !strings.HasPrefix(parts[2], "xhr") { // such as the API's /apps/1/events
		return dialect.Request{}, false
	}
	return receiver(head, "sockjs/", parts[0], parts[1], parts[2])
}

// First reads the first message of a client, which says what client it is.
func (s SockJS) First(message []byte) (dialect.Hello, error) {
	var first struct{ Path string }
	if err := json.Unmarshal(message, &first); err != nil || first.Path == "" {
		return dialect.Hello{}, fmt.Errorf(`the first message is %.100q, want {"path":"/app/KEY?protocol=7"}`, message)
	}
	path, query, _ := strings.Cut(first.Path, "?")
	hello, ok := s.Pusher.Hello(&httphead.Head{Path: path, RawQuery: query})
	if !ok {
		return dialect.Hello{}, fmt.Errorf("the path is %.100q, want /app/KEY?protocol=7", first.Path)
	}
	return hello, nil
}
