package ws

import (
	"crypto/sha1"
	"encoding/base64"

	"github.com/carillon-rt/carillon/gateway/internal/httphead"
)

// acceptGUID is the constant of RFC 6455 1.3.
const acceptGUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// Version is the only protocol version there is (RFC 6455 4.1).
const Version = "13"

// HandshakeError says why an upgrade is refused, as the status to answer.
type HandshakeError struct {
	Status int
	Detail string
}

// Error implements error.
func (e *HandshakeError) Error() string { return e.Detail }

// What a handshake can fail with.
var (
	errMethod     = &HandshakeError{400, "a WebSocket handshake must be a GET"}
	errProto      = &HandshakeError{400, "a WebSocket handshake needs HTTP/1.1"}
	errHost       = &HandshakeError{400, "a WebSocket handshake needs a Host header"}
	errUpgrade    = &HandshakeError{400, "a WebSocket handshake needs Upgrade: websocket"}
	errConnection = &HandshakeError{400, "a WebSocket handshake needs Connection: Upgrade"}
	errVersion    = &HandshakeError{426, "Sec-WebSocket-Version must be 13"}
	errKey        = &HandshakeError{400, "Sec-WebSocket-Key must be 16 bytes in base64"}
)

// CheckUpgrade checks a handshake (RFC 6455 4.2.1). It returns nil or a
// *HandshakeError with status 400 or 426.
func CheckUpgrade(head *httphead.Head) error {
	switch {
	case head.Method != "GET":
		return errMethod
	case head.Proto != "HTTP/1.1":
		return errProto
	case head.Header("Host") == "":
		return errHost
	case !head.HeaderHas("Upgrade", "websocket"):
		return errUpgrade
	case !head.HeaderHas("Connection", "upgrade"):
		return errConnection
	case head.Count("Sec-WebSocket-Version") != 1 || head.Header("Sec-WebSocket-Version") != Version:
		return errVersion
	case head.Count("Sec-WebSocket-Key") != 1 || !validKey(head.Header("Sec-WebSocket-Key")):
		return errKey
	}
	return nil
}

// IsUpgrade reports whether a request asks for a WebSocket at all, rightly or
// not.
func IsUpgrade(head *httphead.Head) bool {
	return head.HeaderHas("Upgrade", "websocket")
}

// AppendUpgrade appends the answer to a handshake that CheckUpgrade passed,
// confirming a subprotocol unless it is "".
func AppendUpgrade(dst []byte, head *httphead.Head, protocol string) []byte {
	dst = append(dst, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	dst = appendAccept(dst, head.Header("Sec-WebSocket-Key"))
	if protocol != "" {
		dst = append(dst, "\r\nSec-WebSocket-Protocol: "...)
		dst = append(dst, protocol...)
	}
	return append(dst, "\r\n\r\n"...)
}

// appendAccept appends the accept key of RFC 6455 4.2.2.
func appendAccept(dst []byte, key string) []byte {
	var joined [24 + len(acceptGUID)]byte
	n := copy(joined[:], key)
	n += copy(joined[n:], acceptGUID)
	sum := sha1.Sum(joined[:n])
	return base64.StdEncoding.AppendEncode(dst, sum[:])
}

// validKey reports whether key is 16 bytes in base64.
func validKey(key string) bool {
	if len(key) != 24 {
		return false
	}
	var in [24]byte
	var out [18]byte
	copy(in[:], key)
	n, err := base64.StdEncoding.Decode(out[:], in[:])
	return err == nil && n == 16
}
