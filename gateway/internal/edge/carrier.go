package edge

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"strconv"
	"strings"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/proto/exchange"
)

const (
	// takeBytes is about what one answer to a poll brings.
	takeBytes = 64 << 10
	// goodbyeTime is how long the last words for a client that polls are kept.
	goodbyeTime = int64(5e9)
)

// carrier is how a client is reached that comes by HTTP exchanges. While the
// stream that it began with is there, that is the client's connection. After
// that, and from the beginning if it polls, its connection is parked, and
// exchanges fetch what is queued: they poll, on whatever loop or node they
// have arrived. It belongs to the loop of the client's connection.
type carrier struct {
	c         *client
	transport *dialect.Transport
	name      string // what the client calls its session, or ""
	secret    uint64 // of the name that the session has from us
	polls     bool   // it began with a poll

	current uint64               // exchange that may poll
	waiting func(exchange.Reply) // of a poll that waits, or nil
	due     int64                // when that is answered at the latest
	gone    int64                // when the client is given up unless it comes back, 0 while it is there
	beat    int64                // when the stream needs a beat, 0 without a stream
	dying   bool                 // the session is closed: only its last words are left
}

// carry makes a carrier of a client that has just been born.
func (h *handler) carry(c *client, name string) *carrier {
	k := &carrier{c: c, transport: c.proto().http.Transport(), name: name, secret: secret()}
	c.carried = true
	h.carriers[c.conn.Handle().Slot] = k
	if name != "" {
		h.edge.named.put(name, c.conn.Handle())
	}
	return k
}

// secret is what nobody can guess who was not told.
func secret() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.NativeEndian.Uint64(b[:])
}

// carrier gives a carried client's.
func (c *client) carrier() *carrier { return c.h.carriers[c.conn.Handle().Slot] }

// SessionID is how exchanges find the client's session: the node and the
// session's name there. ok is false for clients with a WebSocket, which need
// none.
func (c *client) SessionID() (node, id string, ok bool) {
	if !c.carried {
		return "", "", false
	}
	id = strconv.FormatUint(packed(c.conn.Handle()), 36) + "-" + strconv.FormatUint(c.carrier().secret, 36)
	return c.h.edge.cfg.Node, id, true
}

// parseSessionID gives handle and secret of a session's name.
func parseSessionID(id string) (at loop.Handle, secret uint64, ok bool) {
	first, second, found := strings.Cut(id, "-")
	handle, err1 := strconv.ParseUint(first, 36, 64)
	secret, err2 := strconv.ParseUint(second, 36, 64)
	return unpacked(handle), secret, found && err1 == nil && err2 == nil
}

// is says whether a request means this session.
func (k *carrier) is(req *exchange.Request) bool {
	if req.Name != "" {
		return req.Name == k.name
	}
	_, secret, ok := parseSessionID(req.ID)
	return ok && subtle.ConstantTimeEq(int32(secret>>32), int32(k.secret>>32))&subtle.ConstantTimeEq(int32(secret), int32(k.secret)) == 1
}

// asked does what an exchange wants of a session of this loop.
func (h *handler) asked(at loop.Handle, req *exchange.Request, answer func(exchange.Reply)) {
	conn, k := h.loop.Conn(at), h.carriers[at.Slot]
	if conn == nil || k == nil || !k.is(req) {
		answer(exchange.Reply{Status: 404})
		return
	}
	conn.Heard()
	switch req.Op {
	case exchange.Send:
		answer(k.sent(req.Body))
	case exchange.Poll:
		k.polled(req, answer)
	case exchange.Leave:
		k.left(req.Exchange)
		answer(exchange.Reply{Status: 204})
	default:
		answer(exchange.Reply{Status: 400})
	}
}

// sent takes messages of the client.
func (k *carrier) sent(body []byte) exchange.Reply {
	post, err := k.c.proto().http.Post(&dialect.Request{Kind: dialect.Send}, body)
	if err != nil {
		return exchange.Reply{Status: 400, Body: []byte(err.Error() + "\n")}
	}
	if k.c.closing {
		return exchange.Reply{Status: 404}
	}
	for _, m := range post.Messages {
		k.c.hear(m)
	}
	return exchange.Reply{Status: 204}
}

// polled answers a poll with what is queued, or keeps it. The newest exchange
// takes the place of those before it, and of the stream: a client begins one
// when it has given up the others.
func (k *carrier) polled(req *exchange.Request, answer func(exchange.Reply)) {
	if k.transport.Linger == 0 {
		answer(exchange.Reply{Status: 404})
		return
	}
	if !req.Begin && req.Exchange != k.current {
		answer(exchange.Reply{Status: 409})
		return
	}
	k.reply(exchange.Reply{Status: 409})
	k.c.conn.Unplug()
	k.current, k.beat = req.Exchange, 0
	k.waiting, k.due = answer, k.now()+int64(req.Wait)
	if !k.dying {
		k.gone = 0
	}
	switch {
	case k.deliver():
	case k.dying: // without a word
		k.reply(exchange.Reply{Status: 404})
		k.c.conn.Abort("told")
	default:
		k.arm()
	}
}

// deliver answers the poll that waits, if there is something for it.
func (k *carrier) deliver() bool {
	if k.waiting == nil {
		return false
	}
	body := k.c.conn.Take(takeBytes)
	if body == nil {
		return false
	}
	k.reply(exchange.Reply{Status: 200, Body: body})
	if k.dying && k.c.conn.Pending() == 0 {
		k.c.conn.Abort("told")
		return true
	}
	k.arm()
	return true
}

// reply answers the poll that waits, if one does. Its client comes back soon,
// or is gone.
func (k *carrier) reply(r exchange.Reply) {
	if k.waiting == nil {
		return
	}
	answer := k.waiting
	k.waiting, k.due = nil, 0
	k.miss()
	answer(r)
}

// miss begins the time after which the client is given up.
func (k *carrier) miss() {
	if k.gone == 0 {
		k.gone = k.now() + int64(k.transport.Linger)
	}
}

// left: the client of an exchange that polled is gone. What is queued is kept
// for a while.
func (k *carrier) left(exchange uint64) {
	if exchange != k.current {
		return
	}
	k.waiting, k.due = nil, 0
	k.miss()
	k.arm()
}

// parked: the stream is gone.
func (k *carrier) parked() {
	k.beat = 0
	if k.waiting == nil {
		k.miss()
	}
	k.arm()
}

// die leaves the session's last words for the next poll, or the one that
// waits.
func (k *carrier) die(code int, reason string) {
	c := k.c
	k.dying, k.gone = true, k.now()+goodbyeTime
	c.conn.Send(k.transport.Framing.AppendClose(nil, code, reason))
	c.conn.SetTimer(k.gone)
	c.h.run(c.gone) // not within the session's own call
}

// tick does what is due, and returns when the carrier or, at next, the client
// wants to be looked at again.
func (k *carrier) tick(now, next int64) int64 {
	if k.due != 0 && k.due <= now {
		k.reply(exchange.Reply{Status: 204})
	}
	if k.beat != 0 && k.beat <= now {
		k.beat = now + int64(k.transport.BeatEvery)
		k.c.conn.Send([]byte(k.transport.Beat))
	}
	if k.gone != 0 && k.gone <= now {
		k.c.conn.Abort("the client does not come back")
		return 0
	}
	return k.soonest(next)
}

// soonest is the first of at, if it is not 0, and of what is due here.
func (k *carrier) soonest(at int64) int64 {
	for _, own := range []int64{k.due, k.beat, k.gone} {
		if own != 0 && (at == 0 || own < at) {
			at = own
		}
	}
	return at
}

// arm sets the client's timer after something has changed.
func (k *carrier) arm() {
	switch {
	case k.c.closing: // no earlier than before: the last words are waiting
		k.c.conn.SetTimer(k.gone)
	default:
		k.c.tick(k.now())
	}
}

// ended: the client's connection is no more.
func (k *carrier) ended() {
	h := k.c.h
	delete(h.carriers, k.c.conn.Handle().Slot)
	k.reply(exchange.Reply{Status: 404})
	if k.name != "" {
		h.edge.forget(k.name)
	}
}

func (k *carrier) now() int64 { return k.c.h.loop.Now() }
