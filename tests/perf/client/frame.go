package client

import "encoding/binary"

const (
	opText  = 1
	opClose = 8
)

// AppendText appends payload to dst as a client's text frame. Its mask is
// zero: legal, and as much work for the server as any other.
func AppendText(dst, payload []byte) []byte {
	const masked = 0x80
	dst = append(dst, 0x80|opText)
	switch n := len(payload); {
	case n < 126:
		dst = append(dst, masked|byte(n))
	case n < 1<<16:
		dst = append(dst, masked|126)
		dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	default:
		dst = append(dst, masked|127)
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	}
	dst = append(dst, 0, 0, 0, 0)
	return append(dst, payload...)
}
