package fleet

import "encoding/binary"

// WebSocket opcodes (RFC 6455, section 5.2).
const (
	opText   = 0x1
	opBinary = 0x2
	opClose  = 0x8
	opPing   = 0x9
	opPong   = 0xA
)

// AppendText appends payload as a client's text frame. Its mask is zero:
// legal, and as much work for the server as any other.
func AppendText(dst, payload []byte) []byte { return appendFrame(dst, opText, payload) }

func appendFrame(dst []byte, op byte, payload []byte) []byte {
	const masked = 0x80
	dst = append(dst, 0x80|op)
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

// cutFrame takes a server's frame, which has no mask, off b. size is 0 while
// the frame is incomplete.
func cutFrame(b []byte) (op byte, payload []byte, size int) {
	if len(b) < 2 {
		return 0, nil, 0
	}
	at, n := 2, uint64(b[1]&0x7f)
	switch n {
	case 126:
		if len(b) < 4 {
			return 0, nil, 0
		}
		at, n = 4, uint64(binary.BigEndian.Uint16(b[2:]))
	case 127:
		if len(b) < 10 {
			return 0, nil, 0
		}
		at, n = 10, binary.BigEndian.Uint64(b[2:])
	}
	if uint64(len(b)-at) < n {
		return 0, nil, 0
	}
	size = at + int(n)
	return b[0] & 0x0f, b[at:size], size
}
