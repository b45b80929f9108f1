package pusher

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
)

var (
	errNotUTF8   = errors.New("the message is not valid UTF-8")
	errNotObject = errors.New(`the message is not a JSON object: expected {"event":...,"data":...}`)
	errNoEvent   = errors.New(`the message has no "event", or one that is not a string`)
)

// clientPrefix begins the names of the events that clients may publish.
const clientPrefix = "client-"

// Decode implements dialect.Dialect. data may be an object, or a string that
// holds one, whatever the event; members that are not known are ignored.
func (p *Pusher) Decode(payload []byte) (cmd dialect.Command, err error) {
	if !utf8.Valid(payload) {
		return cmd, errNotUTF8
	}
	if !json.Valid(payload) {
		return cmd, fmt.Errorf("the message is not JSON: %w", json.Unmarshal(payload, new(json.RawMessage)))
	}
	if payload[skipSpace(payload, 0)] != '{' {
		return cmd, errNotObject
	}
	var event, channel, data []byte
	for name, value := range members(payload) {
		switch name {
		case "event":
			event = value
		case "channel":
			channel = value
		case "data":
			data = value
		}
	}
	if len(event) == 0 || event[0] != '"' {
		return cmd, errNoEvent
	}
	cmd.Kind = kindOf(event)
	switch cmd.Kind {
	case dialect.Subscribe, dialect.Unsubscribe, dialect.SignIn:
		err = decodeData(data, &cmd)
	case dialect.Publish:
		err = decodeClientEvent(event, channel, data, &cmd)
	}
	return cmd, err
}

// kindOf gives the kind of a message by its event, as it is written.
func kindOf(event []byte) dialect.CommandKind {
	name := string(event[1 : len(event)-1])
	if strings.IndexByte(name, '\\') >= 0 {
		name = unquote(event)
	}
	switch name {
	case "pusher:subscribe":
		return dialect.Subscribe
	case "pusher:unsubscribe":
		return dialect.Unsubscribe
	case "pusher:signin":
		return dialect.SignIn
	case "pusher:ping":
		return dialect.Ping
	case "pusher:pong":
		return dialect.Pong
	}
	if strings.HasPrefix(name, "pusher:") || strings.HasPrefix(name, "pusher_internal:") {
		return dialect.Unknown
	}
	return dialect.Publish
}

// decodeData reads the data of subscribe, unsubscribe and signin.
func decodeData(data []byte, cmd *dialect.Command) error {
	object, err := dataObject(data)
	if err != nil {
		return err
	}
	for name, value := range members(object) {
		var field *string
		switch name {
		case "channel":
			field = &cmd.Channel
		case "auth":
			field = &cmd.Auth
		case "channel_data":
			field = &cmd.ChannelData
		case "user_data":
			field = &cmd.UserData
		case "resume":
			if cmd.Kind == dialect.Subscribe {
				cmd.Resume = decodeResume(value)
			}
			continue
		default:
			continue
		}
		if *field, err = stringOf(name, value); err != nil {
			return err
		}
	}
	if cmd.Channel == "" && cmd.Kind != dialect.SignIn {
		return errors.New(`the message's data has no "channel"`)
	}
	return nil
}

func dataObject(data []byte) ([]byte, error) {
	if len(data) > 0 && data[0] == '"' {
		data = []byte(strings.TrimLeft(unquote(data), " \t\r\n"))
		if !json.Valid(data) {
			data = nil
		}
	}
	if len(data) == 0 || data[0] != '{' {
		return nil, errors.New(`the message's "data" is neither a JSON object nor a string that holds one`)
	}
	return data, nil
}

// stringOf reads a member of data; null is the same as no member.
func stringOf(name string, value []byte) (string, error) {
	switch value[0] {
	case '"':
		return unquote(value), nil
	case 'n':
		return "", nil
	}
	return "", fmt.Errorf("%q in the message's data is not a string", name)
}

func decodeClientEvent(event, channel, data []byte, cmd *dialect.Command) error {
	cmd.Event = unquote(event)
	if !strings.HasPrefix(cmd.Event, clientPrefix) {
		return &dialect.Refusal{Reason: dialect.BadEvent, Message: "events of clients must have names that begin with " + clientPrefix}
	}
	if len(channel) == 0 || channel[0] != '"' {
		return errors.New(`the client event has no "channel", or one that is not a string`)
	}
	cmd.Channel = unquote(channel)
	cmd.Data = data
	return nil
}
