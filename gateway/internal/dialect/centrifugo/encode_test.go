package centrifugo

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/carillon-rt/carillon/gateway/internal/tagfilter"
)

// appendCommand writes a command as a client does.
func appendCommand(dst []byte, d *Dialect, cmd *Command) []byte {
	w, start := d.start(dst)
	w.uint(1, "id", uint64(cmd.ID))
	begin := func(number int) int { return w.begin(number, commandNames[number]) }
	switch b := cmd.Body.(type) {
	case *ConnectRequest:
		m := begin(4)
		w.string(1, "token", b.Token)
		w.raw(2, "data", b.Data)
		if len(b.Subs) > 0 {
			w.object("subs")
			for _, channel := range sortedKeys(b.Subs) {
				e := w.entry(3, channel)
				sub := b.Subs[channel]
				writeSubscribe(&w, &sub)
				w.endEntry(e)
			}
			w.endObject()
		}
		w.string(4, "name", b.Name)
		w.string(5, "version", b.Version)
		if len(b.Headers) > 0 {
			w.object("headers")
			for _, name := range sortedKeys(b.Headers) {
				w.pair(6, name, b.Headers[name])
			}
			w.endObject()
		}
		w.end(m)
	case *SubscribeRequest:
		m := begin(5)
		writeSubscribe(&w, b)
		w.end(m)
	case *UnsubscribeRequest:
		m := begin(6)
		w.string(1, "channel", b.Channel)
		w.end(m)
	case *PublishRequest:
		m := begin(7)
		w.string(1, "channel", b.Channel)
		w.raw(2, "data", b.Data)
		writeInt(&w, 3, "type", b.Type)
		w.end(m)
	case *PresenceRequest:
		m := begin(8)
		w.string(1, "channel", b.Channel)
		w.end(m)
	case *PresenceStatsRequest:
		m := begin(9)
		w.string(1, "channel", b.Channel)
		w.end(m)
	case *HistoryRequest:
		m := begin(10)
		w.string(1, "channel", b.Channel)
		writeInt(&w, 7, "limit", b.Limit)
		if b.Since != nil {
			s := w.begin(8, "since")
			w.uint(1, "offset", b.Since.Offset)
			w.string(2, "epoch", b.Since.Epoch)
			w.end(s)
		}
		w.bool(9, "reverse", b.Reverse)
		w.end(m)
	case *PingRequest:
		w.end(begin(11))
	case *SendRequest:
		m := begin(12)
		w.raw(1, "data", b.Data)
		w.end(m)
	case *RPCRequest:
		m := begin(13)
		w.raw(1, "data", b.Data)
		w.string(2, "method", b.Method)
		w.end(m)
	case *RefreshRequest:
		m := begin(14)
		w.string(1, "token", b.Token)
		w.end(m)
	case *SubRefreshRequest:
		m := begin(15)
		w.string(1, "channel", b.Channel)
		w.string(2, "token", b.Token)
		writeInt(&w, 3, "type", b.Type)
		w.end(m)
	}
	return d.finish(&w, start)
}

func writeSubscribe(w *writer, b *SubscribeRequest) {
	w.string(1, "channel", b.Channel)
	w.string(2, "token", b.Token)
	w.bool(3, "recover", b.Recover)
	w.string(6, "epoch", b.Epoch)
	w.uint(7, "offset", b.Offset)
	w.raw(8, "data", b.Data)
	w.bool(9, "positioned", b.Positioned)
	w.bool(10, "recoverable", b.Recoverable)
	w.bool(11, "join_leave", b.JoinLeave)
	w.string(12, "delta", b.Delta)
	if b.Filter != nil {
		m := w.begin(13, "tf")
		writeFilter(w, b.Filter)
		w.end(m)
	}
	writeInt(w, 14, "flag", b.Flag)
	writeInt(w, 15, "type", b.Type)
}

func writeFilter(w *writer, f *tagfilter.Node) {
	w.string(1, "op", f.Op)
	w.string(2, "key", f.Key)
	w.string(3, "cmp", f.Cmp)
	w.string(4, "val", f.Val)
	if len(f.Vals) > 0 {
		w.list("vals")
		for _, v := range f.Vals {
			if w.json {
				w.comma()
				w.buf = fmt.Appendf(w.buf, "%s", quote(v))
				continue
			}
			w.tag(5, protowire.BytesType)
			w.buf = protowire.AppendString(w.buf, v)
		}
		w.endList()
	}
	if len(f.Nodes) > 0 {
		w.list("nodes")
		for i := range f.Nodes {
			m := w.item(6)
			writeFilter(w, &f.Nodes[i])
			w.end(m)
		}
		w.endList()
	}
}

func writeInt(w *writer, number int, name string, v int64) {
	switch {
	case v == 0:
	case w.json:
		w.key(name)
		w.buf = fmt.Appendf(w.buf, "%d", v)
	default:
		w.tag(number, protowire.VarintType)
		w.buf = protowire.AppendVarint(w.buf, uint64(v))
	}
}

// show is a protobuf message as people read it: fields by number; bytes as a
// message where they can be one, else as a string.
func show(b []byte) string {
	var out strings.Builder
	for i := 0; len(b) > 0; i++ {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return "malformed"
		}
		b = b[n:]
		if i > 0 {
			out.WriteByte(' ')
		}
		switch kind {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			fmt.Fprintf(&out, "%d:%d", number, v)
			b = b[n:]
		case protowire.BytesType:
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return "malformed"
			}
			if text(v) {
				fmt.Fprintf(&out, "%d:%q", number, v)
			} else {
				fmt.Fprintf(&out, "%d{%s}", number, show(v))
			}
			b = b[n:]
		default:
			return "malformed"
		}
	}
	return out.String()
}

func text(b []byte) bool {
	for _, c := range b {
		if c < ' ' {
			return false
		}
	}
	return utf8.Valid(b) && len(b) > 0
}
