package pusherapi

import (
	"slices"
	"strings"
)

// paramsMax bounds the parameters of a query: the SDKs send ten at most.
const paramsMax = 64

// params are the parameters of a query: decoded once, names in lower case, the last of a repeated name, sorted by name.
//
// net/url's parser can't be used: it drops pairs that hold a raw ';' and turns '+' into a space, and the SDKs send their
// values unescaped. (Pusher HTTP API, "authentication".)
type params []param

type param struct{ name, value string }

// parseQuery takes a raw query apart. ok is false when it has more than paramsMax parameters.
func parseQuery(raw string) (ps params, ok bool) {
	ps = make(params, 0, 8)
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, value = strings.ToLower(unescape(name)), unescape(value)
		if at := ps.index(name); at >= 0 {
			ps[at].value = value
			continue
		}
		if len(ps) == paramsMax {
			return nil, false
		}
		ps = append(ps, param{name, value})
	}
	slices.SortFunc(ps, func(a, b param) int { return strings.Compare(a.name, b.name) })
	return ps, true
}

func (ps params) index(name string) int {
	for i := range ps {
		if ps[i].name == name {
			return i
		}
	}
	return -1
}

// get returns the value of a parameter, "" if it is not there.
func (ps params) get(name string) string {
	if at := ps.index(name); at >= 0 {
		return ps[at].value
	}
	return ""
}

// canonical is the part of the string to sign that is made of the query: all parameters but auth_signature, unescaped.
func (ps params) canonical() string {
	size := 0
	for _, p := range ps {
		size += len(p.name) + len(p.value) + 2
	}
	var b strings.Builder
	b.Grow(size)
	for _, p := range ps {
		if p.name == "auth_signature" {
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('&')
		}
		b.WriteString(p.name)
		b.WriteByte('=')
		b.WriteString(p.value)
	}
	return b.String()
}

// unescape resolves %xx once. A '+' is a plus; a '%' that begins no escape stands for itself.
func unescape(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi >= 0 && lo >= 0 {
				out = append(out, byte(hi<<4|lo))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// unhex is the value of a hex digit, -1 for other bytes.
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
