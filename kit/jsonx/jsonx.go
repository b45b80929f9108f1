// Package jsonx writes and checks JSON without touching what it does not have to: strings are quoted without HTML
// escaping and raw documents are compacted, never re-encoded. It knows nothing of the messages that it is used for.
package jsonx

import (
	"bytes"
	"encoding/json"
	"fmt"
	"unicode/utf8"
)

const hexDigits = "0123456789abcdef"

// AppendString appends s to dst as a JSON string with its quotes. Only what JSON requires is escaped (quote, backslash,
// control characters): <, >, &, U+2028 and U+2029 stay as they are. Each invalid UTF-8 byte becomes U+FFFD.
func AppendString(dst []byte, s string) []byte { return appendQuoted(dst, s) }

// AppendStringBytes is AppendString for bytes; b is not kept.
func AppendStringBytes(dst, b []byte) []byte { return appendQuoted(dst, b) }

// appendQuoted copies runs of bytes that need no escape in one append each: most strings are one run.
func appendQuoted[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start, look := 0, 0 // from look on eight bytes are looked at together
	for i := 0; i < len(s); {
		if i >= look && i+8 <= len(s) {
			if plain8(s, i) {
				i += 8
				continue
			}
			look = i + 8
		}
		c := s[i]
		if c < utf8.RuneSelf {
			if c >= ' ' && c != '"' && c != '\\' {
				i++
				continue
			}
			dst = append(dst, s[start:i]...)
			dst = appendEscape(dst, c)
			i++
			start = i
			continue
		}
		// A string conversion of at most four bytes stays on the stack.
		r, size := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
		if r == utf8.RuneError && size == 1 {
			dst = append(dst, s[start:i]...)
			dst = append(dst, "\uFFFD"...)
			i++
			start = i
			continue
		}
		i += size
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

// plain8 says whether the eight bytes from s[i] on are ASCII that needs no escape, looking at all at once (Warren,
// Hacker's Delight, 2nd edition, section 6-1): a byte's high bit stays set when it is above 0x7f, below a space, a
// quote or a backslash.
func plain8[T string | []byte](s T, i int) bool {
	const ones, high = 0x0101010101010101, 0x8080808080808080
	s = s[i : i+8]
	x := uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
	return (x|(x-ones*' ')|((x^ones*'"')-ones)|((x^ones*'\\')-ones))&high == 0
}

func appendEscape(dst []byte, c byte) []byte {
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	case '\b':
		return append(dst, '\\', 'b')
	case '\f':
		return append(dst, '\\', 'f')
	}
	return append(dst, '\\', 'u', '0', '0', hexDigits[c>>4], hexDigits[c&0xf])
}

// Valid reports whether b is exactly one JSON value with optional white space around it.
func Valid(b []byte) bool { return json.Valid(b) }

// Compact appends src to dst without the white space between its tokens; strings and numbers keep their bytes. On an
// error dst is returned as it was.
func Compact(dst, src []byte) ([]byte, error) {
	buf := bytes.NewBuffer(dst)
	if err := json.Compact(buf, src); err != nil {
		return dst, fmt.Errorf("compact JSON: %w", err)
	}
	return buf.Bytes(), nil
}
