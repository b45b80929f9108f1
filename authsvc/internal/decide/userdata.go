package decide

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/carillon-rt/carillon/proto/authz"
)

// object is a JSON object that the application signed; values keep their exact
// bytes. Field names are compared exactly, unlike those of Go structs.
type object struct {
	name   string // channel_data or user_data, for messages
	fields map[string]json.RawMessage
}

// parseObject reads text, which name calls.
func parseObject(name, text string) (object, error) {
	o := object{name: name}
	if !utf8.ValidString(text) {
		return o, fmt.Errorf("%s is not valid UTF-8", name)
	}
	if err := json.Unmarshal([]byte(text), &o.fields); err != nil || o.fields == nil {
		return o, fmt.Errorf("%s is not a JSON object, want one such as %s", name, example(name))
	}
	return o, nil
}

func example(name string) string {
	if name == "user_data" {
		return `{"id":"1","user_info":{}}`
	}
	return `{"user_id":"1","user_info":{}}`
}

// user reads the id from idField and user_info.
func (o object) user(idField string) (authz.User, error) {
	raw, ok := o.fields[idField]
	if !ok {
		return authz.User{}, fmt.Errorf("%s has no %s, want it such as %s", o.name, idField, example(o.name))
	}
	id, err := idString(raw)
	if err != nil {
		return authz.User{}, fmt.Errorf("%s: %s %w", o.name, idField, err)
	}
	return authz.User{ID: id, RawID: string(raw), Info: string(o.fields["user_info"])}, nil
}

// watchlist reads the ids of the watched users, each once.
func (o object) watchlist() ([]string, error) {
	raw, ok := o.fields["watchlist"]
	if !ok || string(raw) == "null" {
		return nil, nil
	}
	var list []json.RawMessage
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, fmt.Errorf(`%s: watchlist is not a list of user ids, want it such as ["1","2"]`, o.name)
	}
	ids, seen := make([]string, 0, len(list)), make(map[string]struct{}, len(list))
	for i, raw := range list {
		id, err := idString(raw)
		if err != nil {
			return nil, fmt.Errorf("%s: watchlist[%d] %w", o.name, i, err)
		}
		if _, twice := seen[id]; !twice {
			seen[id] = struct{}{}
			ids = append(ids, id)
		}
	}
	return ids, nil
}

var (
	errIDEmpty = errors.New("is empty, want a non-empty string or a number")
	errIDType  = errors.New("is neither a string nor a number")
)

// idString gives the string form of an id in JSON: a string's content, a
// number's literal text (10 is "10", 1.0 stays "1.0").
func idString(raw json.RawMessage) (string, error) {
	switch c := raw[0]; {
	case c == '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return "", errIDType
		}
		if s == "" {
			return "", errIDEmpty
		}
		// Decoding made it from the message: don't keep that alive.
		return strings.Clone(s), nil
	case c == '-' || (c >= '0' && c <= '9'):
		return string(raw), nil
	}
	return "", errIDType
}
