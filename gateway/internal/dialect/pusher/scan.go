package pusher

import (
	"bytes"
	"iter"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// The functions here walk over JSON that was checked to be valid before: they
// need no errors and allocate only the strings they return.

// members yields the members of a JSON object with their values as they are
// written; a repeated name is yielded again.
func members(object []byte) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		i := skipSpace(object, 0) + 1 // {
		for {
			i = skipSpace(object, i)
			if object[i] == ',' {
				i = skipSpace(object, i+1)
			}
			if object[i] == '}' {
				return
			}
			nameEnd := skipValue(object, i)
			name := object[i:nameEnd]
			i = skipSpace(object, nameEnd) + 1 // :
			i = skipSpace(object, i)
			end := skipValue(object, i)
			if !yield(memberName(name), object[i:end]) {
				return
			}
			i = end
		}
	}
}

// memberName gives the names that matter without an allocation.
func memberName(quoted []byte) string {
	switch name := quoted[1 : len(quoted)-1]; string(name) {
	case "event":
		return "event"
	case "channel":
		return "channel"
	case "data":
		return "data"
	case "auth":
		return "auth"
	case "channel_data":
		return "channel_data"
	case "user_data":
		return "user_data"
	case "resume":
		return "resume"
	case "position":
		return "position"
	case "epoch":
		return "epoch"
	case "rewind":
		return "rewind"
	case "socket_id":
		return "socket_id"
	}
	return unquote(quoted)
}

func skipSpace(b []byte, i int) int {
	for i < len(b) && (b[i] == ' ' || b[i] == '\n' || b[i] == '\t' || b[i] == '\r') {
		i++
	}
	return i
}

// skipValue gives the end of the value that begins at b[i].
func skipValue(b []byte, i int) int {
	switch b[i] {
	case '"':
		return skipString(b, i)
	case '{', '[':
		for depth := 0; ; {
			switch b[i] {
			case '"':
				i = skipString(b, i)
				continue
			case '{', '[':
				depth++
			case '}', ']':
				depth--
			}
			i++
			if depth == 0 {
				return i
			}
		}
	}
	for i < len(b) && bytes.IndexByte([]byte(",]} \t\r\n"), b[i]) < 0 {
		i++
	}
	return i
}

func skipString(b []byte, i int) int {
	for i++; b[i] != '"'; i++ {
		if b[i] == '\\' {
			i++
		}
	}
	return i + 1
}

// unquote gives the string that a JSON string stands for. Halves of surrogate
// pairs become U+FFFD.
func unquote(quoted []byte) string {
	s := quoted[1 : len(quoted)-1]
	esc := bytes.IndexByte(s, '\\')
	if esc < 0 {
		return string(s)
	}
	out := make([]byte, 0, len(s))
	for esc >= 0 {
		out = append(out, s[:esc]...)
		out, s = unescape(out, s[esc:])
		esc = bytes.IndexByte(s, '\\')
	}
	return string(append(out, s...))
}

// unescape appends what the escape at the start of s stands for and returns
// the rest of s.
func unescape(out, s []byte) (_, rest []byte) {
	switch c := s[1]; c {
	case 'n':
		return append(out, '\n'), s[2:]
	case 'r':
		return append(out, '\r'), s[2:]
	case 't':
		return append(out, '\t'), s[2:]
	case 'b':
		return append(out, '\b'), s[2:]
	case 'f':
		return append(out, '\f'), s[2:]
	case 'u':
	default: // quote, backslash, slash
		return append(out, c), s[2:]
	}
	r := hex4(s)
	s = s[6:]
	if utf16.IsSurrogate(r) {
		pair := utf16.DecodeRune(r, hex4(s))
		if pair != utf8.RuneError {
			s = s[6:]
		}
		r = pair
	}
	return utf8.AppendRune(out, r), s
}

// hex4 reads the \uXXXX at the start of s, -1 if there is none.
func hex4(s []byte) rune {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return -1
	}
	v, err := strconv.ParseUint(string(s[2:6]), 16, 32)
	if err != nil {
		return -1
	}
	return rune(v)
}
