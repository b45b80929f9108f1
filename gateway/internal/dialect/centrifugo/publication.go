package centrifugo

import (
	"bytes"
	"unicode/utf8"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/fossil"
	"github.com/carillon-rt/carillon/gateway/internal/tagfilter"
	"github.com/carillon-rt/carillon/kit/jsonx"
	"github.com/carillon-rt/carillon/proto/message"
)

// Publication is a publication at a place in its channel's stream; Position is
// 0 if the channel has none.
type Publication struct {
	Position message.Position
	*message.Publication
	// Text: to clients that get differences data is text in JSON, too.
	Text bool
}

// eventTag holds the event name of publications that have one, which are those
// that a Pusher API published.
const eventTag = tagfilter.EventTag

func (p Publication) write(w *writer) {
	if p.Text && w.json {
		w.string(4, "data", string(appendRaw(nil, p.Data)))
	} else {
		w.raw(4, "data", p.Data)
	}
	p.writeRest(w, false)
}

func (p Publication) writeRest(w *writer, difference bool) {
	writeInfo(w, 5, p.Info)
	w.uint(6, "offset", uint64(p.Position))
	if p.Event != "" || len(p.Tags) > 0 {
		p.writeTags(w)
	}
	w.bool(8, "delta", difference)
}

func (p Publication) writeTags(w *writer) {
	w.object("tags")
	if p.Event != "" {
		w.pair(7, eventTag, p.Event)
	}
	for _, t := range p.Tags {
		if t.Key != eventTag || p.Event == "" {
			w.pair(7, t.Key, t.Value)
		}
	}
	w.endObject()
}

func (Publication) field() (int, string) { return 4, "pub" }

// Views: what subscribers of a channel are told.
const (
	// ViewPlain is publications.
	ViewPlain = iota
	// ViewMembers is who comes and goes besides.
	ViewMembers
	// ViewDelta and ViewDeltaMembers are the same with differences.
	ViewDelta
	ViewDeltaMembers
)

// Views implements dialect.Protocol. Clients that only listen get no
// differences.
func (d *Dialect) Views() []dialect.View {
	text := d.encoding == JSON
	view := func(members, delta bool) dialect.View {
		v := dialect.View{Append: func(dst []byte, pos message.Position, pub *message.Publication) []byte {
			return d.appendPublication(dst, Publication{pos, pub, delta && text}, members)
		}}
		if delta {
			v.Difference = d.appendDifference
		}
		return v
	}
	views := []dialect.View{
		ViewPlain: view(false, false), ViewMembers: view(true, false), ViewDelta: view(false, true), ViewDeltaMembers: view(true, true),
	}
	if d.unidirectional {
		return views[:ViewDelta]
	}
	return views
}

// appendPublication tells of a publication, or of a member if those are told
// of. Pushes go to all subscribers of a channel: those of one view get the
// same bytes.
func (d *Dialect) appendPublication(dst []byte, p Publication, members bool) []byte {
	switch p.Kind {
	case message.Event, message.ClientEvent:
	case message.MemberAdded:
		if members {
			return d.AppendPush(dst, p.Channel, &Join{Info: MemberInfo(p.Channel, p.UserID, p.Data)})
		}
		return dst
	case message.MemberRemoved:
		if members {
			return d.AppendPush(dst, p.Channel, &Leave{Info: MemberInfo(p.Channel, p.UserID, p.Data)})
		}
		return dst
	default:
		return dst
	}
	w, marks := d.startPush(dst, p.Channel)
	m := w.begin(p.field())
	p.write(&w)
	w.end(m)
	return d.finishPush(&w, marks)
}

// appendDifference tells how a publication differs from the one before, unless
// telling all of it is shorter. In JSON both are what clients take for data,
// and the difference is text.
func (d *Dialect) appendDifference(dst []byte, pos message.Position, pub *message.Publication, before []byte) []byte {
	now := pub.Data
	if d.encoding == JSON {
		now, before = appendRaw(nil, now), appendRaw(nil, before)
	}
	delta := fossil.Append(nil, before, now)
	if len(delta) >= len(now) || d.encoding == JSON && !utf8.Valid(delta) {
		return dst
	}
	p := Publication{Position: pos, Publication: pub}
	w, marks := d.startPush(dst, pub.Channel)
	m := w.begin(p.field())
	if w.json {
		w.alwaysString(4, "data", string(delta))
	} else {
		w.raw(4, "data", delta)
	}
	p.writeRest(&w, true)
	w.end(m)
	return d.finishPush(&w, marks)
}

// MemberInfo is the ClientInfo of a member of a channel, in JSON. Members of
// channels with the prefix "presence-" are users, with info of the
// application; those of others are connections, whose info it is already. The
// info of a member that leaves may be missing.
func MemberInfo(channel, rawID string, info []byte) []byte {
	id := rawID
	if len(rawID) > 1 && rawID[0] == '"' && jsonx.Valid([]byte(rawID)) {
		id = string(jsonx.Unquote([]byte(rawID)))
	}
	switch {
	case UsersAreMembers(channel):
		return AppendClientInfo(nil, &ClientInfo{User: id, ConnInfo: string(bytes.TrimSpace(info))})
	case len(info) == 0:
		return AppendClientInfo(nil, &ClientInfo{Client: id})
	}
	return info
}
