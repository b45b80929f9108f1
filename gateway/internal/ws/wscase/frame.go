// Package wscase is a table of what RFC 6455 asks of a server, as bytes sent
// and frames expected, and a client that runs it against any address. It must
// not know our server's code: it would then only test that we agree with
// ourselves.
package wscase

import (
	"bytes"
	"encoding/binary"

	gobwas "github.com/gobwas/ws"
)

// Opcodes and the FIN bit, for the first byte of a frame.
const (
	Continuation = 0x0
	Text         = 0x1
	Binary       = 0x2
	Close        = 0x8
	Ping         = 0x9
	Pong         = 0xa
	Fin          = 0x80
)

// Frame is a masked frame as a client sends it. first is FIN, RSV and opcode.
func Frame(first byte, payload []byte) []byte {
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	out := header(first, 0x80, len(payload))
	out = append(out, mask[:]...)
	masked := bytes.Clone(payload)
	gobwas.Cipher(masked, mask, 0)
	return append(out, masked...)
}

// Unmasked is a frame that a client must not send.
func Unmasked(first byte, payload []byte) []byte {
	return append(header(first, 0, len(payload)), payload...)
}

// CloseBody is the payload of a close frame.
func CloseBody(code int, reason string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)
}

func header(first, maskBit byte, n int) []byte {
	out := []byte{first}
	switch {
	case n < 126:
		return append(out, maskBit|byte(n))
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16(append(out, maskBit|126), uint16(n))
	}
	return binary.BigEndian.AppendUint64(append(out, maskBit|127), uint64(n))
}
