// Package centrifugo speaks the client protocol of Centrifugo in both of its
// encodings: what is called "client protocol" here is what centrifuge-js 5 and
// Centrifugo 6 have in common. It owns the words: messages, codes and framing.
// It knows nothing of what has to be true for them to be said; that is the
// session's.
package centrifugo

import (
	"strings"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
	"github.com/carillon-rt/carillon/proto/channel"
)

// Encoding is how messages are written.
type Encoding uint8

// Encodings.
const (
	JSON Encoding = iota
	Protobuf
)

// Path of the WebSocket endpoint.
const Path = "/connection/websocket"

const (
	protocolJSON     = "centrifuge-json"
	protocolProtobuf = "centrifuge-protobuf"
)

// Dialect is the protocol in one encoding. It keeps no state and is safe for
// use by several goroutines.
type Dialect struct {
	encoding Encoding // immutable
	// unidirectional: clients only listen, see NewUnidirectional; immutable
	unidirectional bool
}

var _ dialect.Protocol = (*Dialect)(nil)

// New returns the dialect. A server offers one for each encoding.
func New(encoding Encoding) *Dialect { return &Dialect{encoding: encoding} }

// Name implements dialect.Protocol.
func (d *Dialect) Name() string {
	if d.unidirectional {
		return d.family() + "-" + UniName
	}
	return d.family()
}

func (d *Dialect) family() string {
	if d.encoding == Protobuf {
		return "centrifugo-protobuf"
	}
	return "centrifugo"
}

// Binary implements dialect.Protocol.
func (d *Dialect) Binary() bool { return d.encoding == Protobuf }

// Hello implements dialect.Protocol for Path: protobuf is spoken with those
// that ask for it by subprotocol or by query (client protocol, "transport").
// Hello.Key is what "?app=" names, "" if it is left to the Host header.
func (d *Dialect) Hello(head *httphead.Head) (dialect.Hello, bool) {
	if d.unidirectional {
		return d.uniHello(head)
	}
	if strings.TrimSuffix(head.Path, "/") != Path {
		return dialect.Hello{}, false
	}
	h := helloOf(head)
	subprotocol := head.HeaderHas("Sec-WebSocket-Protocol", protocolProtobuf)
	if asks := subprotocol || httphead.Parameter(head.RawQuery, "format") == "protobuf" ||
		httphead.Parameter(head.RawQuery, "cf_protocol") == "protobuf"; asks != d.Binary() {
		return dialect.Hello{}, false
	}
	switch {
	case subprotocol:
		h.Subprotocol = protocolProtobuf
	case head.HeaderHas("Sec-WebSocket-Protocol", protocolJSON):
		h.Subprotocol = protocolJSON
	}
	return h, true
}

// helloOf is what all heads say.
func helloOf(head *httphead.Head) dialect.Hello {
	return dialect.Hello{Host: head.Header("Host"), Key: httphead.Parameter(head.RawQuery, "app")}
}

// introduction is the first message that a client has put into its URL, or "".
func introduction(head *httphead.Head) string {
	return httphead.Unescape(httphead.Parameter(head.RawQuery, "cf_connect"))
}

// UsersAreMembers says whether the members of a presence channel are users, as
// Pusher has it, or connections.
func UsersAreMembers(name string) bool { return channel.KindOf(name).Presence }
