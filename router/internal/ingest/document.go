package ingest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/carillon-rt/carillon/kit/jsonx"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/publisher"
)

// document is a publish request of a backend: one publication on one or more
// channels, or a batch of such.
type document struct {
	single
	Batch []single `json:"batch"`
}

type single struct {
	Channel        string          `json:"channel"`
	Channels       []string        `json:"channels"`
	Event          string          `json:"event"`
	Data           json.RawMessage `json:"data"`
	Exclude        string          `json:"exclude"`
	ID             string          `json:"id"`
	IdempotencyKey string          `json:"idempotency_key"`
	Tags           tags            `json:"tags"`
}

// tags keeps the order in which the publisher wrote them.
type tags []message.Tag

// UnmarshalJSON reads an object of strings.
func (t *tags) UnmarshalJSON(raw []byte) error {
	var m map[string]string
	if err := json.Unmarshal(raw, &m); err != nil {
		return errors.New("tags must be an object of strings")
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if _, err := dec.Token(); err != nil || m == nil {
		return err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		value, err := dec.Token()
		if err != nil {
			return err
		}
		k, _ := key.(string)
		v, _ := value.(string)
		*t = append(*t, message.Tag{Key: k, Value: v})
	}
	return nil
}

// documents parses documents, with memory that it uses again.
type documents struct {
	all  []single
	pubs []message.Publication
	errs []error
}

// parse gives the publications of a document, one per channel, in order.
// errs[i] is why publication i is refused. A document that can't be read at
// all, or is too long, is an error. What it returns may alias raw, and is
// valid until the next call.
func (d *documents) parse(app string, raw []byte) (pubs []message.Publication, errs []error, err error) {
	if err := d.read(raw); err != nil {
		return nil, nil, refuse(publisher.BadPublication,
			`body is not a publish document: %v; want {"channel": ..., "event": ..., "data": ...} or {"batch": [...]}`, inJSON(err))
	}
	d.pubs, d.errs = d.pubs[:0], d.errs[:0]
	for i := range d.all {
		d.expand(app, &d.all[i])
		if len(d.pubs) > message.BatchPublicationsMax {
			return nil, nil, refuse(publisher.BadPublication,
				"more than %d publications in one request: split it", message.BatchPublicationsMax)
		}
	}
	if len(d.pubs) == 0 {
		return nil, nil, refuse(publisher.BadPublication, "batch is empty")
	}
	return d.pubs, d.errs, nil
}

// forget lets go of what was parsed last.
func (d *documents) forget() {
	clear(d.all)
	clear(d.pubs)
	clear(d.errs)
}

// read fills all. Nearly all documents are plain; encoding/json, which costs
// five times as much, reads the others and says what is wrong with them.
func (d *documents) read(raw []byte) error {
	all, plain := appendPlain(d.all[:0], raw)
	if plain {
		d.all = all
		return nil
	}
	var doc document
	if err := json.Unmarshal(raw, &doc); err != nil {
		return err
	}
	if d.all = doc.Batch; d.all == nil {
		d.all = append(all[:0], doc.single)
	}
	return nil
}

// inJSON says what is wrong with a document in the words of JSON, not of Go.
func inJSON(err error) string {
	var wrong *json.UnmarshalTypeError
	if !errors.As(err, &wrong) {
		return err.Error()
	}
	want := "an object"
	switch wrong.Type.Kind() {
	case reflect.String:
		want = "a string"
	case reflect.Slice:
		want = "a list"
		if wrong.Type.Elem().Kind() == reflect.String {
			want = "a list of strings"
		}
	}
	field := strings.ReplaceAll(wrong.Field, "single.", "")
	if field == "" {
		field = "it"
	}
	return fmt.Sprintf("%s is %s %s, not %s", field, article(wrong.Value), wrong.Value, want)
}

func article(noun string) string {
	if strings.IndexByte("aeiou", noun[0]) >= 0 {
		return "an"
	}
	return "a"
}

// expand appends the publications of s.
func (d *documents) expand(app string, s *single) {
	data, err := s.payload()
	pub := message.Publication{
		Kind: message.Event, App: app, Channel: s.Channel, Event: s.Event, Data: data, Exclude: s.Exclude, ID: s.ID,
		IdempotencyKey: s.IdempotencyKey, Tags: s.Tags,
	}
	if s.Channel != "" || len(s.Channels) == 0 {
		d.pubs, d.errs = append(d.pubs, pub), append(d.errs, err)
	}
	for _, pub.Channel = range s.Channels {
		d.pubs, d.errs = append(d.pubs, pub), append(d.errs, err)
	}
}

// payload is the content of a string, or the bytes of any other JSON as they
// came.
func (s *single) payload() ([]byte, error) {
	switch {
	case len(s.Data) == 0:
		return nil, refuse(publisher.BadPublication, `data is missing: give a string, or any JSON`)
	case s.Data[0] != '"':
		return s.Data, nil
	case utf8.Valid(s.Data):
		return jsonx.Unquote(s.Data), nil
	}
	var text string
	if err := json.Unmarshal(s.Data, &text); err != nil {
		return nil, refuse(publisher.BadPublication, "data: %v", err)
	}
	return []byte(text), nil
}

// encodeDocument is the answer to a document.
func encodeDocument(receipts []publisher.Receipt) []byte {
	out := append(make([]byte, 0, 32+64*len(receipts)), `{"receipts":[`...)
	for i := range receipts {
		if i > 0 {
			out = append(out, ',')
		}
		out = appendReceipt(out, &receipts[i])
	}
	return append(out, "]}"...)
}

func appendReceipt(out []byte, r *publisher.Receipt) []byte {
	out = append(out, '{')
	comma := ""
	field := func(name string) {
		out = append(out, comma...)
		out = append(out, '"')
		out = append(out, name...)
		out = append(out, `":`...)
		comma = ","
	}
	if r.Position != 0 {
		field("position")
		out = strconv.AppendUint(out, uint64(r.Position), 10)
		field("epoch")
		out = jsonx.AppendString(out, r.Epoch)
	}
	if r.Duplicate {
		field("duplicate")
		out = append(out, "true"...)
	}
	if r.Err != nil {
		field("error")
		out = jsonx.AppendString(out, r.Err.Error())
		var e *publisher.Error
		if errors.As(r.Err, &e) {
			field("code")
			out = strconv.AppendUint(out, uint64(e.Code), 10)
			if e.Code.Retryable() {
				field("retry")
				out = append(out, "true"...)
			}
		}
	}
	return append(out, '}')
}

// encodeRefusal answers a document that could not be read.
func encodeRefusal(err error) []byte {
	out := append([]byte(nil), `{"error":`...)
	out = jsonx.AppendString(out, fmt.Sprint(err))
	return append(out, `,"receipts":[]}`...)
}
