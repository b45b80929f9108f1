package centrifugo

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/carillon-rt/carillon/kit/jsonx"
)

// reader goes over the fields of one message in either encoding. The first
// error sticks and ends the message. JSON has been checked to be valid before.
//
//	for r.next(names) {
//		switch r.number { case 1: x = r.string() ... }
//	}
type reader struct {
	json   bool
	walk   jsonx.Walker // JSON: the rest of the object
	buf    []byte       // protobuf: the rest of the message
	names  []string     // of the fields by number
	number int          // of the field that next stands on
	value  []byte       // JSON: its value; protobuf: that of bytes
	varint uint64
	kind   protowire.Type
	depth  int // of messages in messages
	err    *error
}

// depthMax is how deep messages may be nested: conditions on tags can be.
const depthMax = 16

var errDepth = fmt.Errorf("messages are nested more than %d deep", depthMax)

// enter begins to read an object.
func (r *reader) enter(document []byte) {
	if !r.json {
		r.buf = document
		return
	}
	r.walk = jsonx.Walk(document)
	if !r.walk.Enter('{') {
		r.fail(errors.New("a JSON object is expected"))
	}
}

func (r *reader) fail(err error) {
	if *r.err == nil {
		*r.err = err
	}
}

// next steps to the next field that is known; names are those of the fields
// by number, for JSON. Members that are null are as good as absent, unless
// they are payloads.
func (r *reader) next(names []string) bool {
	r.names = names
	for *r.err == nil {
		if !r.json {
			return r.nextField()
		}
		if !r.walk.More('}') {
			return false
		}
		name, value := r.walk.Member()
		if r.number = numberOf(names, name); r.number == 0 {
			continue
		}
		if value[0] == 'n' && name != "data" {
			continue
		}
		r.value = value
		return true
	}
	return false
}

func numberOf(names []string, name string) int {
	for i := 1; i < len(names); i++ {
		if names[i] == name && name != "" {
			return i
		}
	}
	return 0
}

var errShort = errors.New("the protobuf message is cut short or malformed")

func (r *reader) nextField() bool {
	if len(r.buf) == 0 {
		return false
	}
	number, kind, n := protowire.ConsumeTag(r.buf)
	if n < 0 {
		r.fail(errShort)
		return false
	}
	r.buf, r.number, r.kind = r.buf[n:], int(number), kind
	switch kind {
	case protowire.VarintType:
		r.varint, n = protowire.ConsumeVarint(r.buf)
	case protowire.BytesType:
		r.value, n = protowire.ConsumeBytes(r.buf)
	default:
		n = protowire.ConsumeFieldValue(number, kind, r.buf)
	}
	if n < 0 {
		r.fail(errShort)
		return false
	}
	r.buf = r.buf[n:]
	return true
}

func (r *reader) wrong(want string) {
	if r.number < len(r.names) && r.names[r.number] != "" {
		r.fail(fmt.Errorf("%q is not %s", r.names[r.number], want))
		return
	}
	r.fail(fmt.Errorf("field %d is not %s", r.number, want))
}

// bytes is the value of a field that has a length.
func (r *reader) bytes() []byte {
	if r.kind != protowire.BytesType {
		r.wrong("a string, payload or message")
		return nil
	}
	return r.value
}

func (r *reader) string() string {
	if r.json {
		if r.value[0] != '"' {
			r.wrong("a string")
			return ""
		}
		return string(jsonx.Unquote(r.value))
	}
	b := r.bytes()
	if !utf8.Valid(b) {
		r.wrong("UTF-8")
		return ""
	}
	return string(b)
}

// raw is a payload: any JSON value, or any bytes.
func (r *reader) raw() []byte {
	if r.json {
		return r.value
	}
	return r.bytes()
}

func (r *reader) uint(most uint64) uint64 {
	n := r.varint
	if r.json {
		var err error
		if n, err = strconv.ParseUint(string(r.value), 10, 64); err != nil {
			n = math.MaxUint64
		}
	} else if r.kind != protowire.VarintType {
		n = math.MaxUint64
	}
	if n > most {
		r.wrong(fmt.Sprintf("a whole number up to %d", most))
		return 0
	}
	return n
}

func (r *reader) int() int64 {
	if !r.json {
		if r.kind != protowire.VarintType {
			r.wrong("a whole number")
		}
		return int64(r.varint)
	}
	n, err := strconv.ParseInt(string(r.value), 10, 64)
	if err != nil {
		r.wrong("a whole number")
	}
	return n
}

func (r *reader) bool() bool {
	switch {
	case !r.json:
		if r.kind != protowire.VarintType {
			r.wrong("true or false")
		}
		return r.varint != 0
	case r.value[0] != 't' && r.value[0] != 'f':
		r.wrong("true or false")
	}
	return r.value[0] == 't'
}

// sub returns a reader of the value document, a part of this message.
func (r *reader) sub(document []byte) reader {
	s := reader{json: r.json, depth: r.depth + 1, err: r.err}
	if s.depth > depthMax {
		r.fail(errDepth)
	}
	s.enter(document)
	return s
}

// message returns a reader of the message in the field.
func (r *reader) message() reader {
	if r.json {
		return r.sub(r.value)
	}
	return r.sub(r.bytes())
}

// each visits the elements of a repeated field: all of them in JSON, the one
// that the field is in protobuf. visit reads element, which stands on it.
func (r *reader) each(visit func(element *reader)) {
	if !r.json {
		visit(r)
		return
	}
	w := jsonx.Walk(r.value)
	if !w.Enter('[') {
		r.wrong("an array")
		return
	}
	for *r.err == nil && w.More(']') {
		visit(&reader{json: true, value: w.Value(), number: r.number, depth: r.depth, err: r.err})
	}
}

var entryNames = []string{1: "key", 2: "value"}

// entries visits the entries of a map: all of them in JSON, one in protobuf.
// visit reads value, which stands on the value.
func (r *reader) entries(visit func(key string, value *reader)) {
	if r.json {
		w := jsonx.Walk(r.value)
		if !w.Enter('{') {
			r.wrong("an object")
			return
		}
		for *r.err == nil && w.More('}') {
			key, value := w.Member()
			visit(string([]byte(key)), &reader{json: true, value: value, number: r.number, depth: r.depth, err: r.err})
		}
		return
	}
	m := r.message()
	key := ""
	value := reader{kind: protowire.BytesType, number: r.number, depth: r.depth, err: r.err}
	for m.next(entryNames) {
		switch m.number {
		case 1:
			key = m.string()
		case 2:
			value.value = m.bytes()
		}
	}
	if *r.err == nil {
		visit(key, &value)
	}
}
