package httphead

import "strconv"

// What a body can fail with.
var (
	errLengths    = &Error{400, "request has several Content-Length fields, or one next to Transfer-Encoding"}
	errLength     = &Error{400, "Content-Length is not a number of bytes"}
	errEncoding   = &Error{501, "Transfer-Encoding must be chunked, or absent"}
	errOldChunked = &Error{400, "an HTTP/1.0 request can't have a Transfer-Encoding"}
	errChunk      = &Error{400, "body is not chunked as its Transfer-Encoding says"}
	errOverhead   = &Error{400, "chunk extensions and trailers of the body are larger than 16 KiB and eight times the body"}
)

// chunkDigitsMax is how many hexadecimal digits a chunk's size may have.
const chunkDigitsMax = 8

// Body reads the body of one request from bytes that arrive in pieces (RFC
// 9112 6 and 7.1). Trailers are read and thrown away.
type Body struct {
	max      int
	left     int // bytes of the body, or of the chunk, that are still to come
	got      int // bytes of the body so far
	overhead int // bytes of sizes, extensions and trailers so far
	digits   int
	at       bodyState
}

// bodyState is what the next byte belongs to.
type bodyState uint8

const (
	inPlain bodyState = iota // a body with a length
	inSize
	inExtension
	afterSize // the LF of a size line
	inChunk
	afterChunk   // its CR
	betweenLines // its LF
	atTrailer    // the start of a trailer line, or of the last line
	inTrailer
	afterTrailer // its LF
	afterLast    // the LF of the last line
	bodyDone
)

// Body tells how the request's body is delimited; one of more than max bytes
// is an *Error of status 413, now or when it turns out.
func (h *Head) Body(max int) (Body, error) {
	b := Body{max: max}
	lengths, encodings := h.Count("Content-Length"), h.Count("Transfer-Encoding")
	switch {
	case lengths+encodings > 1:
		return b, errLengths
	case encodings == 1 && h.Proto != "HTTP/1.1":
		return b, errOldChunked
	case encodings == 1 && !equalFold(h.Header("Transfer-Encoding"), "chunked"):
		return b, errEncoding
	case encodings == 1:
		b.at = inSize
		return b, nil
	case lengths == 1:
		n, err := strconv.ParseUint(h.Header("Content-Length"), 10, 63)
		if err != nil {
			return b, errLength
		}
		if n > uint64(max) {
			return b, b.tooLarge()
		}
		b.left = int(n)
	}
	if b.left == 0 {
		b.at = bodyDone
	}
	return b, nil
}

func (b *Body) tooLarge() error {
	return &Error{413, "request body is larger than " + strconv.Itoa(b.max) + " bytes"}
}

// Done says whether the body is complete.
func (b *Body) Done() bool { return b.at == bodyDone }

// Whole returns the body when all of it stands at the start of in as it is,
// without a copy; nil when it has to be read with Read.
func (b *Body) Whole(in []byte) []byte {
	if b.at != inPlain || len(in) < b.left {
		return nil
	}
	return in[:b.left:b.left]
}

// Read appends to dst what in has of the body, and returns how many bytes of
// in it used: all of them unless the body is done or is wrong.
func (b *Body) Read(dst, in []byte) (body []byte, used int, err error) {
	for used < len(in) && b.at != bodyDone {
		if b.at == inPlain || b.at == inChunk {
			n := min(b.left, len(in)-used)
			dst = append(dst, in[used:used+n]...)
			used += n
			b.took(n)
			continue
		}
		if err := b.step(in[used]); err != nil {
			return dst, used, err
		}
		used++
	}
	return dst, used, nil
}

func (b *Body) took(n int) {
	b.left -= n
	b.got += n
	switch {
	case b.left > 0:
	case b.at == inPlain:
		b.at = bodyDone
	default:
		b.at = afterChunk
	}
}

// step takes one byte that is not the body's own.
func (b *Body) step(c byte) error {
	if b.overhead++; b.overhead > BytesMax+8*b.got { // chunks of a byte cost five
		return errOverhead
	}
	switch b.at {
	case inSize:
		return b.sizeByte(c)
	case inExtension:
		switch {
		case c == '\r':
			b.at = afterSize
		case c < ' ' && c != '\t' || c == 0x7f:
			return errChunk
		}
		return nil
	case afterSize:
		return b.sized(c)
	case afterChunk:
		return b.expect(c, '\r', betweenLines)
	case betweenLines:
		b.digits = 0
		return b.expect(c, '\n', inSize)
	case atTrailer:
		if c == '\r' {
			b.at = afterLast
			return nil
		}
		b.at = inTrailer
	case afterTrailer:
		return b.expect(c, '\n', atTrailer)
	case afterLast:
		return b.expect(c, '\n', bodyDone)
	}
	switch { // in a trailer
	case c == '\r':
		b.at = afterTrailer
	case c < ' ' && c != '\t' || c == 0x7f:
		return errChunk
	}
	return nil
}

func (b *Body) expect(c, want byte, next bodyState) error {
	if c != want {
		return errChunk
	}
	b.at = next
	return nil
}

// sizeByte takes one byte of a chunk's size.
func (b *Body) sizeByte(c byte) error {
	digit := -1
	switch l := lower(c); {
	case '0' <= c && c <= '9':
		digit = int(c - '0')
	case 'a' <= l && l <= 'f':
		digit = int(l-'a') + 10
	}
	if digit >= 0 {
		if b.digits++; b.digits > chunkDigitsMax {
			return errChunk
		}
		b.left = b.left<<4 | digit
		return nil
	}
	switch {
	case b.digits == 0:
		return errChunk
	case c == '\r':
		b.at = afterSize
	case c == ';' || c == ' ' || c == '\t':
		b.at = inExtension
	default:
		return errChunk
	}
	return nil
}

// sized ends a size line.
func (b *Body) sized(c byte) error {
	switch {
	case c != '\n':
		return errChunk
	case b.left > b.max-b.got:
		return b.tooLarge()
	case b.left == 0:
		b.at = atTrailer
	default:
		b.at = inChunk
	}
	return nil
}

// Persists says whether the connection may be used for another request after
// this one (RFC 9112 9.3). Of HTTP/1.0 it never is.
func (h *Head) Persists() bool {
	return h.Proto == "HTTP/1.1" && !h.HeaderHas("Connection", "close")
}
