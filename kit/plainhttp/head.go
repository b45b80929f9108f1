package plainhttp

import (
	"bytes"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
)

// fieldsMax is how many header fields a plain request has at most.
const fieldsMax = 32

// head is the head of a plain request, as it came. Its strings are its own.
type head struct {
	method, target, host string
	length               int
	fields               http.Header // without Host

	values []string // what the fields' values are made of
}

// parse reads the head that buf begins with and fills u; it returns the head's size. plain is false when the head is not complete,
// or when anything is in it that takes more than reading so many bytes and answering them: other methods and versions, other forms
// of the target, codings, trailers, expectations, upgrades, a connection to be closed, and whatever net/http might refuse.
func (h *head) parse(buf []byte, u *url.URL) (size int, plain bool) {
	end := bytes.Index(buf, []byte("\r\n\r\n"))
	if end < 0 {
		return 0, false
	}
	line, rest, _ := strings.Cut(string(buf[:end+2]), "\r\n")
	if !h.requestLine(line) || !h.setURL(u) {
		return 0, false
	}
	h.host, h.length, h.values = "", 0, h.values[:0]
	clear(h.fields)
	for rest != "" {
		line, rest, _ = strings.Cut(rest, "\r\n")
		if !h.field(line) {
			return 0, false
		}
	}
	return end + 4, h.host != ""
}

func (h *head) requestLine(line string) bool {
	var version string
	var ok bool
	if h.method, line, ok = strings.Cut(line, " "); !ok || (h.method != http.MethodPost && h.method != http.MethodGet) {
		return false
	}
	h.target, version, ok = strings.Cut(line, " ")
	return ok && version == "HTTP/1.1"
}

// setURL takes the target apart as net/http does.
func (h *head) setURL(u *url.URL) bool {
	if !strings.HasPrefix(h.target, "/") || strings.HasPrefix(h.target, "//") || strings.HasSuffix(h.target, "?") || !visible(h.target) {
		return false
	}
	path, query, _ := strings.Cut(h.target, "?")
	if simple(path) {
		*u = url.URL{Path: path, RawQuery: query}
		return true
	}
	parsed, err := url.ParseRequestURI(h.target)
	if err != nil {
		return false
	}
	*u = *parsed
	return true
}

// field takes one line of the header.
func (h *head) field(line string) bool {
	name, value, ok := strings.Cut(line, ":")
	if !ok || !token(name) || len(h.values) == fieldsMax {
		return false
	}
	value = strings.Trim(value, " \t")
	if !printable(value) {
		return false
	}
	name = textproto.CanonicalMIMEHeaderKey(name)
	switch name {
	case "Host":
		first := h.host == ""
		h.host = value
		return first && hostname(value)
	case "Content-Length":
		return h.setLength(value) && h.add(name, value)
	case "Connection":
		return strings.EqualFold(value, "keep-alive") && h.add(name, value)
	case "Transfer-Encoding", "Trailer", "Expect", "Upgrade", "Pragma":
		return false
	}
	return h.add(name, value)
}

func (h *head) add(name, value string) bool {
	h.values = append(h.values, value)
	n := len(h.values)
	if have := h.fields[name]; have != nil {
		h.fields[name] = append(have, value)
		return true
	}
	h.fields[name] = h.values[n-1 : n : n]
	return true
}

func (h *head) setLength(value string) bool {
	n, err := strconv.ParseUint(value, 10, 31)
	h.length = int(n)
	return err == nil && h.fields["Content-Length"] == nil && n <= bodyMax
}

const alphanumeric = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// charset is a set of bytes.
type charset [256]bool

func charsetOf(chars string) (s charset) {
	for i := range len(chars) {
		s[chars[i]] = true
	}
	return s
}

// What is immutable after the start.
var (
	tokenChars = charsetOf(alphanumeric + "!#$%&'*+-.^_`|~")
	pathChars  = charsetOf(alphanumeric + "/-_.~:@=")
	hostChars  = charsetOf(alphanumeric + "-.:[]_")
)

func (s *charset) all(text string) bool {
	for i := range len(text) {
		if !s[text[i]] {
			return false
		}
	}
	return text != ""
}

func token(s string) bool    { return tokenChars.all(s) }
func simple(s string) bool   { return pathChars.all(s) }
func hostname(s string) bool { return hostChars.all(s) }

// visible says whether s is of visible ASCII characters.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] >= 0x7f || s[i] == '#' {
			return false
		}
	}
	return true
}

// printable is visible, with spaces and tabs.
func printable(s string) bool {
	for i := range len(s) {
		if (s[i] < ' ' && s[i] != '\t') || s[i] >= 0x7f {
			return false
		}
	}
	return true
}
