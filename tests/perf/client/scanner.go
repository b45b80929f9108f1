package client

import "bytes"

// scanner finds the marks in the payloads of a server's WebSocket frames. It
// keeps its place over reads of any size.
type scanner struct {
	head   [10]byte // of the frame that is being read
	have   uint8    // bytes of head
	closes bool     // a close frame has begun
	left   uint64   // payload bytes of the frame to come
}

// scan returns how often mark is in the payload bytes of b.
func (s *scanner) scan(b []byte, mark byte) int {
	marks := 0
	for len(b) > 0 {
		if s.left > 0 {
			n := len(b)
			if uint64(n) > s.left {
				n = int(s.left)
			}
			marks += bytes.Count(b[:n], []byte{mark})
			s.left -= uint64(n)
			b = b[n:]
			continue
		}
		s.head[s.have] = b[0]
		s.have++
		b = b[1:]
		if size, ok := s.complete(); ok {
			s.left, s.have = size, 0
			s.closes = s.closes || s.head[0]&0x0f == opClose
		}
	}
	return marks
}

// complete gives the payload's size once the head is complete. A server's
// frames have no mask.
func (s *scanner) complete() (uint64, bool) {
	if s.have < 2 {
		return 0, false
	}
	switch size := s.head[1] & 0x7f; size {
	case 126:
		return uint64(s.head[2])<<8 | uint64(s.head[3]), s.have == 4
	case 127:
		var n uint64
		for _, b := range s.head[2:10] {
			n = n<<8 | uint64(b)
		}
		return n, s.have == 10
	default:
		return uint64(size), true
	}
}
