package centrifugo

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
)

// Paths of the unidirectional transports.
const (
	UniPath       = "/connection/" + UniName
	UniStreamPath = "/connection/uni_http_stream"
	UniEventsPath = "/connection/uni_sse"
)

// UniName is what applications are told of the unidirectional WebSocket.
const UniName = "uni_websocket"

// NewUnidirectional returns the dialect of clients that only listen (client
// protocol, "unidirectional"): they say one thing, a ConnectRequest, and are told
// pushes, which no reply is around. A server offers it by WebSocket, in JSON, and
// by NewStream and NewEvents.
func NewUnidirectional(encoding Encoding) *Dialect {
	return &Dialect{encoding: encoding, unidirectional: true}
}

// Unidirectional says whether clients only listen.
func (d *Dialect) Unidirectional() bool { return d.unidirectional }

// uniHello is Hello for UniPath.
func (d *Dialect) uniHello(head *httphead.Head) (dialect.Hello, bool) {
	if strings.TrimSuffix(head.Path, "/") != UniPath {
		return dialect.Hello{}, false
	}
	h := helloOf(head)
	h.First = introduction(head)
	return h, true
}

var (
	errNoRequest  = errors.New(`a ConnectRequest is expected, such as {"token":"..."}, or {} without a token`)
	errNoMessages = errors.New("the session is unidirectional: it takes no messages")
)

// connectRequest reads what a client that only listens has to say, as the
// command that others send.
func (d *Dialect) connectRequest(message []byte) (Command, error) {
	if d.encoding == JSON {
		if len(bytes.TrimSpace(message)) == 0 {
			return Command{}, errNoRequest
		}
		if err := checkJSON(message); err != nil {
			return Command{}, fmt.Errorf("the ConnectRequest is malformed: %w", err)
		}
	}
	var err error
	r := reader{json: d.encoding == JSON, err: &err}
	r.enter(message)
	body := &ConnectRequest{}
	body.read(&r)
	if err != nil {
		return Command{}, fmt.Errorf("the ConnectRequest is malformed: %w", err)
	}
	return Command{ID: 1, Body: body}, nil
}

// Connect answers a ConnectRequest of a client that only listens.
type Connect ConnectResult

func (*Connect) field() (int, string) { return 10, "connect" }

func (m *Connect) write(w *writer) {
	w.string(1, "client", m.Client)
	w.string(2, "version", m.Version)
	w.raw(3, "data", m.Data)
	writeSubs(w, 4, m.Subs)
	w.bool(5, "expires", m.Expires)
	w.uint(6, "ttl", uint64(m.TTL))
	w.uint(7, "ping", uint64(m.Ping))
	w.bool(8, "pong", m.Pong)
	w.string(9, "session", m.Session)
	w.string(10, "node", m.Node)
}
