package pusherapi

import (
	"bytes"
	"net/http"
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
	w := jsonx.Walk(body)
	if !w.Enter('{') {
		return nil, refuse(http.StatusBadRequest, "the body must be a JSON object such as {\"batch\":[...]}")
	}
	for w.More('}') {
		if key, value := w.Member(); key == "batch" {
			batch = value
		}
	}
	w = jsonx.Walk(batch)
	if !w.Enter('[') {
		return nil, refuse(http.StatusBadRequest, "batch must be an array of events")
	}
	events := make([]event, 0, min(max, 10)) // the largest batch of Pusher's own API
	for w.More(']') {
		if len(events) == max {
			return nil, refuse(http.StatusBadRequest, "batch has more than %d events", max)
		}
		var ev event
		if err := ev.read(w.Value()); err != nil {
			return nil, inBatch(len(events), err)
		}
		events = append(events, ev)
	}
	if len(events) == 0 {
		return nil, refuse(http.StatusBadRequest, "batch is empty")
	}
	return events, nil
}

// checkJSON accepts what a jsonx.Walker can walk over: one JSON value in UTF-8.
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
	w := jsonx.Walk(object)
	if !w.Enter('{') {
		return refuse(http.StatusBadRequest, "an event must be a JSON object with name, data and channel or channels")
	}
	var one string
	for w.More('}') {
		key, value := w.Member()
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
	ev.data = jsonx.Unquote(value)
}

func stringOf(key string, value []byte) (string, error) {
	switch value[0] {
	case '"':
		return text(jsonx.Unquote(value)), nil
	case 'n':
		return "", nil
	}
	return "", refuse(http.StatusBadRequest, "%s must be a string", key)
}

func stringsOf(key string, value []byte) ([]string, error) {
	if value[0] == 'n' {
		return nil, nil
	}
	w := jsonx.Walk(value)
	if !w.Enter('[') {
		return nil, refuse(http.StatusBadRequest, "%s must be an array of strings", key)
	}
	out := make([]string, 0, min(bytes.Count(value, []byte{','})+1, 256))
	for w.More(']') {
		item := w.Value()
		if item[0] != '"' {
			return nil, refuse(http.StatusBadRequest, "%s must be an array of strings", key)
		}
		out = append(out, text(jsonx.Unquote(item)))
	}
	return out, nil
}

// text is b as a string that aliases it.
func text(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
