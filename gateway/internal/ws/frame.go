// Package ws is the server's side of RFC 6455 without a connection: the
// upgrade handshake over a parsed request head, an incremental reader of
// client frames, and writers of server frames. Frame headers and masking are
// those of gobwas/ws. It must not know sockets, loops or dialects.
package ws

import (
	"encoding/binary"
	"unicode/utf8"

	gobwas "github.com/gobwas/ws"
)

// Close codes of RFC 6455 7.4.1 that this package and the loops send.
const (
	CloseNormal      = 1000
	CloseGoingAway   = 1001
	CloseProtocol    = 1002
	CloseNoStatus    = 1005 // never on the wire: the close frame had no code
	CloseAbnormal    = 1006 // never on the wire: there was no close frame
	CloseInvalidData = 1007
	CloseTooBig      = 1009
	CloseInternal    = 1011
)

// ReasonBytesMax is the longest reason that fits into a close frame.
const ReasonBytesMax = 123

// HeaderBytesMax is the longest header of a server's frame.
const HeaderBytesMax = 10

// Op is the opcode of a frame.
type Op byte

// Opcodes of RFC 6455 5.2.
const (
	OpText   = Op(gobwas.OpText)
	OpBinary = Op(gobwas.OpBinary)
	OpClose  = Op(gobwas.OpClose)
	OpPing   = Op(gobwas.OpPing)
	OpPong   = Op(gobwas.OpPong)
)

// AppendHeader appends the header of an unfragmented server frame.
func AppendHeader(dst []byte, op Op, payloadBytes int) []byte {
	dst = append(dst, 0x80|byte(op))
	switch {
	case payloadBytes < 126:
		return append(dst, byte(payloadBytes))
	case payloadBytes <= 0xffff:
		return binary.BigEndian.AppendUint16(append(dst, 126), uint16(payloadBytes))
	}
	return binary.BigEndian.AppendUint64(append(dst, 127), uint64(payloadBytes))
}

// AppendFrame appends an unfragmented server frame.
func AppendFrame(dst []byte, op Op, payload []byte) []byte {
	return append(AppendHeader(dst, op, len(payload)), payload...)
}

// AppendText appends payload, which must be UTF-8, as a text frame.
func AppendText(dst, payload []byte) []byte {
	return AppendFrame(dst, OpText, payload)
}

// AppendClose appends a close frame. A code that must not be sent (RFC 6455
// 7.4) is replaced by 1011; a reason that does not fit is cut at a character.
func AppendClose(dst []byte, code int, reason string) []byte {
	if !ValidCloseCode(code) {
		code = CloseInternal
	}
	reason = cutReason(reason)
	dst = AppendHeader(dst, OpClose, 2+len(reason))
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, reason...)
}

// ValidCloseCode reports whether a close frame may carry code: 1000-1003,
// 1007-1014, or 3000-4999 (RFC 6455 7.4 and its registry).
func ValidCloseCode(code int) bool {
	switch {
	case code >= 3000 && code <= 4999:
		return true
	case code >= 1000 && code <= 1003, code >= 1007 && code <= 1014:
		return true
	}
	return false
}

// cutReason cuts a reason to what fits and is UTF-8.
func cutReason(reason string) string {
	if len(reason) > ReasonBytesMax {
		reason = reason[:ReasonBytesMax]
		for reason != "" {
			r, size := utf8.DecodeLastRuneInString(reason)
			if r != utf8.RuneError || size != 1 {
				break
			}
			reason = reason[:len(reason)-1]
		}
	}
	if !utf8.ValidString(reason) {
		return ""
	}
	return reason
}
