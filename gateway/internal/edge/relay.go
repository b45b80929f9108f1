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
	sent   int   // bytes of the stream
	silent int64 // since when nothing came
	began  bool
	over   bool
}

// goOn answers a request with what a session says that is there already.
func (v *visit) goOn() {
	if v.over {
		return
	}
	v.h.stats.relays.Add(1)
	y := &relay{v: v, stream: v.Kind == dialect.Stream, silent: v.h.loop.Now()}
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
		Op: exchange.Poll, Name: y.v.Session, Exchange: y.v.id, Begin: !y.began, Wait: y.wait(),
	}
	y.began = true
	y.v.h.edge.ask("", req, func(rep exchange.Reply) { y.v.h.run(func() { y.came(rep) }) })
}

// wait is how long the next question may wait: until a beat is due, or for
// Config.RelayWait.
func (y *relay) wait() time.Duration {
	left := y.v.http().Transport().BeatEvery - time.Duration(y.v.h.loop.Now()-y.silent)
	return max(min(left, y.v.h.edge.cfg.RelayWait), time.Millisecond)
}

func (y *relay) came(rep exchange.Reply) {
	beat := time.Duration(y.v.h.loop.Now()-y.silent) >= y.v.http().Transport().BeatEvery
	switch {
	case y.over || y.v.over && !y.stream:
	case rep.Status == 204 && !beat:
		y.poll()
	case !y.stream:
		y.v.came(rep)
	case rep.Status == 204:
		y.say([]byte(y.v.http().Transport().Beat))
	case rep.Status == 200:
		y.say(rep.Body)
	default: // it has said goodbye before, or somebody else receives
		y.v.conn.Close(ws.CloseNormal, "")
	}
}

// say passes on to a stream what came.
func (y *relay) say(body []byte) {
	y.silent = y.v.h.loop.Now()
	y.v.conn.Send(body)
	y.sent += len(body)
	if most := y.v.http().Transport().StreamBytesMax; most > 0 && y.sent >= most {
		y.v.conn.Close(ws.CloseNormal, "")
		return
	}
	y.next()
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
