// Package framing is how one message after the other is written to clients
// over the transports that there are. A framing is a pure codec without state.
// What it appends is complete: it may be joined with what it appended before,
// shared by many connections, written as part of a response that goes on, or
// be the whole of one.
package framing

import (
	"bytes"
	"encoding/binary"
	"strconv"

	"github.com/carillon-rt/carillon/gateway/internal/ws"
	"github.com/carillon-rt/carillon/kit/jsonx"
)

// Framing writes the messages of one transport.
type Framing interface {
	// Append appends one message.
	Append(dst, payload []byte) []byte
	// AppendClose appends what tells the client that the connection ends, and
	// why; nothing where the transport has no words for that.
	AppendClose(dst []byte, code int, reason string) []byte
}

// The framings.
var (
	// WebSocket: text frames of RFC 6455; WebSocketBinary: binary ones.
	WebSocket       Framing = webSocket{ws.OpText}
	WebSocketBinary Framing = webSocket{ws.OpBinary}
	// SockJS: a line for each message (SockJS protocol 0.3.3, "Framing"), which
	// pusher-js understands too.
	SockJS Framing = sockJS{}
	// SockJSWebSocket: the same, but for the end of the line, in text frames.
	SockJSWebSocket Framing = sockJSWebSocket{}
	// Lines: a line for each message; messages hold no line feed, or are several
	// that it separates.
	Lines Framing = lines{}
	// Events: server-sent events (WHATWG HTML, "Server-sent events") without a
	// name; a line feed in a message stays one.
	Events Framing = events{}
	// Delimited: the length of each message before it, as a varint of Protocol
	// Buffers.
	Delimited Framing = delimited{}
	// Verbatim: messages that bring their own framing.
	Verbatim Framing = verbatim{}
)

type webSocket struct{ op ws.Op }

func (w webSocket) Append(dst, payload []byte) []byte { return ws.AppendFrame(dst, w.op, payload) }

func (webSocket) AppendClose(dst []byte, code int, reason string) []byte {
	return ws.AppendClose(dst, code, reason)
}

type sockJS struct{}

func (sockJS) Append(dst, payload []byte) []byte {
	return append(appendArray(dst, payload), '\n')
}

func (sockJS) AppendClose(dst []byte, code int, reason string) []byte {
	return append(appendGoodbye(dst, code, reason), '\n')
}

type sockJSWebSocket struct{}

func (sockJSWebSocket) Append(dst, payload []byte) []byte {
	return ws.AppendText(dst, appendArray(nil, payload))
}

func (sockJSWebSocket) AppendClose(dst []byte, code int, reason string) []byte {
	dst = ws.AppendText(dst, appendGoodbye(nil, code, reason))
	return ws.AppendClose(dst, code, reason)
}

// appendArray appends a message frame of SockJS.
func appendArray(dst, payload []byte) []byte {
	dst = append(dst, "a["...)
	dst = jsonx.AppendStringBytes(dst, payload)
	return append(dst, ']')
}

// appendGoodbye appends a close frame of SockJS.
func appendGoodbye(dst []byte, code int, reason string) []byte {
	dst = append(dst, "c["...)
	dst = strconv.AppendInt(dst, int64(code), 10)
	dst = append(dst, ',')
	dst = jsonx.AppendString(dst, reason)
	return append(dst, ']')
}

type lines struct{}

func (lines) Append(dst, payload []byte) []byte {
	return append(append(dst, payload...), '\n')
}

func (lines) AppendClose(dst []byte, _ int, _ string) []byte { return dst }

type events struct{}

func (events) Append(dst, payload []byte) []byte {
	for {
		line, rest, more := bytes.Cut(payload, []byte("\n"))
		dst = append(dst, "data: "...)
		dst = append(dst, line...)
		dst = append(dst, '\n')
		if !more {
			return append(dst, '\n')
		}
		payload = rest
	}
}

func (events) AppendClose(dst []byte, _ int, _ string) []byte { return dst }

type delimited struct{}

func (delimited) Append(dst, payload []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(payload))), payload...)
}

func (delimited) AppendClose(dst []byte, _ int, _ string) []byte { return dst }

type verbatim struct{}

func (verbatim) Append(dst, payload []byte) []byte { return append(dst, payload...) }

func (verbatim) AppendClose(dst []byte, _ int, _ string) []byte { return dst }
