package jsonx

import (
	"bytes"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"
)

// Walker goes over a JSON document that is known to be Valid, without building anything of it. What it returns aliases the document.
type Walker struct {
	buf []byte
	at  int
}

// Walk returns a walker at the beginning of document, which nobody may change while its parts are in use.
func Walk(document []byte) Walker { return Walker{buf: document} }

func (w *Walker) space() {
	for w.at < len(w.buf) {
		switch w.buf[w.at] {
		case ' ', '\t', '\n', '\r':
			w.at++
		default:
			return
		}
	}
}

// Enter steps into an object or array; false if the value is not one.
func (w *Walker) Enter(open byte) bool {
	w.space()
	if w.at >= len(w.buf) || w.buf[w.at] != open {
		return false
	}
	w.at++
	return true
}

// More stands on the next member or element, or returns false at the closing bracket.
func (w *Walker) More(end byte) bool {
	w.space()
	if w.at < len(w.buf) && w.buf[w.at] == ',' {
		w.at++
		w.space()
	}
	return w.at < len(w.buf) && w.buf[w.at] != end
}

// Member reads a key and the bytes of its value.
func (w *Walker) Member() (key string, value []byte) {
	key = text(Unquote(w.Value()))
	w.space()
	w.at++ // the colon
	return key, w.Value()
}

// Value returns the bytes of the value that begins here and steps over it.
func (w *Walker) Value() []byte {
	w.space()
	start, depth := w.at, 0
	for w.at < len(w.buf) {
		switch w.buf[w.at] {
		case '"':
			w.skipString()
			if depth == 0 {
				return w.buf[start:w.at:w.at]
			}
			continue
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 { // the end of what a number or word stands in
				return w.buf[start:w.at:w.at]
			}
			if depth--; depth == 0 {
				w.at++
				return w.buf[start:w.at:w.at]
			}
		case ',', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return w.buf[start:w.at:w.at]
			}
		}
		w.at++
	}
	return w.buf[start:w.at:w.at]
}

func (w *Walker) skipString() {
	for w.at++; w.at < len(w.buf); w.at++ {
		switch w.buf[w.at] {
		case '\\':
			w.at++
		case '"':
			w.at++
			return
		}
	}
}

// Unquote returns the content of a valid JSON string: a part of it when it has no escapes, else a copy. A surrogate without its
// pair becomes U+FFFD.
func Unquote(quoted []byte) []byte {
	s := quoted[1 : len(quoted)-1 : len(quoted)-1]
	next := bytes.IndexByte(s, '\\')
	if next < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for next >= 0 {
		out = append(out, s[:next]...)
		c := s[next+1]
		s = s[next+2:]
		switch c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			var r rune
			r, s = unquoteRune(s)
			out = utf8.AppendRune(out, r)
		default: // quote, backslash, slash
			out = append(out, c)
		}
		next = bytes.IndexByte(s, '\\')
	}
	return append(out, s...)
}

// unquoteRune reads what follows "\u": four digits, and the second half of a surrogate pair if it is one.
func unquoteRune(s []byte) (rune, []byte) {
	r := hex4(s)
	s = s[4:]
	if !utf16.IsSurrogate(r) {
		return r, s
	}
	if len(s) >= 6 && s[0] == '\\' && s[1] == 'u' {
		if pair := utf16.DecodeRune(r, hex4(s[2:])); pair != utf8.RuneError {
			return pair, s[6:]
		}
	}
	return utf8.RuneError, s
}

func hex4(s []byte) rune {
	return rune(unhex(s[0])<<12 | unhex(s[1])<<8 | unhex(s[2])<<4 | unhex(s[3]))
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// text is b as a string that aliases it.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
