package ws

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	gobwas "github.com/gobwas/ws"
)

// Error says how a client broke the protocol, as the close frame to answer.
type Error struct {
	Code   int
	Reason string
}

// Error implements error.
func (e *Error) Error() string { return e.Reason }

// What a client can break beyond gobwas's own checks.
var (
	errLength    = &Error{CloseProtocol, "frame length is malformed or not minimal"}
	errUTF8      = &Error{CloseInvalidData, "text is not UTF-8"}
	errCloseBody = &Error{CloseProtocol, "close frame has a one byte body"}
	errCloseCode = &Error{CloseProtocol, "close code is not allowed"}
	errCloseUTF8 = &Error{CloseInvalidData, "close reason is not UTF-8"}
)

// Event is one message or control frame of a client. Op 0 means none: more
// input is needed.
type Event struct {
	Op Op
	// Payload is the message, unmasked, or the reason of a close. It is valid
	// until the input or the reader is used again.
	Payload []byte
	// Code is a close frame's code, CloseNoStatus when it had none.
	Code int
}

// Decoder holds what reading frames needs and no single connection owns: one
// serves all readers of a loop. It is not safe for concurrent use.
type Decoder struct {
	messageBytesMax int64
	source          bytes.Reader
	scratch         [gobwas.MaxHeaderSize]byte
	joined          [2 * gobwas.MaxHeaderSize]byte
}

// NewDecoder returns a Decoder that refuses messages above messageBytesMax
// with 1009.
func NewDecoder(messageBytesMax int) *Decoder {
	return &Decoder{messageBytesMax: int64(messageBytesMax)}
}

// Reader reads the frames of one client from chunks of any size. It holds a
// buffer only while a frame or a fragmented message is incomplete. The zero
// value is ready.
type Reader struct {
	partial *partial
}

// partial is what arrived of a frame or message that is not complete.
type partial struct {
	stash      [gobwas.MaxHeaderSize]byte // start of a frame header
	stashed    int
	inFrame    bool // frame's header is complete, its payload is not
	fragmented bool // message waits for a continuation
	op         Op   // of message
	frame      gobwas.Header
	got        int64  // payload bytes of frame so far
	control    []byte // payload of a control frame so far
	message    []byte
	valid      int // message[:valid] is whole characters of UTF-8
}

// Idle reports whether the reader holds no incomplete frame or message.
func (r *Reader) Idle() bool { return r.partial == nil }

// Next reads up to one event from in, and returns how many bytes of in it
// used: all of them when the event's Op is 0. Payloads are unmasked in place,
// so in is changed. After an error, which is an *Error, the reader must not be
// used again.
func (r *Reader) Next(d *Decoder, in []byte) (Event, int, error) {
	if r.partial != nil && r.partial.inFrame {
		return r.payload(in)
	}
	h, used, err := r.header(d, in)
	if err != nil || used < 0 {
		return Event{}, len(in), err
	}
	if err := r.check(d, &h); err != nil {
		return Event{}, used, err
	}
	rest := in[used:]
	whole := h.OpCode.IsControl() || (h.Fin && h.OpCode != gobwas.OpContinuation)
	if whole && int64(len(rest)) >= h.Length {
		payload := rest[:h.Length]
		gobwas.Cipher(payload, h.Mask, 0)
		r.release()
		ev, err := wholeEvent(Op(h.OpCode), payload)
		return ev, used + len(payload), err
	}
	p := r.hold()
	p.frame, p.got, p.inFrame = h, 0, true
	ev, n, err := r.payload(rest)
	return ev, used + n, err
}

// header reads a frame header that may have begun in an earlier chunk. used is
// how many bytes of in belong to it, -1 when it is still incomplete.
func (r *Reader) header(d *Decoder, in []byte) (h gobwas.Header, used int, err error) {
	stashed := 0
	source := in
	if r.partial != nil && r.partial.stashed > 0 {
		stashed = copy(d.joined[:], r.partial.stash[:r.partial.stashed])
		n := copy(d.joined[stashed:], in)
		source = d.joined[:stashed+n]
	}
	d.source.Reset(source)
	h, err = gobwas.ReadHeaderBuffer(&d.source, d.scratch[:])
	size := len(source) - d.source.Len()
	switch {
	case err == gobwas.ErrHeaderLengthMSB:
		return h, 0, errLength
	case err != nil:
		if len(source) > 0 {
			p := r.hold()
			p.stashed = copy(p.stash[:], source)
		}
		return h, -1, nil
	case size != gobwas.HeaderSize(h):
		return h, 0, errLength
	}
	if r.partial != nil {
		r.partial.stashed = 0
	}
	return h, size - stashed, nil
}

// check applies the rules of RFC 6455 5 to a frame header, and the limit.
func (r *Reader) check(d *Decoder, h *gobwas.Header) error {
	state := gobwas.StateServerSide
	total := h.Length
	if r.partial != nil && r.partial.fragmented {
		state = state.Set(gobwas.StateFragmented)
		total += int64(len(r.partial.message))
	}
	if err := gobwas.CheckHeader(*h, state); err != nil {
		return &Error{CloseProtocol, err.Error()}
	}
	if !h.OpCode.IsControl() && total > d.messageBytesMax {
		return &Error{CloseTooBig, fmt.Sprintf("message too big: at most %d bytes are allowed", d.messageBytesMax)}
	}
	return nil
}

// payload takes what in has of the current frame's payload.
func (r *Reader) payload(in []byte) (Event, int, error) {
	p := r.partial
	n := int(min(int64(len(in)), p.frame.Length-p.got))
	chunk := in[:n]
	gobwas.Cipher(chunk, p.frame.Mask, int(p.got&3))
	p.got += int64(n)
	if p.frame.OpCode.IsControl() {
		p.control = append(p.control, chunk...)
	} else if err := p.add(chunk); err != nil {
		return Event{}, n, err
	}
	if p.got < p.frame.Length {
		return Event{}, n, nil
	}
	p.inFrame = false
	ev, err := r.frameDone()
	return ev, n, err
}

// add appends to the message under assembly and checks the characters that
// are complete so far.
func (p *partial) add(chunk []byte) error {
	if p.frame.OpCode != gobwas.OpContinuation {
		p.op = Op(p.frame.OpCode)
	}
	p.message = append(p.message, chunk...)
	if p.op != OpText {
		return nil
	}
	unchecked := p.message[p.valid:]
	whole := len(unchecked) - incompleteTail(unchecked)
	if !utf8.Valid(unchecked[:whole]) {
		return errUTF8
	}
	p.valid += whole
	return nil
}

// incompleteTail is how many bytes at the end of b may become a character
// when more arrives.
func incompleteTail(b []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(b); n++ {
		if c := b[len(b)-n]; utf8.RuneStart(c) {
			if utf8.FullRune(b[len(b)-n:]) {
				return 0
			}
			return n
		}
	}
	return 0
}

// frameDone turns the frame that was completed into an event, unless its
// message goes on.
func (r *Reader) frameDone() (Event, error) {
	p := r.partial
	if p.frame.OpCode.IsControl() {
		control := p.control
		p.control = nil
		r.release()
		return wholeEvent(Op(p.frame.OpCode), control)
	}
	p.fragmented = !p.frame.Fin
	if p.fragmented {
		return Event{}, nil
	}
	if p.op == OpText && p.valid != len(p.message) {
		return Event{}, errUTF8
	}
	r.partial = nil
	return Event{Op: p.op, Payload: p.message}, nil
}

// hold returns the partial, making one when there is none.
func (r *Reader) hold() *partial {
	if r.partial == nil {
		r.partial = &partial{}
	}
	return r.partial
}

// release drops the partial unless a fragmented message needs it.
func (r *Reader) release() {
	if r.partial != nil && !r.partial.fragmented {
		r.partial = nil
	}
}

// wholeEvent makes the event of an unfragmented frame.
func wholeEvent(op Op, payload []byte) (Event, error) {
	switch op {
	case OpText:
		if !utf8.Valid(payload) {
			return Event{}, errUTF8
		}
	case OpClose:
		return closeEvent(payload)
	}
	return Event{Op: op, Payload: payload}, nil
}

// closeEvent checks the body of a close frame (RFC 6455 5.5.1 and 7.4).
func closeEvent(body []byte) (Event, error) {
	switch len(body) {
	case 0:
		return Event{Op: OpClose, Code: CloseNoStatus}, nil
	case 1:
		return Event{}, errCloseBody
	}
	code := int(binary.BigEndian.Uint16(body))
	if !ValidCloseCode(code) {
		return Event{}, errCloseCode
	}
	if !utf8.Valid(body[2:]) {
		return Event{}, errCloseUTF8
	}
	return Event{Op: OpClose, Payload: body[2:], Code: code}, nil
}
