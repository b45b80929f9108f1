package ingest

import (
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"
	"unsafe"

	"github.com/carillon-rt/carillon/kit/jsonx"
	"github.com/carillon-rt/carillon/proto/message"
)

// members are those of a document, in the order of the bits of a seen set.
var members = [...]string{"channel", "channels", "event", "data", "exclude", "id", "idempotency_key", "tags", "batch"}

// appendPlain appends what a document asks for, if it is a plain one: valid,
// in UTF-8, each member once, spelt exactly and of the right type. Of others
// it says so and nothing else: only encoding/json decides what they mean.
// What it appends aliases raw.
func appendPlain(all []single, raw []byte) (_ []single, plain bool) {
	if !jsonx.Valid(raw) || !utf8.Valid(raw) {
		return all, false
	}
	all = append(all, single{})
	batch, plain := all[len(all)-1].read(raw)
	if !plain || batch == nil {
		return all, plain
	}
	all = all[:len(all)-1]
	w := jsonx.Walk(batch)
	if !w.Enter('[') {
		return all, false
	}
	for w.More(']') {
		if len(all) > message.BatchPublicationsMax {
			return all, false
		}
		all = append(all, single{})
		if inner, plain := all[len(all)-1].read(w.Value()); !plain || inner != nil {
			return all, false
		}
	}
	return all, len(all) > 0
}

// read fills s from an object and returns its batch, nil if it has none.
func (s *single) read(object []byte) (batch []byte, plain bool) {
	w := jsonx.Walk(object)
	if !w.Enter('{') {
		return nil, false
	}
	seen := 0
	for w.More('}') {
		name, value := w.Member()
		at := slices.Index(members[:], name)
		if at < 0 {
			if foldsToMember(name) {
				return nil, false
			}
			continue // nothing of ours
		}
		if seen&(1<<at) != 0 {
			return nil, false
		}
		seen |= 1 << at
		if name == "batch" {
			batch = value
		} else if !s.set(name, value) {
			return nil, false
		}
	}
	return batch, true
}

// foldsToMember says whether encoding/json takes name for a member's.
func foldsToMember(name string) bool {
	for _, m := range members {
		if strings.EqualFold(m, name) {
			return true
		}
	}
	return false
}

// set takes one member; false if it is not of the right type.
func (s *single) set(name string, value []byte) bool {
	var field *string
	switch name {
	case "data":
		s.Data = value
		return true
	case "tags":
		return json.Unmarshal(value, &s.Tags) == nil
	case "channels":
		return s.setChannels(value)
	case "channel":
		field = &s.Channel
	case "event":
		field = &s.Event
	case "exclude":
		field = &s.Exclude
	case "id":
		field = &s.ID
	case "idempotency_key":
		field = &s.IdempotencyKey
	}
	if value[0] != '"' {
		return false
	}
	*field = unquoted(value)
	return true
}

func (s *single) setChannels(value []byte) bool {
	w := jsonx.Walk(value)
	if !w.Enter('[') {
		return false
	}
	for w.More(']') {
		item := w.Value()
		if item[0] != '"' {
			return false
		}
		s.Channels = append(s.Channels, unquoted(item))
	}
	return true
}

// unquoted is a JSON string's content, which may alias it.
func unquoted(value []byte) string {
	b := jsonx.Unquote(value)
	return unsafe.String(unsafe.SliceData(b), len(b))
}
