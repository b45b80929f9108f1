// Package pusher speaks version 7 of the Pusher Channels protocol, and the
// versions 4 to 6, whose clients understand the same messages. It owns the
// words: frames, codes and names. It knows nothing of what has to be true for
// them to be said; that is the session's.
package pusher

import (
	"strconv"
	"strings"
	"sync"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// Versions of the protocol that are spoken.
const (
	versionMin  = 4
	versionMax  = 7
	versionPing = 5 // the first whose clients answer pings
)

// Pusher is the dialect. It is safe for use by several goroutines.
type Pusher struct {
	// immutable after New
	prefix string

	// safe for concurrent use
	buffers sync.Pool // of *[]byte, for messages to single clients
}

var (
	_ dialect.Dialect = (*Pusher)(nil)
	_ dialect.Namer   = (*Pusher)(nil)
)

// New returns the dialect. pathPrefix is what comes before "/app/KEY" in the
// URL (pusher-js: wsPath), such as "/ws", or "". "/app/KEY" alone is always
// understood too, for proxies that strip the prefix.
func New(pathPrefix string) *Pusher {
	prefix := strings.Trim(pathPrefix, "/")
	if prefix != "" {
		prefix = "/" + prefix
	}
	return &Pusher{prefix: prefix}
}

// Name implements dialect.Dialect.
func (p *Pusher) Name() string { return "pusher" }

// Binary implements dialect.Protocol.
func (p *Pusher) Binary() bool { return false }

// Views of subscriptions: those that keep their place are told positions.
const (
	viewPlain = iota
	viewPlaced
)

// Views implements dialect.Protocol.
func (p *Pusher) Views() []dialect.View {
	plain := func(dst []byte, _ message.Position, pub *message.Publication) []byte {
		return p.AppendPublication(dst, pub)
	}
	return []dialect.View{viewPlain: {Append: plain}, viewPlaced: {Append: p.AppendPositioned}}
}

// PlacedView implements dialect.Dialect.
func (p *Pusher) PlacedView() uint8 { return viewPlaced }

// Hello implements dialect.Protocol for "/app/KEY?protocol=7&..." (Pusher
// protocol, "websocket connection").
func (p *Pusher) Hello(head *httphead.Head) (dialect.Hello, bool) {
	path, rawQuery := head.Path, head.RawQuery
	key, ok := strings.CutPrefix(path, "/app/")
	if !ok && p.prefix != "" {
		key, ok = strings.CutPrefix(strings.TrimPrefix(path, p.prefix), "/app/")
	}
	key = strings.TrimSuffix(key, "/")
	if !ok || strings.Contains(key, "/") {
		return dialect.Hello{}, false
	}
	return hello(unescapePath(key), rawQuery), true
}

// hello is what a client says with the query of its URL.
func hello(key, rawQuery string) dialect.Hello {
	h := dialect.Hello{Key: key}
	text := httphead.Parameter(rawQuery, "protocol")
	version, err := strconv.Atoi(text)
	switch {
	case text == "":
		h.Refuse = dialect.NoProtocol
	case err != nil:
		h.Refuse = dialect.BadVersion
	case version < versionMin || version > versionMax:
		h.Refuse = dialect.UnsupportedProtocol
	}
	h.Protocol = version
	h.Pingless = h.Refuse == dialect.None && version < versionPing
	return h
}

// unescapePath resolves %XX; what is no such escape stays as it is.
func unescapePath(s string) string {
	if strings.IndexByte(s, '%') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				out = append(out, byte(c))
				i += 2
				continue
			}
		}
		out = append(out, s[i])
	}
	return string(out)
}

// ValidChannel implements dialect.Namer.
func (p *Pusher) ValidChannel(name string, bytesMax int) error {
	return channel.ValidatePusher(name, bytesMax)
}
