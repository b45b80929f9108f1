package centrifugo

import (
	"bytes"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/kit/jsonx"
	"github.com/carillon-rt/carillon/proto/message"
)

// Publication is a publication at a place in its channel's stream; Position is
// 0 if the channel has none.
type Publication struct {
	Position message.Position
	*message.Publication
}

// eventTag holds the event name of publications that have one, which are those
// that a Pusher API published.
const eventTag = "event"

func (p Publication) write(w *writer) {
	w.raw(4, "data", p.Data)
	writeInfo(w, 5, p.Info)
	w.uint(6, "offset", uint64(p.Position))
	if p.Event == "" && len(p.Tags) == 0 {
		return
	}
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
)

// Views implements dialect.Protocol.
func (d *Dialect) Views() []dialect.View {
	return []dialect.View{
		ViewPlain:   d.appendPublication,
		ViewMembers: d.appendMembers,
	}
}

// appendPublication is ViewPlain. Pushes go to all subscribers of a channel:
// those of one encoding get the same bytes.
func (d *Dialect) appendPublication(dst []byte, pos message.Position, pub *message.Publication) []byte {
	if pub.Kind != message.Event && pub.Kind != message.ClientEvent {
		return dst
	}
	w, start := d.start(dst)
	outer := w.begin(4, "push")
	w.string(2, "channel", pub.Channel)
	m := w.begin(4, "pub")
	Publication{pos, pub}.write(&w)
	w.end(m)
	w.end(outer)
	return d.finish(&w, start)
}

func (d *Dialect) appendMembers(dst []byte, pos message.Position, pub *message.Publication) []byte {
	switch pub.Kind {
	case message.MemberAdded:
		return d.AppendPush(dst, pub.Channel, &Join{Info: MemberInfo(pub.Channel, pub.UserID, pub.Data)})
	case message.MemberRemoved:
		return d.AppendPush(dst, pub.Channel, &Leave{Info: MemberInfo(pub.Channel, pub.UserID, pub.Data)})
	}
	return d.appendPublication(dst, pos, pub)
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
