package edge

import (
	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/framing"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
	"github.com/carillon-rt/carillon/gateway/internal/loop"
)

// Protocol is a client protocol with the sessions that speak it: see Pusher
// and Centrifugo.
type Protocol struct {
	dialect.Protocol
	http  dialect.HTTP // nil for WebSockets
	birth func(b *birth) *client
}

// birth is what a client is born with.
type birth struct {
	h        *handler
	conn     *loop.Conn
	protocol uint8
	hello    dialect.Hello
	head     *httphead.Head // valid until the client is born
}

// client is what all kinds of clients begin with.
func (b *birth) client(sess life) client {
	return client{h: b.h, conn: b.conn, protocol: b.protocol, sess: sess}
}

// framing is how the protocol's messages are written.
func (p *Protocol) framing() framing.Framing {
	switch {
	case p.http != nil:
		return p.http.Transport().Framing
	case p.Binary():
		return framing.WebSocketBinary
	}
	return framing.WebSocket
}

// alike says whether two protocols have the same views in the same framing.
func (p *Protocol) alike(other Protocol) bool {
	a, ok1 := p.Protocol.(dialect.Alike)
	b, ok2 := other.Protocol.(dialect.Alike)
	return ok1 && ok2 && a.ViewsFrom() == b.ViewsFrom() && p.framing() == other.framing()
}
