// Package stamp is what a measured message carries in its data, so that who
// receives it knows what is missing, what came twice or too early, and how
// long it took. It is pure.
package stamp

import (
	"bytes"
	"encoding/binary"
)

const (
	// Mark begins a stamp. Nothing else in a measured message may hold it.
	Mark = '~'
	// Size is how long a stamp is, in bytes.
	Size = 1 + 32

	// LanesMax and ChannelsMax are what a stamp has room for.
	LanesMax    = 1 << 8
	ChannelsMax = 1 << 24
)

// Stamp says which message this is.
type Stamp struct {
	// Lane is a publisher that sends one message after the other: what it
	// publishes on a channel must arrive in its order.
	Lane int
	// Channel is the number of the channel.
	Channel int
	// Seq counts the lane's messages on the channel, from 1.
	Seq uint32
	// At is when the message was to be published, in nanoseconds of the
	// machine's monotonic clock.
	At int64
}

// Append appends the stamp to dst.
func Append(dst []byte, s Stamp) []byte {
	dst = append(dst, Mark)
	dst = appendHex(dst, uint64(s.Lane)<<56|uint64(s.Channel)<<32|uint64(s.Seq))
	return appendHex(dst, uint64(s.At))
}

func appendHex(dst []byte, v uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, digits[v>>shift&0xf])
	}
	return dst
}

// Find returns the stamp in a message, false if it has none.
func Find(message []byte) (Stamp, bool) {
	i := bytes.IndexByte(message, Mark)
	if i < 0 || len(message)-i < Size {
		return Stamp{}, false
	}
	b := message[i+1 : i+Size]
	id := uint64(hex8(b))<<32 | uint64(hex8(b[8:]))
	at := uint64(hex8(b[16:]))<<32 | uint64(hex8(b[24:]))
	return Stamp{Lane: int(id >> 56), Channel: int(id >> 32 & (ChannelsMax - 1)), Seq: uint32(id), At: int64(at)}, true
}

// hex8 reads eight lower-case hexadecimal digits at once: a generator that
// reads millions of stamps a second has no time for one digit after another.
func hex8(b []byte) uint32 {
	const low, letter = 0x0f0f0f0f0f0f0f0f, 0x4040404040404040
	x := binary.LittleEndian.Uint64(b)
	x = x&low + (x&letter)>>6*9                 // a digit in each byte
	x = (x<<4 | x>>8) & 0x00ff00ff00ff00ff      // a byte in each 16 bits
	x = (x<<8 | x>>16) & 0x0000ffff0000ffff     // two in each 32
	return uint32(x<<16) | uint32(x>>32)&0xffff // all four
}
