package main

import (
	"encoding/binary"
	"errors"
)

const (
	opText  = 1
	opClose = 8
	opPing  = 9
	opPong  = 10

	controlMax = 125
	restMax    = 8 + 65535 // the largest frame that is understood, and request
)

var errNotUnderstood = errors.New("a fragment, an extension, or a frame without a mask or of more than 64 KiB")

// appendFrame appends a server's frame.
func appendFrame(dst []byte, op byte, payload []byte) []byte {
	dst = append(dst, 0x80|op)
	if n := len(payload); n < 126 {
		dst = append(dst, byte(n))
	} else {
		dst = append(dst, 126)
		dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	}
	return append(dst, payload...)
}

// frame is what a client sent.
type frame struct {
	op      byte
	payload []byte // unmasked, where it came
}

// take takes a client's frame off b.
func take(b []byte) (f frame, rest []byte, complete bool, err error) {
	if len(b) < 6 {
		return frame{}, b, false, nil
	}
	op, at, size := b[0]^0x80, 2, int(b[1]^0x80)
	if op > opPong || size > 126 || (op >= opClose && size > controlMax) {
		return frame{}, b, false, errNotUnderstood
	}
	if size == 126 {
		at, size = 4, int(binary.BigEndian.Uint16(b[2:4]))
	}
	if len(b) < at+4+size {
		return frame{}, b, false, nil
	}
	mask := b[at : at+4]
	payload := b[at+4 : at+4+size]
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return frame{op, payload}, b[at+4+size:], true, nil
}
