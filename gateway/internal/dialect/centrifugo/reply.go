package centrifugo

import (
	"slices"

	"github.com/carillon-rt/carillon/kit/jsonx"
)

// AppendReply appends a reply as one message. Clients that only listen get none:
// see Connect.
func (d *Dialect) AppendReply(dst []byte, reply *Reply) []byte {
	w, start := d.start(dst)
	w.uint(1, "id", uint64(reply.ID))
	switch {
	case reply.Error != nil:
		m := w.begin(2, "error")
		w.uint(1, "code", uint64(reply.Error.Code))
		w.string(2, "message", reply.Error.Message)
		w.bool(3, "temporary", reply.Error.Temporary)
		w.end(m)
	case reply.Result != nil:
		m := w.begin(reply.Result.field())
		reply.Result.write(&w)
		w.end(m)
	}
	return d.finish(&w, start)
}

// AppendPush appends a push on a channel, "" for those that have none.
func (d *Dialect) AppendPush(dst []byte, channel string, push Push) []byte {
	w, marks := d.startPush(dst, channel)
	m := w.begin(push.field())
	push.write(&w)
	w.end(m)
	return d.finishPush(&w, marks)
}

// startPush begins a message that is a push, finishPush ends it: a reply with
// nothing else, unless the client only listens.
func (d *Dialect) startPush(dst []byte, channel string) (w writer, marks [2]int) {
	w, marks[0] = d.start(dst)
	if !d.unidirectional {
		marks[1] = w.begin(4, "push")
	}
	w.string(2, "channel", channel)
	return w, marks
}

func (d *Dialect) finishPush(w *writer, marks [2]int) []byte {
	if !d.unidirectional {
		w.end(marks[1])
	}
	return d.finish(w, marks[0])
}

// AppendPing appends the server's ping: an empty reply.
func (d *Dialect) AppendPing(dst []byte) []byte {
	if d.encoding == Protobuf {
		return append(dst, 0)
	}
	return append(dst, '{', '}')
}

// start begins a message, finish ends it.
func (d *Dialect) start(dst []byte) (w writer, start int) {
	w = writer{buf: dst, json: d.encoding == JSON}
	if w.json {
		w.buf = append(w.buf, '{')
		return w, 0
	}
	return w, w.open()
}

func (d *Dialect) finish(w *writer, start int) []byte {
	w.end(start)
	return w.buf
}

func (*ConnectResult) field() (int, string)       { return 5, "connect" }
func (*SubscribeResult) field() (int, string)     { return 6, "subscribe" }
func (*UnsubscribeResult) field() (int, string)   { return 7, "unsubscribe" }
func (*PublishResult) field() (int, string)       { return 8, "publish" }
func (*PresenceResult) field() (int, string)      { return 9, "presence" }
func (*PresenceStatsResult) field() (int, string) { return 10, "presence_stats" }
func (*HistoryResult) field() (int, string)       { return 11, "history" }
func (*RPCResult) field() (int, string)           { return 13, "rpc" }
func (*RefreshResult) field() (int, string)       { return 14, "refresh" }
func (*SubRefreshResult) field() (int, string)    { return 15, "sub_refresh" }

func (m *ConnectResult) write(w *writer) {
	w.string(1, "client", m.Client)
	w.string(2, "version", m.Version)
	w.bool(3, "expires", m.Expires)
	w.uint(4, "ttl", uint64(m.TTL))
	w.raw(5, "data", m.Data)
	writeSubs(w, 6, m.Subs)
	w.uint(7, "ping", uint64(m.Ping))
	w.bool(8, "pong", m.Pong)
	w.string(9, "session", m.Session)
	w.string(10, "node", m.Node)
}

func writeSubs(w *writer, number int, subs map[string]*SubscribeResult) {
	if len(subs) == 0 {
		return
	}
	w.object("subs")
	for _, channel := range sortedKeys(subs) {
		e := w.entry(number, channel)
		subs[channel].write(w)
		w.endEntry(e)
	}
	w.endObject()
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func (m *SubscribeResult) write(w *writer) {
	w.bool(1, "expires", m.Expires)
	w.uint(2, "ttl", uint64(m.TTL))
	w.bool(3, "recoverable", m.Recoverable)
	w.string(6, "epoch", m.Epoch)
	if len(m.Publications) > 0 {
		writePublications(w, 7, m.Publications)
	}
	w.bool(8, "recovered", m.Recovered)
	w.uint(9, "offset", m.Offset)
	w.bool(10, "positioned", m.Positioned)
	w.raw(11, "data", m.Data)
	w.bool(12, "was_recovering", m.WasRecovering)
	w.bool(13, "delta", m.HasDelta)
}

func writePublications(w *writer, number int, publications []Publication) {
	w.list("publications")
	for i := range publications {
		m := w.item(number)
		publications[i].write(w)
		w.end(m)
	}
	w.endList()
}

func (*UnsubscribeResult) write(*writer) {}
func (*PublishResult) write(*writer)     {}

func (m *PresenceResult) write(w *writer) {
	w.object("presence")
	for i := range m.Clients {
		e := w.entry(1, m.Clients[i].ID)
		writeClientInfo(w, m.Clients[i].Info)
		w.endEntry(e)
	}
	w.endObject()
}

func (m *PresenceStatsResult) write(w *writer) {
	w.alwaysUint(1, "num_clients", uint64(m.Clients))
	w.alwaysUint(2, "num_users", uint64(m.Users))
}

func (m *HistoryResult) write(w *writer) {
	writePublications(w, 1, m.Publications)
	w.alwaysString(2, "epoch", m.Epoch)
	w.alwaysUint(3, "offset", m.Offset)
}

func (m *RPCResult) write(w *writer) { w.raw(1, "data", m.Data) }

func (m *RefreshResult) write(w *writer) {
	w.string(1, "client", m.Client)
	w.string(2, "version", m.Version)
	w.bool(3, "expires", m.Expires)
	w.uint(4, "ttl", uint64(m.TTL))
}

func (m *SubRefreshResult) write(w *writer) {
	w.bool(1, "expires", m.Expires)
	w.uint(2, "ttl", uint64(m.TTL))
}

func (*Join) field() (int, string)        { return 5, "join" }
func (*Leave) field() (int, string)       { return 6, "leave" }
func (*Unsubscribe) field() (int, string) { return 7, "unsubscribe" }
func (*Subscribe) field() (int, string)   { return 9, "subscribe" }
func (*Disconnect) field() (int, string)  { return 11, "disconnect" }
func (*Refresh) field() (int, string)     { return 12, "refresh" }

func (m *Join) write(w *writer)  { writeInfo(w, 1, m.Info) }
func (m *Leave) write(w *writer) { writeInfo(w, 1, m.Info) }

func (m *Unsubscribe) write(w *writer) {
	w.uint(2, "code", uint64(m.Code))
	w.string(3, "reason", m.Reason)
}

func (m *Subscribe) write(w *writer) {
	w.bool(1, "recoverable", m.Recoverable)
	w.string(4, "epoch", m.Epoch)
	w.uint(5, "offset", m.Offset)
	w.bool(6, "positioned", m.Positioned)
	w.raw(7, "data", m.Data)
}

func (m *Disconnect) write(w *writer) {
	w.uint(1, "code", uint64(m.Code))
	w.string(2, "reason", m.Reason)
	w.bool(3, "reconnect", m.Reconnect)
}

func (m *Refresh) write(w *writer) {
	w.bool(1, "expires", m.Expires)
	w.uint(2, "ttl", uint64(m.TTL))
}

// AppendClientInfo appends a ClientInfo in JSON: what presence.Member.Info and
// message.Publication.Info hold of a connection.
func AppendClientInfo(dst []byte, c *ClientInfo) []byte {
	w := writer{buf: append(dst, '{'), json: true}
	c.write(&w)
	return append(w.buf, '}')
}

func (c *ClientInfo) write(w *writer) {
	w.alwaysString(1, "user", c.User)
	w.alwaysString(2, "client", c.Client)
	w.raw(3, "conn_info", []byte(c.ConnInfo))
	w.raw(4, "chan_info", []byte(c.ChanInfo))
}

var infoNames = []string{1: "user", 2: "client", 3: "conn_info", 4: "chan_info"}

// ParseClientInfo reads what AppendClientInfo wrote. What it can't read it
// leaves out.
func ParseClientInfo(document []byte) ClientInfo {
	var c ClientInfo
	var err error
	if !jsonx.Valid(document) {
		return c
	}
	r := reader{json: true, err: &err}
	r.enter(document)
	for r.next(infoNames) {
		switch r.number {
		case 1:
			c.User = r.string()
		case 2:
			c.Client = r.string()
		case 3:
			c.ConnInfo = string(r.raw())
		case 4:
			c.ChanInfo = string(r.raw())
		}
	}
	return c
}

// writeInfo writes a ClientInfo in JSON into a field; nothing if there is none.
func writeInfo(w *writer, number int, info []byte) {
	if len(info) == 0 {
		return
	}
	m := w.begin(number, "info")
	writeClientInfo(w, info)
	w.end(m)
}

// writeClientInfo writes the fields of a ClientInfo in JSON.
func writeClientInfo(w *writer, info []byte) {
	c := ParseClientInfo(info)
	c.write(w)
}

// AppendFrame joins messages to what one frame holds: in JSON a newline stands
// between them, in protobuf each has its length.
func (d *Dialect) AppendFrame(dst, message []byte) []byte {
	if d.encoding == JSON && len(dst) > 0 {
		dst = append(dst, '\n')
	}
	return append(dst, message...)
}
