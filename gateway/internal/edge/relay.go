package edge

import (
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/framing"
	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/gateway/internal/ws"
	"github.com/carillon-rt/carillon/proto/exchange"
)

// relayPace is how often a relayed stream is looked at that has not been read.
const relayPace = int64(100 * time.Millisecond)

// relay is an exchange that receives what a session says that lives
// elsewhere: on another loop or node, or here without a stream of its own. It
// polls the session; one answer at a time is on its way, so that what the
// client does not read stays with the session, under the session's limits. It
// belongs to the loop of its connection.
type relay struct {
	v      *visit
	stream bool
	sent   int // bytes of the stream
	began  bool
	over   bool
}

// goOn answers a request with what a session says that is there already.
func (v *visit) goOn() {
	if v.over {
		return
	}
	v.h.stats.relays.Add(1)
	y := &relay{v: v, stream: v.Kind == dialect.Stream}
	if y.stream {
		v.openStream(framing.Verbatim)
		v.conn.Data = y
		v.conn.Send([]byte(v.http().Transport().Prelude))
	} else {
		v.leave = y.leave
	}
	y.poll()
}

func (y *relay) poll() {
	req := &exchange.Request{
		Op: exchange.Poll, Name: y.v.Session, Exchange: y.v.id, Begin: !y.began, Wait: y.v.http().Transport().BeatEvery,
	}
	y.began = true
	y.v.h.edge.ask("", req, func(rep exchange.Reply) { y.v.h.run(func() { y.came(rep) }) })
}

func (y *relay) came(rep exchange.Reply) {
	switch {
	case !y.stream:
		y.v.came(rep)
	case y.over:
	case rep.Status == 200:
		y.v.conn.Send(rep.Body)
		y.sent += len(rep.Body)
		if most := y.v.http().Transport().StreamBytesMax; most > 0 && y.sent >= most {
			y.v.conn.Close(ws.CloseNormal, "")
			return
		}
		y.next()
	default: // it has said goodbye before, or somebody else receives
		y.v.conn.Close(ws.CloseNormal, "")
	}
}

// next polls again once the client has read.
func (y *relay) next() {
	if conn := y.v.conn; conn.Blocked() {
		conn.SetTimer(y.v.h.loop.Now() + relayPace)
		return
	}
	y.poll()
}

// leave tells the session that the client is gone.
func (y *relay) leave() {
	y.over = true
	req := &exchange.Request{Op: exchange.Leave, Name: y.v.Session, Exchange: y.v.id}
	y.v.h.edge.ask("", req, func(exchange.Reply) {})
}

// relayOf gives the relay of a connection that is no client's.
func relayOf(c *loop.Conn) *relay {
	y, _ := c.Data.(*relay)
	return y
}
