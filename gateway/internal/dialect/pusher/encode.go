package pusher

import (
	"strconv"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/kit/jsonx"
	"github.com/carillon-rt/carillon/proto/code"
	"github.com/carillon-rt/carillon/proto/presence"
)

// bufferKept is the size up to which buffers of messages are used again.
const bufferKept = 16 << 10

// Encode implements dialect.Dialect. The data of every event is a string that
// holds JSON, but for pusher:error, whose data is an object.
func (p *Pusher) Encode(ev dialect.Event, out dialect.Sender) {
	pooled, _ := p.buffers.Get().(*[]byte)
	if pooled == nil {
		pooled = new([]byte)
	}
	b := (*pooled)[:0]
	if ev.Kind == dialect.SubscribeError {
		kind, status := subscriptionError(ev.Reason)
		errorCode := 0
		if kind == "AuthError" {
			errorCode = code.PusherUnauthorized
		}
		b = appendError(b, errorCode, textOf(&ev))
		out.Send(b)
		b = appendSubscriptionError(b[:0], ev.Channel, kind, textOf(&ev), status)
	} else {
		b = appendEvent(b, &ev)
	}
	if len(b) > 0 {
		out.Send(b)
	}
	if cap(b) <= bufferKept {
		*pooled = b
		p.buffers.Put(pooled)
	}
}

func appendEvent(b []byte, ev *dialect.Event) []byte {
	switch ev.Kind {
	case dialect.Established:
		b = append(b, `{"event":"pusher:connection_established","data":"{\"socket_id\":\"`...)
		b = append(b, ev.SocketID...)
		b = append(b, `\",\"activity_timeout\":`...)
		b = strconv.AppendInt(b, int64(ev.ActivitySeconds), 10)
		return append(b, `}"}`...)
	case dialect.Subscribed:
		return appendSubscribed(b, ev)
	case dialect.Error:
		return appendError(b, wordsFor(ev.Reason).error, textOf(ev))
	case dialect.PingEvent:
		return append(b, `{"event":"pusher:ping","data":"{}"}`...)
	case dialect.PongEvent:
		return append(b, `{"event":"pusher:pong","data":"{}"}`...)
	case dialect.SignedIn:
		b = append(b, `{"event":"pusher:signin_success","data":`...)
		inner := jsonx.AppendString([]byte(`{"user_data":`), ev.UserData)
		b = jsonx.AppendStringBytes(b, append(inner, '}'))
		return append(b, '}')
	case dialect.CacheMiss:
		b = appendHead(b, "pusher:cache_miss", ev.Channel)
		return append(b, '}')
	case dialect.Watchlist:
		return appendWatchlist(b, ev)
	}
	return b
}

// textOf gives the event's message, or the words for its reason.
func textOf(ev *dialect.Event) string {
	if ev.Message != "" {
		return ev.Message
	}
	return wordsFor(ev.Reason).text
}

// appendHead appends the event and channel of a message, without its end.
func appendHead(b []byte, event, channel string) []byte {
	b = append(b, `{"event":`...)
	b = jsonx.AppendString(b, event)
	b = append(b, `,"channel":`...)
	return jsonx.AppendString(b, channel)
}

func appendError(b []byte, code int, message string) []byte {
	b = append(b, `{"event":"pusher:error","data":{"code":`...)
	if code == 0 {
		b = append(b, "null"...)
	} else {
		b = strconv.AppendInt(b, int64(code), 10)
	}
	b = append(b, `,"message":`...)
	b = jsonx.AppendString(b, message)
	return append(b, "}}"...)
}

func appendSubscriptionError(b []byte, channel, kind, message string, status int) []byte {
	inner := append([]byte(`{"type":"`), kind...)
	inner = append(inner, `","error":`...)
	inner = jsonx.AppendString(inner, message)
	inner = append(inner, `,"status":`...)
	inner = strconv.AppendInt(inner, int64(status), 10)
	b = appendHead(b, "pusher:subscription_error", channel)
	b = append(b, `,"data":`...)
	b = jsonx.AppendStringBytes(b, append(inner, '}'))
	return append(b, '}')
}

func appendSubscribed(b []byte, ev *dialect.Event) []byte {
	b = appendHead(b, "pusher_internal:subscription_succeeded", ev.Channel)
	if !ev.Presence && ev.Resume == nil {
		return append(b, `,"data":"{}"}`...)
	}
	inner := make([]byte, 0, rosterSize(ev.Members))
	if ev.Presence {
		inner = appendRoster(inner, ev.Members)
	} else {
		inner = append(inner, "{}"...)
	}
	if ev.Resume != nil {
		inner = appendResume(inner, ev.Presence, ev.Resume)
	}
	b = append(b, `,"data":`...)
	b = jsonx.AppendStringBytes(b, inner)
	return append(b, '}')
}

// rosterSize is about what appendRoster appends: rosters can be a hundred
// kilobytes, and would be copied several times while they grow.
func rosterSize(members []presence.Member) int {
	n := 64
	for i := range members {
		n += 16 + len(members[i].ID) + len(members[i].RawID) + len(members[i].Info)
	}
	return n
}

// appendRoster appends {"presence":{"count":n,"ids":[...],"hash":{id:info}}}:
// ids keep the JSON type that the application gave them, keys are strings.
func appendRoster(b []byte, members []presence.Member) []byte {
	b = append(b, `{"presence":{"count":`...)
	b = strconv.AppendInt(b, int64(len(members)), 10)
	b = append(b, `,"ids":[`...)
	for i := range members {
		b = append(appendComma(b, i), members[i].RawID...)
	}
	b = append(b, `],"hash":{`...)
	for i := range members {
		b = jsonx.AppendString(appendComma(b, i), members[i].ID)
		b = append(b, ':')
		if members[i].Info == "" {
			b = append(b, "null"...)
		}
		b = append(b, members[i].Info...)
	}
	return append(b, "}}}"...)
}

func appendComma(b []byte, i int) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	return b
}

// appendWatchlist appends the state of all watched users: an event for those
// that are online and one for those that are not.
func appendWatchlist(b []byte, ev *dialect.Event) []byte {
	inner := []byte(`{"events":[`)
	n := 0
	for _, state := range [...]struct {
		name string
		ids  []string
	}{{"online", ev.Online}, {"offline", ev.Offline}} {
		if len(state.ids) == 0 {
			continue
		}
		inner = appendComma(inner, n)
		n++
		inner = append(inner, `{"name":"`...)
		inner = append(inner, state.name...)
		inner = append(inner, `","user_ids":[`...)
		for i, id := range state.ids {
			inner = jsonx.AppendString(appendComma(inner, i), id)
		}
		inner = append(inner, "]}"...)
	}
	if n == 0 {
		return b
	}
	b = append(b, `{"event":"pusher_internal:watchlist_events","data":`...)
	b = jsonx.AppendStringBytes(b, append(inner, "]}"...))
	return append(b, '}')
}
