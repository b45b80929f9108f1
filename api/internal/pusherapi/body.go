package pusherapi

import (
	"bytes"
	"net/http"
	"unicode/utf16"
	"unicode/utf8"
	"unsafe"

	"github.com/carillon-rt/carillon/kit/jsonx"
)

// event is one event of a request. Its strings and data alias the body, which nobody changes.
type event struct {
	name           string
	channels       []string
	data           []byte
	hasData        bool
	rawData        bool // data was not a string but another JSON value
	socketID       string
	info           string
	idempotencyKey string
}

// decodeEvent reads the body of POST events.
func decodeEvent(body []byte) (event, error) {
	var ev event
	if err := checkJSON(body); err != nil {
		return ev, err
	}
	err := ev.read(body)
	return ev, err
}

// decodeBatch reads the body of POST batch_events; max is how many events it may have.
func decodeBatch(body []byte, max int) ([]event, error) {
	if err := checkJSON(body); err != nil {
		return nil, err
	}
	var batch []byte
	w := walker{buf: body}
	if !w.enter('{') {
		return nil, refuse(http.StatusBadRequest, "the body must be a JSON object such as {\"batch\":[...]}")
	}
	for w.more('}') {
		if key, value := w.member(); key == "batch" {
			batch = value
		}
	}
	w = walker{buf: batch}
	if !w.enter('[') {
		return nil, refuse(http.StatusBadRequest, "batch must be an array of events")
	}
	var events []event
	for w.more(']') {
		if len(events) == max {
			return nil, refuse(http.StatusBadRequest, "batch has more than %d events", max)
		}
		var ev event
		if err := ev.read(w.value()); err != nil {
			return nil, inBatch(len(events), err)
		}
		events = append(events, ev)
	}
	if len(events) == 0 {
		return nil, refuse(http.StatusBadRequest, "batch is empty")
	}
	return events, nil
}

// checkJSON accepts what the walker can walk over: one JSON value in UTF-8.
func checkJSON(body []byte) error {
	if !jsonx.Valid(body) {
		return refuse(http.StatusBadRequest, "the body is not valid JSON")
	}
	if !utf8.Valid(body) {
		return refuse(http.StatusBadRequest, "the body is not valid UTF-8")
	}
	return nil
}

// read fills ev from a JSON object. A member that comes twice counts the second time; null is like absent, except as data.
func (ev *event) read(object []byte) error {
	w := walker{buf: object}
	if !w.enter('{') {
		return refuse(http.StatusBadRequest, "an event must be a JSON object with name, data and channel or channels")
	}
	var one string
	for w.more('}') {
		key, value := w.member()
		var err error
		switch key {
		case "name":
			ev.name, err = stringOf(key, value)
		case "channel":
			one, err = stringOf(key, value)
		case "channels":
			ev.channels, err = stringsOf(key, value)
		case "data":
			ev.readData(value)
		case "socket_id":
			ev.socketID, err = stringOf(key, value)
		case "info":
			ev.info, err = stringOf(key, value)
		case "idempotency_key":
			ev.idempotencyKey, err = stringOf(key, value)
		}
		if err != nil {
			return err
		}
	}
	if len(ev.channels) == 0 && one != "" {
		ev.channels = []string{one}
	}
	if !ev.hasData {
		return refuse(http.StatusBadRequest, "data is missing")
	}
	return nil
}

// readData takes a string's content, and of any other value the bytes as they are, white space too: the documentation asks for
// a string, raw HTTP users send objects.
func (ev *event) readData(value []byte) {
	ev.hasData = true
	if ev.rawData = value[0] != '"'; ev.rawData {
		ev.data = value
		return
	}
	ev.data = unquote(value)
}

func stringOf(key string, value []byte) (string, error) {
	switch value[0] {
	case '"':
		return text(unquote(value)), nil
	case 'n':
		return "", nil
	}
	return "", refuse(http.StatusBadRequest, "%s must be a string", key)
}

func stringsOf(key string, value []byte) ([]string, error) {
	if value[0] == 'n' {
		return nil, nil
	}
	w := walker{buf: value}
	if !w.enter('[') {
		return nil, refuse(http.StatusBadRequest, "%s must be an array of strings", key)
	}
	out := make([]string, 0, min(bytes.Count(value, []byte{','})+1, 256))
	for w.more(']') {
		item := w.value()
		if item[0] != '"' {
			return nil, refuse(http.StatusBadRequest, "%s must be an array of strings", key)
		}
		out = append(out, text(unquote(item)))
	}
	return out, nil
}

// walker goes over a JSON document that is known to be valid, without building anything of it.
type walker struct {
	buf []byte
	at  int
}

func (w *walker) space() {
	for w.at < len(w.buf) {
		switch w.buf[w.at] {
		case ' ', '\t', '\n', '\r':
			w.at++
		default:
			return
		}
	}
}

// enter steps into an object or array; false if the value is not one.
func (w *walker) enter(open byte) bool {
	w.space()
	if w.at >= len(w.buf) || w.buf[w.at] != open {
		return false
	}
	w.at++
	return true
}

// more stands on the next member or element, or returns false at the closing bracket.
func (w *walker) more(end byte) bool {
	w.space()
	if w.at < len(w.buf) && w.buf[w.at] == ',' {
		w.at++
		w.space()
	}
	return w.at < len(w.buf) && w.buf[w.at] != end
}

// member reads a key and the bytes of its value.
func (w *walker) member() (key string, value []byte) {
	key = text(unquote(w.value()))
	w.space()
	w.at++ // the colon
	return key, w.value()
}

// value returns the bytes of the value that begins here and steps over it.
func (w *walker) value() []byte {
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

func (w *walker) skipString() {
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

// unquote returns the content of a valid JSON string: a part of it when it has no escapes, else a copy. A surrogate without its
// pair becomes U+FFFD.
func unquote(quoted []byte) []byte {
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

// text is b as a string that aliases it.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
