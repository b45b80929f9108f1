package httphead

import "strings"

// Clone returns a head that outlives the memory this one shares.
func (h *Head) Clone() *Head {
	var b strings.Builder
	h.each(func(s *string) { b.WriteString(*s) })
	all := b.String()
	out := &Head{Method: h.Method, Path: h.Path, RawQuery: h.RawQuery, Proto: h.Proto, fields: append([]field(nil), h.fields...)}
	out.each(func(s *string) { *s, all = all[:len(*s)], all[len(*s):] })
	return out
}

// each visits all strings of the head.
func (h *Head) each(visit func(s *string)) {
	for _, s := range []*string{&h.Method, &h.Path, &h.RawQuery, &h.Proto} {
		visit(s)
	}
	for i := range h.fields {
		visit(&h.fields[i].name)
		visit(&h.fields[i].value)
	}
}
