package pusher

import (
	"strconv"
	"strings"

	"github.com/carillon-rt/carillon/kit/jsonx"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// defaultEvent names publications whose publisher gave no event name.
const defaultEvent = "message"

// AppendPublication implements dialect.Dialect. It allocates nothing when dst
// has room.
func (p *Pusher) AppendPublication(dst []byte, pub *message.Publication) []byte {
	switch pub.Kind {
	case message.MemberAdded, message.MemberRemoved:
		if !channel.KindOf(pub.Channel).Presence { // members in the sense of another protocol
			return dst
		}
	}
	switch pub.Kind {
	case message.Event:
		event := pub.Event
		if event == "" {
			event = defaultEvent
		}
		dst = appendHead(dst, event, pub.Channel)
		dst = append(dst, `,"data":`...)
		dst = jsonx.AppendStringBytes(dst, pub.Data)
	case message.ClientEvent:
		return appendClientEvent(dst, pub)
	case message.MemberAdded:
		dst = appendHead(dst, "pusher_internal:member_added", pub.Channel)
		dst = append(dst, `,"data":"{\"user_id\":"`...)
		dst = extend(dst, pub.UserID)
		if len(pub.Data) > 0 {
			dst = extend(dst, `,"user_info":`)
			dst = extendBytes(dst, pub.Data)
		}
		dst = extend(dst, `}`)
	case message.MemberRemoved:
		dst = appendHead(dst, "pusher_internal:member_removed", pub.Channel)
		dst = append(dst, `,"data":"{\"user_id\":"`...)
		dst = extend(dst, pub.UserID)
		dst = extend(dst, `}`)
	case message.SubscriptionCount:
		dst = appendHead(dst, "pusher_internal:subscription_count", pub.Channel)
		dst = append(dst, `,"data":"{\"subscription_count\":`...)
		dst = strconv.AppendUint(dst, pub.Version, 10)
		dst = append(dst, `}"`...)
	case message.UserOnline:
		return appendOnline(dst, "online", pub)
	case message.UserOffline:
		return appendOnline(dst, "offline", pub)
	default:
		return dst
	}
	return append(dst, '}')
}

// AppendPositioned is AppendPublication with the publication's position, 0 if
// it has none.
func (p *Pusher) AppendPositioned(dst []byte, pos message.Position, pub *message.Publication) []byte {
	start := len(dst)
	dst = p.AppendPublication(dst, pub)
	if pos == 0 || len(dst) == start {
		return dst
	}
	dst = append(dst[:len(dst)-1], `,"position":"`...) // instead of the closing brace
	dst = strconv.AppendUint(dst, uint64(pos), 10)
	return append(dst, `"}`...)
}

// appendClientEvent passes data on as it came: an object stays an object.
func appendClientEvent(dst []byte, pub *message.Publication) []byte {
	dst = appendHead(dst, pub.Event, pub.Channel)
	if len(pub.Data) > 0 {
		dst = append(dst, `,"data":`...)
		dst = append(dst, pub.Data...)
	}
	if pub.UserID != "" {
		dst = append(dst, `,"user_id":`...)
		dst = append(dst, pub.UserID...)
	}
	return append(dst, '}')
}

// appendOnline appends a change of one watched user. It has no channel.
func appendOnline(dst []byte, state string, pub *message.Publication) []byte {
	id := pub.UserID
	if id == "" {
		id = strings.TrimPrefix(pub.Channel, channel.OnlinePrefix)
	}
	dst = append(dst, `{"event":"pusher_internal:watchlist_events","data":"{\"events\":[{\"name\":\"`...)
	dst = append(dst, state...)
	dst = append(dst, `\",\"user_ids\":["`...)
	dst = extendQuoted(dst, id)
	dst = extend(dst, `]}]}`)
	return append(dst, '}')
}

// extend lengthens the JSON string that dst ends with by s: its last byte and
// closing quote make room for the opening quote, and the byte is put back.
func extend(dst []byte, s string) []byte {
	at := len(dst) - 2
	last := dst[at]
	dst = jsonx.AppendString(dst[:at], s)
	dst[at] = last
	return dst
}

// extendBytes is extend for bytes.
func extendBytes(dst, s []byte) []byte {
	at := len(dst) - 2
	last := dst[at]
	dst = jsonx.AppendStringBytes(dst[:at], s)
	dst[at] = last
	return dst
}

// extendQuoted extends by s as a JSON string of its own. dst itself is the
// scratch space: s is quoted behind the end of dst, quoted again behind that,
// and the result moved to where it belongs.
func extendQuoted(dst []byte, s string) []byte {
	end := len(dst)
	dst = jsonx.AppendString(dst, s)
	once := dst[end:]
	dst = jsonx.AppendStringBytes(dst, once)
	n := copy(dst[end-1:], dst[end+len(once)+1:])
	return dst[:end-1+n]
}
