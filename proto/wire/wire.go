// Package wire has the few primitives that Carillon's binary envelopes are
// made of: unsigned varints and length-prefixed strings. It owns no format
// of its own; message and presence do.
package wire

import (
	"encoding/binary"
	"errors"
	"unsafe"
)

// ErrShort means that an envelope ends before its last field does.
var ErrShort = errors.New("wire: envelope is cut short")

// AppendUvarint appends v in LEB128, as in protobuf.
func AppendUvarint(dst []byte, v uint64) []byte { return binary.AppendUvarint(dst, v) }

// AppendString appends the length of s and s.
func AppendString[T ~string | ~[]byte](dst []byte, s T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// Reader reads the primitives back. The first error sticks: read all fields,
// then ask Err once. What it returns aliases the buffer it was given, which
// must not change afterwards.
type Reader struct {
	buf []byte
	err error
}

// NewReader returns a reader over buf.
func NewReader(buf []byte) Reader { return Reader{buf: buf} }

// Err is nil or ErrShort.
func (r *Reader) Err() error { return r.err }

// Len is the number of bytes not read yet.
func (r *Reader) Len() int { return len(r.buf) }

// Byte reads one byte.
func (r *Reader) Byte() byte {
	if len(r.buf) == 0 {
		r.err = ErrShort
		return 0
	}
	b := r.buf[0]
	r.buf = r.buf[1:]
	return b
}

// Uvarint reads an unsigned varint. Nearly all have one byte.
func (r *Reader) Uvarint() uint64 {
	if len(r.buf) > 0 && r.buf[0] < 0x80 {
		v := r.buf[0]
		r.buf = r.buf[1:]
		return uint64(v)
	}
	return r.longUvarint()
}

func (r *Reader) longUvarint() uint64 {
	v, n := binary.Uvarint(r.buf)
	if n <= 0 {
		r.err = ErrShort
		r.buf = nil
		return 0
	}
	r.buf = r.buf[n:]
	return v
}

// Bytes reads a length-prefixed field without copying it.
func (r *Reader) Bytes() []byte {
	n := r.Uvarint()
	if n > uint64(len(r.buf)) {
		r.err = ErrShort
		r.buf = nil
		return nil
	}
	b := r.buf[:n:n]
	r.buf = r.buf[n:]
	return b
}

// String reads a length-prefixed field as a string that aliases the buffer.
// Clone it before it is kept longer than the envelope deserves.
func (r *Reader) String() string {
	b := r.Bytes()
	if len(b) == 0 {
		return ""
	}
	return unsafe.String(&b[0], len(b))
}
