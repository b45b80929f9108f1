package centrifugo

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/framing"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
)

// Paths of the transports without a WebSocket.
const (
	StreamPath    = "/connection/http_stream"
	EventsPath    = "/connection/sse"
	EmulationPath = "/emulation"
)

const typeProtobuf = "application/octet-stream"

// HTTP is the protocol for clients without a WebSocket: they receive by one
// response that goes on, and what they send comes by requests of their own
// (client protocol, "emulation").
//
//	POST /connection/http_stream          commands, the first of them connect
//	GET  /connection/sse?cf_connect=...   connect
//	POST /emulation                       {"session":..,"node":..,"data":commands}
//
// Unidirectional, the request has all that the client says:
//
//	POST /connection/uni_http_stream          a ConnectRequest
//	GET  /connection/uni_sse?cf_connect=...   a ConnectRequest, or nothing for {}
type HTTP struct {
	*Dialect
	transport dialect.Transport
	path      string
	events    bool // server-sent events
}

var _ dialect.HTTP = (*HTTP)(nil)

// NewStream is HTTP streaming in the encoding of d: a line for each message, or
// the length before each.
func NewStream(d *Dialect) *HTTP {
	t := dialect.Transport{Framing: &closing{framing.Lines, d}, ContentType: "application/json"}
	if d.Binary() {
		t = dialect.Transport{Framing: &closing{framing.Verbatim, d}, ContentType: typeProtobuf}
	}
	if d.unidirectional {
		return newHTTP(d, UniStreamPath, t)
	}
	return newHTTP(d, StreamPath, t)
}

// NewEvents is server-sent events; they are text, so d must be JSON.
func NewEvents(d *Dialect) *HTTP {
	path := EventsPath
	if d.unidirectional {
		path = UniEventsPath
	}
	h := newHTTP(d, path, dialect.Transport{
		Framing: &closing{framing.Events, d}, ContentType: "text/event-stream", Prelude: "\r\n",
	})
	h.events = true
	return h
}

func newHTTP(d *Dialect, path string, t dialect.Transport) *HTTP {
	t.StreamName = strings.TrimPrefix(path, "/connection/")
	return &HTTP{Dialect: d, path: path, transport: t}
}

// closing is a framing that says why a connection ends: such transports can't
// tell it by closing.
type closing struct {
	framing.Framing
	d *Dialect
}

// AppendClose implements framing.Framing.
func (c *closing) AppendClose(dst []byte, code int, reason string) []byte {
	return c.Append(dst, c.d.AppendPush(nil, "", NewDisconnect(code, reason)))
}

// NewDisconnect is the push for a code and reason.
func NewDisconnect(code int, reason string) *Disconnect {
	return &Disconnect{Code: uint32(code), Reason: reason, Reconnect: reconnects(code)}
}

// reconnects says whether clients come back after a code (client protocol,
// "disconnect codes").
func reconnects(code int) bool {
	return code < 3500 || code >= 4000 && code < 4500 || code >= 5000
}

// Name implements dialect.Protocol.
func (h *HTTP) Name() string { return h.family() + "-" + h.transport.StreamName }

// Hello implements dialect.Protocol.
func (h *HTTP) Hello(*httphead.Head) (dialect.Hello, bool) { return dialect.Hello{}, false }

// Transport implements dialect.HTTP.
func (h *HTTP) Transport() *dialect.Transport { return &h.transport }

// Request implements dialect.HTTP. Emulation is served by the stream of its
// encoding, whatever transport the session has.
func (h *HTTP) Request(head *httphead.Head) (dialect.Request, bool) {
	path := strings.TrimSuffix(head.Path, "/")
	emulation := path == EmulationPath && h.path == StreamPath
	binary := strings.HasPrefix(head.Header("Content-Type"), typeProtobuf)
	if path != h.path && !emulation || !h.events && binary != h.Binary() {
		return dialect.Request{}, false
	}
	req := dialect.Request{Kind: dialect.Stream, Hello: helloOf(head)}
	switch {
	case emulation && head.Method == "POST":
		req.Kind = dialect.Send
	case head.Method == "POST":
	case head.Method == "GET" && h.events:
		req.First = []byte(introduction(head))
		if h.unidirectional && len(req.First) == 0 {
			req.First = []byte("{}")
		}
	case h.events:
		return badMethod("GET, OPTIONS, POST", "the method is GET or POST"), true
	default:
		return badMethod("OPTIONS, POST", "the method is POST"), true
	}
	return req, true
}

func badMethod(allow, text string) dialect.Request {
	return dialect.Request{Status: 405, Type: "text/plain; charset=utf-8", Header: "Allow: " + allow + "\r\n", Body: text + "\n"}
}

var errNoConnect = errors.New("the first command is missing: connect, in the body, or as cf_connect in the query of server-sent events")

// Post implements dialect.HTTP.
func (h *HTTP) Post(req *dialect.Request, body []byte) (dialect.Post, error) {
	first := body
	if len(body) == 0 {
		first = req.First
	}
	switch {
	case req.Kind == dialect.Send && h.unidirectional:
		return dialect.Post{}, errNoMessages
	case h.unidirectional:
		_, err := h.connectRequest(first)
		return dialect.Post{Messages: [][]byte{first}}, err
	case req.Kind != dialect.Send && len(first) == 0:
		return dialect.Post{}, errNoConnect
	case req.Kind != dialect.Send:
		return dialect.Post{Messages: [][]byte{first}}, nil
	case h.Binary():
		return emulated(body)
	}
	var e struct{ Session, Node, Data string }
	if err := json.Unmarshal(body, &e); err != nil {
		return dialect.Post{}, fmt.Errorf(`not JSON of {"session":..,"node":..,"data":..}: %w`, err)
	}
	return dialect.Post{Node: e.Node, ID: e.Session, Messages: [][]byte{[]byte(e.Data)}}, nil
}

// emulated reads an EmulationRequest.
func emulated(b []byte) (dialect.Post, error) {
	p := dialect.Post{Messages: [][]byte{nil}}
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return p, fmt.Errorf("not an EmulationRequest: %w", protowire.ParseError(n))
		}
		b = b[n:]
		if kind != protowire.BytesType || number > 3 {
			if n = protowire.ConsumeFieldValue(number, kind, b); n < 0 {
				return p, fmt.Errorf("not an EmulationRequest: %w", protowire.ParseError(n))
			}
			b = b[n:]
			continue
		}
		value, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return p, fmt.Errorf("not an EmulationRequest: %w", protowire.ParseError(n))
		}
		b = b[n:]
		switch number {
		case 1:
			p.Node = string(value)
		case 2:
			p.ID = string(value)
		case 3:
			p.Messages[0] = value
		}
	}
	return p, nil
}
