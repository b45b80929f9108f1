// Package httphead parses the head of one HTTP/1.x request from bytes that may
// arrive in pieces. It owns the grammar and its limits; it must not know
// sockets, bodies or what the request is for: anything that is not a WebSocket
// upgrade is handed to net/http, which parses it again.
package httphead

import (
	"iter"
	"strconv"
	"strings"
)

// Limits of a head. RFC 9110 2.3 leaves them to the server.
const (
	// BytesMax is the size of a whole head, its final empty line included.
	BytesMax = 16 << 10
	// FieldsMax is the number of header fields.
	FieldsMax = 100
)

// Error says why a request head can't be served, as the HTTP status to answer.
type Error struct {
	Status int
	Detail string
}

// Error implements error.
func (e *Error) Error() string { return e.Detail }

// field is one header field as it was sent, with the white space around its
// value removed.
type field struct{ name, value string }

// Head is a parsed request head. Its strings share the memory that was
// parsed: they are valid only as long as that memory is not overwritten, so
// whoever keeps one clones it. A Head is reused by parsing into it again.
type Head struct {
	Method string
	// Path is the target's path as it was sent, not unescaped. It is "*" for
	// OPTIONS * and the whole target for CONNECT.
	Path string
	// RawQuery is what follows the first "?" of the target.
	RawQuery string
	// Proto is "HTTP/1.0" or "HTTP/1.1".
	Proto string

	fields []field
}

// Header returns the value of the first field of that name, in any case, or
// "".
func (h *Head) Header(name string) string {
	for i := range h.fields {
		if equalFold(h.fields[i].name, name) {
			return h.fields[i].value
		}
	}
	return ""
}

// Count returns how many fields of that name, in any case, the head has.
func (h *Head) Count(name string) int {
	n := 0
	for i := range h.fields {
		if equalFold(h.fields[i].name, name) {
			n++
		}
	}
	return n
}

// Fields yields every field in the order sent, with its name as it was sent.
func (h *Head) Fields() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for i := range h.fields {
			if !yield(h.fields[i].name, h.fields[i].value) {
				return
			}
		}
	}
}

// HeaderTokens yields the members of a comma-separated list header, over all
// fields of that name (RFC 9110 5.6.1); empty members are left out.
func (h *Head) HeaderTokens(name string) iter.Seq[string] {
	return func(yield func(string) bool) {
		for i := range h.fields {
			if !equalFold(h.fields[i].name, name) {
				continue
			}
			if !splitList(h.fields[i].value, yield) {
				return
			}
		}
	}
}

// HeaderHas reports whether a list header contains token, in any case.
func (h *Head) HeaderHas(name, token string) bool {
	for t := range h.HeaderTokens(name) {
		if equalFold(t, token) {
			return true
		}
	}
	return false
}

// splitList yields the non-empty members of one comma-separated value until
// yield says stop.
func splitList(value string, yield func(string) bool) bool {
	for value != "" {
		var member string
		member, value, _ = strings.Cut(value, ",")
		member = strings.Trim(member, " \t")
		if member != "" && !yield(member) {
			return false
		}
	}
	return true
}

// equalFold compares ASCII names in any case. strings.EqualFold would also
// fold the Kelvin sign to k.
func equalFold(a, b string) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i++ {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// Parameter gives the first value of a query parameter as it was sent.
func Parameter(rawQuery, name string) string {
	for rawQuery != "" {
		var pair string
		pair, rawQuery, _ = strings.Cut(rawQuery, "&")
		if k, v, _ := strings.Cut(pair, "="); k == name {
			return v
		}
	}
	return ""
}

// Unescape resolves the escapes of a query parameter: %XX, and + for a space.
// What is no such escape stays as it is.
func Unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		c := s[i]
		if c == '+' {
			c = ' '
		}
		if c == '%' && i+2 < len(s) {
			if v, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				c = byte(v)
				i += 2
			}
		}
		out = append(out, c)
	}
	return string(out)
}
