package centrifugo

import (
	"bytes"
	"encoding/json"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/carillon-rt/carillon/kit/jsonx"
)

// writer appends messages in either encoding: what a message consists of is
// said once. Fields whose value is zero are left out, as proto3 has it; the
// methods that begin with "always" write them in JSON (protobuf has no
// difference between them).
//
// A writer has no state but the buffer: in JSON a comma is due unless an
// object or array has just been opened.
type writer struct {
	buf  []byte
	json bool
}

func (w *writer) comma() {
	if n := len(w.buf); n > 0 && w.buf[n-1] != '{' && w.buf[n-1] != '[' {
		w.buf = append(w.buf, ',')
	}
}

// key begins a member.
func (w *writer) key(name string) {
	w.comma()
	w.buf = append(w.buf, '"')
	w.buf = append(w.buf, name...)
	w.buf = append(w.buf, '"', ':')
}

func (w *writer) tag(number int, t protowire.Type) {
	w.buf = protowire.AppendTag(w.buf, protowire.Number(number), t)
}

// begin opens a message that stands in a field of the one under way; end with
// what begin returned closes it.
func (w *writer) begin(number int, name string) (start int) {
	if w.json {
		w.key(name)
		w.buf = append(w.buf, '{')
		return 0
	}
	w.tag(number, protowire.BytesType)
	return w.open()
}

func (w *writer) end(start int) {
	if w.json {
		w.buf = append(w.buf, '}')
		return
	}
	w.close(start)
}

// open makes room for a length of one byte; close writes it, and moves what
// follows if it needs more.
func (w *writer) open() (start int) {
	w.buf = append(w.buf, 0)
	return len(w.buf)
}

func (w *writer) close(start int) {
	n := len(w.buf) - start
	if n < 0x80 {
		w.buf[start-1] = byte(n)
		return
	}
	more := protowire.SizeVarint(uint64(n)) - 1
	w.buf = append(w.buf, "\x00\x00\x00\x00\x00\x00\x00\x00\x00"[:more]...)
	copy(w.buf[start+more:], w.buf[start:start+n])
	protowire.AppendVarint(w.buf[:start-1], uint64(n))
}

func (w *writer) string(number int, name, v string) {
	if v != "" {
		w.alwaysString(number, name, v)
	}
}

func (w *writer) alwaysString(number int, name, v string) {
	switch {
	case w.json:
		w.key(name)
		w.buf = jsonx.AppendString(w.buf, v)
	case v != "":
		w.tag(number, protowire.BytesType)
		w.buf = protowire.AppendString(w.buf, v)
	}
}

func (w *writer) uint(number int, name string, v uint64) {
	if v != 0 {
		w.alwaysUint(number, name, v)
	}
}

func (w *writer) alwaysUint(number int, name string, v uint64) {
	switch {
	case w.json:
		w.key(name)
		w.buf = strconv.AppendUint(w.buf, v, 10)
	case v != 0:
		w.tag(number, protowire.VarintType)
		w.buf = protowire.AppendVarint(w.buf, v)
	}
}

func (w *writer) bool(number int, name string, v bool) {
	switch {
	case !v:
	case w.json:
		w.key(name)
		w.buf = append(w.buf, "true"...)
	default:
		w.tag(number, protowire.VarintType)
		w.buf = append(w.buf, 1)
	}
}

// raw writes a payload of an application.
func (w *writer) raw(number int, name string, v []byte) {
	switch {
	case len(v) == 0:
	case w.json:
		w.key(name)
		w.buf = appendRaw(w.buf, v)
	default:
		w.tag(number, protowire.BytesType)
		w.buf = protowire.AppendBytes(w.buf, v)
	}
}

// appendRaw appends a payload to a JSON message: as it is when it is JSON, but
// for raw line feeds, which separate messages, and carriage returns, which
// separate lines of server-sent events; else as a JSON string.
func appendRaw(dst, v []byte) []byte {
	if !json.Valid(v) || !utf8.Valid(v) { // json.Valid takes any bytes in strings
		return jsonx.AppendStringBytes(dst, v)
	}
	for { // in valid JSON they are nothing but white space
		i := bytes.IndexAny(v, "\r\n")
		if i < 0 {
			return append(dst, v...)
		}
		dst = append(dst, v[:i]...)
		v = v[i+1:]
	}
}

// list opens a repeated message field, item each of its messages; in protobuf
// a list is nothing but its items.
func (w *writer) list(name string) {
	if w.json {
		w.key(name)
		w.buf = append(w.buf, '[')
	}
}

func (w *writer) item(number int) (start int) {
	if w.json {
		w.comma()
		w.buf = append(w.buf, '{')
		return 0
	}
	w.tag(number, protowire.BytesType)
	return w.open()
}

func (w *writer) endList() {
	if w.json {
		w.buf = append(w.buf, ']')
	}
}

// object opens a map field, entry a message in it under a key, endEntry and
// endObject close them.
func (w *writer) object(name string) {
	if w.json {
		w.key(name)
		w.buf = append(w.buf, '{')
	}
}

func (w *writer) endObject() {
	if w.json {
		w.buf = append(w.buf, '}')
	}
}

// entry is an entry of a map whose values are messages: in protobuf a message
// with the key in field 1 and the value in field 2.
func (w *writer) entry(number int, key string) (starts [2]int) {
	if w.json {
		w.comma()
		w.buf = append(jsonx.AppendString(w.buf, key), ':', '{')
		return starts
	}
	w.tag(number, protowire.BytesType)
	starts[0] = w.open()
	w.tag(1, protowire.BytesType)
	w.buf = protowire.AppendString(w.buf, key)
	w.tag(2, protowire.BytesType)
	starts[1] = w.open()
	return starts
}

func (w *writer) endEntry(starts [2]int) {
	if w.json {
		w.buf = append(w.buf, '}')
		return
	}
	w.close(starts[1])
	w.close(starts[0])
}

// pair is an entry of a map of strings.
func (w *writer) pair(number int, key, value string) {
	if w.json {
		w.comma()
		w.buf = append(jsonx.AppendString(w.buf, key), ':')
		w.buf = jsonx.AppendString(w.buf, value)
		return
	}
	w.tag(number, protowire.BytesType)
	start := w.open()
	w.tag(1, protowire.BytesType)
	w.buf = protowire.AppendString(w.buf, key)
	w.tag(2, protowire.BytesType)
	w.buf = protowire.AppendString(w.buf, value)
	w.close(start)
}
