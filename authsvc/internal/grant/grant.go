// Package grant reads what tokens and hooks say of a subscription in the same
// way: infos, data and overrides.
package grant

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"

	"github.com/carillon-rt/carillon/proto/authz"
)

// Override is what counts for one subscription instead of its channel's
// policy.
type Override struct {
	Presence           *Switch `json:"presence,omitempty" pb:"1"`
	JoinLeave          *Switch `json:"join_leave,omitempty" pb:"2"`
	ForceRecovery      *Switch `json:"force_recovery,omitempty" pb:"3"`
	ForcePositioning   *Switch `json:"force_positioning,omitempty" pb:"4"`
	ForcePushJoinLeave *Switch `json:"force_push_join_leave,omitempty" pb:"5"`
}

// Switch is on or off.
type Switch struct {
	Value bool `json:"value,omitempty" pb:"1"`
}

func (s *Switch) value() *bool {
	if s == nil {
		return nil
	}
	return &s.Value
}

// Apply puts the overrides into a grant; o may be nil.
func (o *Override) Apply(g *authz.Grant) {
	if o == nil {
		return
	}
	g.Presence, g.JoinLeave, g.ForceJoinLeave = o.Presence.value(), o.JoinLeave.value(), o.ForcePushJoinLeave.value()
	g.ForcePosition, g.ForceRecovery = o.ForcePositioning.value(), o.ForceRecovery.value()
}

var errNotJSON = errors.New("it is not JSON, which it must be")

// Info reads JSON that comes as it is or in base64; it is "" if there is none,
// and else valid, without white space.
func Info(raw json.RawMessage, b64 string) (string, error) {
	data, err := Data(raw, b64)
	if err != nil || len(data) == 0 {
		return "", err
	}
	var out bytes.Buffer
	if json.Compact(&out, data) != nil {
		return "", errNotJSON
	}
	return out.String(), nil
}

// Data reads data that comes as it is or in base64; nil if there is none. JSON
// loses its white space.
func Data(raw json.RawMessage, b64 string) ([]byte, error) {
	if b64 != "" {
		data, err := base64.StdEncoding.DecodeString(b64)
		if err != nil {
			return nil, errors.New("its base64 form can't be read")
		}
		return data, nil
	}
	if len(raw) == 0 || string(raw) == "null" {
		return nil, nil
	}
	var out bytes.Buffer
	if json.Compact(&out, raw) != nil {
		return bytes.Clone(raw), nil
	}
	return out.Bytes(), nil
}
