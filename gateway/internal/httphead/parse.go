package httphead

import (
	"bytes"
	"strings"
	"unsafe"
)

// What a head can fail with.
var (
	errTooLarge   = &Error{431, "request head is larger than 16 KiB"}
	errTooMany    = &Error{431, "request head has more than 100 header fields"}
	errBareLF     = &Error{400, "line of the request head does not end in CR LF"}
	errLine       = &Error{400, "request line is not METHOD SP target SP HTTP/1.1"}
	errMethod     = &Error{400, "request method is not a token"}
	errTarget     = &Error{400, "request target is not a path, a URL or *"}
	errVersion    = &Error{505, "HTTP version is neither 1.0 nor 1.1"}
	errFieldName  = &Error{400, "header field name is not a token followed by a colon"}
	errFieldValue = &Error{400, "header field value has control characters"}
	errFolded     = &Error{400, "header field is folded over several lines"}
	errHost       = &Error{400, "request has several Host fields"}
)

// Scanner finds the end of a head that arrives in pieces, looking at every
// byte once. The zero value is ready.
type Scanner struct {
	line    int // where the current line starts
	scanned int // how far the search for its end has come
	started bool
}

// Scan looks for the end of the head in buf, which holds what arrived since
// the connection's first byte and only grows between calls. It returns the
// length of the head, its final empty line included, or 0 when more is needed,
// or an *Error: a limit was passed, or a line does not end in CR LF.
func (s *Scanner) Scan(buf []byte) (int, error) {
	for {
		i := bytes.IndexByte(buf[s.scanned:], '\n')
		if i < 0 {
			s.scanned = len(buf)
			if len(buf) >= BytesMax {
				return 0, errTooLarge
			}
			return 0, nil
		}
		lf := s.scanned + i
		if lf >= BytesMax {
			return 0, errTooLarge
		}
		if lf == s.line || buf[lf-1] != '\r' {
			return 0, errBareLF
		}
		empty := lf-1 == s.line
		if empty && (s.started || s.line > 0) {
			return lf + 1, nil
		}
		// One empty line before the request is forgiven (RFC 9112 2.2).
		s.started = s.started || !empty
		s.line, s.scanned = lf+1, lf+1
	}
}

// Parse parses a whole head, as long as Scan said. The strings in h share
// head's memory.
func (h *Head) Parse(head []byte) error {
	h.Method, h.Path, h.RawQuery, h.Proto = "", "", "", ""
	h.fields = h.fields[:0]
	rest := strings.TrimPrefix(unsafe.String(unsafe.SliceData(head), len(head)), "\r\n")
	line, rest, ok := strings.Cut(rest, "\r\n")
	if !ok {
		return errLine
	}
	if err := h.requestLine(line); err != nil {
		return err
	}
	for {
		line, rest, ok = strings.Cut(rest, "\r\n")
		if !ok || line == "" {
			break
		}
		if err := h.field(line); err != nil {
			return err
		}
	}
	if h.Count("Host") > 1 {
		return errHost
	}
	return nil
}

// LeadingBytes is how many bytes at the start of a head are the forgiven empty
// line, which net/http does not forgive.
func LeadingBytes(head []byte) int {
	if bytes.HasPrefix(head, []byte("\r\n")) {
		return 2
	}
	return 0
}

func (h *Head) requestLine(line string) error {
	method, rest, ok := strings.Cut(line, " ")
	if !ok {
		return errLine
	}
	target, proto, ok := strings.Cut(rest, " ")
	if !ok {
		return errLine
	}
	if !isToken(method) {
		return errMethod
	}
	if len(proto) != len("HTTP/1.1") || !strings.HasPrefix(proto, "HTTP/") || proto[6] != '.' {
		return errLine
	}
	if proto != "HTTP/1.1" && proto != "HTTP/1.0" {
		return errVersion
	}
	h.Method, h.Proto = method, proto
	return h.target(target)
}

// target splits the request target (RFC 9112 3.2).
func (h *Head) target(target string) error {
	for i := 0; i < len(target); i++ {
		if target[i] <= ' ' || target[i] == 0x7f {
			return errTarget
		}
	}
	switch {
	case target == "":
		return errTarget
	case h.Method == "CONNECT":
		h.Path = target
		return nil
	case target == "*":
		h.Path = target
		return nil
	case target[0] != '/':
		_, authority, ok := strings.Cut(target, "://")
		if !ok {
			return errTarget
		}
		slash := strings.IndexAny(authority, "/?")
		if slash < 0 {
			h.Path = "/"
			return nil
		}
		target = authority[slash:]
	}
	h.Path, h.RawQuery, _ = strings.Cut(target, "?")
	if h.Path == "" {
		h.Path = "/"
	}
	return nil
}

func (h *Head) field(line string) error {
	if line[0] == ' ' || line[0] == '\t' {
		return errFolded
	}
	name, value, ok := strings.Cut(line, ":")
	if !ok || !isToken(name) {
		return errFieldName
	}
	value = strings.Trim(value, " \t")
	for i := 0; i < len(value); i++ {
		if (value[i] < ' ' && value[i] != '\t') || value[i] == 0x7f {
			return errFieldValue
		}
	}
	if len(h.fields) == FieldsMax {
		return errTooMany
	}
	h.fields = append(h.fields, field{name, value})
	return nil
}

// isToken reports whether s is a token of RFC 9110 5.6.2.
func isToken(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		alphanumeric := '0' <= c && c <= '9' || 'a' <= lower(c) && lower(c) <= 'z'
		if !alphanumeric && strings.IndexByte("!#$%&'*+-.^_`|~", c) < 0 {
			return false
		}
	}
	return s != ""
}
