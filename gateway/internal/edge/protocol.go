package edge

import (
	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
	"github.com/carillon-rt/carillon/gateway/internal/loop"
)

// Protocol is a client protocol with the sessions that speak it: see Pusher
// and Centrifugo.
type Protocol struct {
	dialect.Protocol
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
