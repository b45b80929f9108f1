package edge

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"net"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/framing"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/proto/exchange"
)

// bodyMax is the largest body of an exchange: that of a WebSocket message.
const bodyMax = 64 << 10

// visit is one HTTP request of a client, from its head to its answer. It
// belongs to the loop of its connection.
type visit struct {
	h        *handler
	conn     *loop.Conn
	protocol uint8
	dialect.Request
	head  *httphead.Head
	cors  string
	id    uint64
	first [][]byte // messages that a new session hears first
	leave func()   // called when the client is gone before the answer
	over  bool     // answered, or nobody waits for the answer
}

// serve decides whether a request is one of an exchange.
func (h *handler) serve(c *loop.Conn, head *loop.Head) (loop.Verdict, bool) {
	preflight := head.Method == "OPTIONS" && head.Header("Access-Control-Request-Method") != ""
	asked := *head
	if preflight {
		asked.Method = head.Header("Access-Control-Request-Method")
	}
	for i := range h.edge.cfg.Protocols {
		p := h.edge.cfg.Protocols[i].http
		if p == nil {
			continue
		}
		if _, ok := p.Request(&asked); !ok {
			continue
		}
		v := &visit{h: h, conn: c, protocol: uint8(i), head: head.Clone(), id: rand.Uint64(), cors: cors(head)}
		if preflight {
			v.Request = dialect.Request{Status: 204, Header: preflightHeader(head)}
		} else {
			v.Request, _ = p.Request(v.head)
		}
		c.Data = v
		return loop.Verdict{Action: loop.Serve, BodyMax: h.edge.bodyMax()}, true
	}
	return loop.Verdict{}, false
}

// Owns says whether a request is a client's, and not one that loops hand over.
// target is as in the request line.
func (e *Edge) Owns(method, target string) bool {
	head := httphead.Head{Method: method}
	head.Path, head.RawQuery, _ = strings.Cut(target, "?")
	for i := range e.cfg.Protocols {
		p := &e.cfg.Protocols[i]
		if _, ok := p.Hello(&head); ok {
			return true
		}
		if p.http != nil {
			if _, ok := p.http.Request(&head); ok {
				return true
			}
		}
	}
	return false
}

// TakeBack makes a connection that was handed over one of the loops' again:
// its next request, of which read is what was read so far, is a client's.
func (e *Edge) TakeBack(conn net.Conn, read []byte) {
	h := e.handlers[rand.IntN(len(e.handlers))]
	if !h.loop.TakeBack(conn, read) {
		e.cfg.Log.Debug("a connection was not taken back", "remote", conn.RemoteAddr())
	}
}

func (e *Edge) bodyMax() int {
	if n := e.cfg.Loop.MessageBytesMax; n > 0 {
		return n
	}
	return bodyMax
}

// cors lets pages of all origins read the answer: whether an origin may have a
// session is the app's to say, when the session begins.
func cors(head *loop.Head) string {
	origin := head.Header("Origin")
	if origin == "" || origin == "null" {
		return "Access-Control-Allow-Origin: *\r\n"
	}
	return "Access-Control-Allow-Origin: " + origin + "\r\nAccess-Control-Allow-Credentials: true\r\nVary: Origin\r\n"
}

func preflightHeader(head *loop.Head) string {
	header := "Access-Control-Allow-Methods: GET, OPTIONS, POST\r\nAccess-Control-Max-Age: 300\r\n"
	if want := head.Header("Access-Control-Request-Headers"); want != "" {
		header += "Access-Control-Allow-Headers: " + want + "\r\n"
	}
	return header
}

// Body implements loop.Exchanger.
func (h *handler) Body(c *loop.Conn, body []byte) {
	v := c.Data.(*visit)
	if v.Kind == dialect.Fixed {
		v.answer(v.Status, v.Type, v.Header, []byte(v.Request.Body))
		return
	}
	body = bytes.Clone(body)
	post, err := v.http().Post(&v.Request, body)
	switch {
	case err != nil:
		v.refuse(400, err.Error())
	case v.Kind == dialect.Send:
		h.stats.posts.Add(1)
		req := &exchange.Request{Op: exchange.Send, Name: v.Session, ID: post.ID, Body: body}
		h.edge.ask(post.Node, req, func(rep exchange.Reply) { h.run(func() { v.came(rep) }) })
	default:
		v.first = post.Messages
		v.receive()
	}
}

// Abandoned implements loop.Exchanger.
func (h *handler) Abandoned(c *loop.Conn) {
	if v, ok := c.Data.(*visit); ok && !v.over {
		v.over = true
		if v.leave != nil {
			v.leave()
		}
	}
}

// Parked implements loop.Exchanger.
func (h *handler) Parked(c *loop.Conn) {
	if cl, ok := c.Data.(*client); ok {
		cl.carrier().parked()
	}
}

// Ready implements loop.Exchanger.
func (h *handler) Ready(c *loop.Conn) {
	if cl, ok := c.Data.(*client); ok {
		cl.carrier().deliver()
	}
}

func (v *visit) http() dialect.HTTP { return v.h.edge.cfg.Protocols[v.protocol].http }

// header is what every answer has: nobody between may keep it, or keep it back.
func (v *visit) header(more string) string {
	var b strings.Builder
	b.WriteString("Cache-Control: no-store, no-transform\r\nX-Accel-Buffering: no\r\nX-Content-Type-Options: nosniff\r\n")
	b.WriteString(v.cors)
	b.WriteString(more)
	return b.String()
}

func (v *visit) answer(status int, contentType, header string, body []byte) {
	if v.over {
		return
	}
	v.over = true
	v.conn.Respond(loop.Response{
		Status: status, Type: contentType, Header: v.header(header), Body: body, Close: v.h.edge.draining.Load(),
	})
}

// refuse answers with an error. 429 and 503 say when to try again.
func (v *visit) refuse(status int, text string) {
	header := ""
	if status == 429 || status == 503 {
		header = "Retry-After: 5\r\n"
	}
	v.answer(status, "text/plain; charset=utf-8", header, []byte(text+"\n"))
}

// came answers a Send or a Poll with what the session's owner says.
func (v *visit) came(rep exchange.Reply) {
	t := v.http().Transport()
	switch {
	case rep.Status == 200:
		v.answer(200, t.ContentType, "", rep.Body)
	case rep.Status == 204 && v.Kind == dialect.Poll: // nothing came, but the exchange lives
		v.answer(200, t.ContentType, "", []byte(t.Beat))
	case rep.Status == 204:
		v.answer(204, "", "", nil)
	case rep.Status == 404:
		v.refuse(404, "no such session: it has ended, or never began")
	case rep.Status == 409:
		v.refuse(409, "another exchange receives what the session says")
	case rep.Status == 400:
		v.refuse(400, strings.TrimSuffix(string(rep.Body), "\n"))
	default:
		v.refuse(503, "the session can't be reached now, try again in a few seconds")
	}
}

// receive begins a session, or goes on with the one that there is.
func (v *visit) receive() {
	e := v.h.edge
	if v.Session == "" {
		v.begin()
		return
	}
	if _, here := e.named.find(v.Session); here {
		v.goOn()
		return
	}
	if !e.named.reserve(v.Session) {
		v.refuse(503, "the session is about to begin, try again in a few seconds")
		return
	}
	if e.cfg.Sessions == nil {
		v.begin()
		return
	}
	e.cfg.Sessions.Claim(v.Session, func(err error) { v.h.run(func() { v.claimed(err) }) })
}

// claimed goes on when it is known whether another node has the session.
func (v *visit) claimed(err error) {
	e := v.h.edge
	switch {
	case err == nil && !v.over:
		v.begin()
	case err == nil: // the client is gone
		e.forget(v.Session)
	case errors.Is(err, exchange.ErrElsewhere):
		e.named.drop(v.Session)
		v.goOn()
	default:
		e.forget(v.Session)
		e.cfg.Log.Warn("a session can't begin: other gateways can't be asked for it", "err", err)
		v.refuse(503, "the session can't begin now, try again in a few seconds")
	}
}

// begin begins a session.
func (v *visit) begin() {
	h := v.h
	if no, ok := h.edge.door.enter(v.conn.RemoteIP(), time.Since(h.edge.started), h.loop.Full()); !ok {
		v.end()
		v.refuse(no.Status, no.Body)
		return
	}
	t, conn := v.http().Transport(), v.conn
	direct := v.Kind == dialect.Stream && t.StreamBytesMax == 0
	if direct {
		v.openStream(t.Framing)
		conn.Send([]byte(t.Prelude + t.Opening))
		if t.Linger > 0 {
			conn.Parks()
		}
	} else if conn = h.loop.NewParked(v.conn, t.Framing); conn == nil {
		h.edge.door.leave(v.conn.RemoteIP())
		v.end()
		v.refuse(503, "too many connections")
		return
	}
	cl := h.edge.cfg.Protocols[v.protocol].birth(&birth{h: h, conn: conn, protocol: v.protocol, hello: v.Hello, head: v.head})
	conn.Data = cl
	k := h.carry(cl, v.Session)
	k.current, k.polls = v.id, v.Kind == dialect.Poll
	switch {
	case direct && t.Beat != "":
		k.beat = h.loop.Now() + int64(t.BeatEvery)
	case direct:
	case v.Kind == dialect.Stream:
		conn.Send([]byte(t.Opening))
		v.goOn()
	default:
		v.firstPoll(k)
	}
	h.open(cl)
	for _, m := range v.first {
		cl.hear(m)
	}
}

// openStream begins the response without an end.
func (v *visit) openStream(f framing.Framing) {
	v.over = true
	v.conn.Stream(v.http().Transport().ContentType, v.header(""), f)
}

// firstPoll answers the poll that has begun a session.
func (v *visit) firstPoll(k *carrier) {
	if t := k.transport; t.Opening != "" {
		k.miss()
		v.answer(200, t.ContentType, "", []byte(t.Opening))
		return
	}
	k.waiting, k.due = func(rep exchange.Reply) { v.came(rep) }, k.now()+int64(k.transport.BeatEvery)
	v.leave = func() { k.left(v.id) }
}

// end gives up the name that was reserved.
func (v *visit) end() {
	if v.Session != "" {
		v.h.edge.forget(v.Session)
	}
}

// forget gives up a name of a session, here and on other nodes.
func (e *Edge) forget(name string) {
	e.named.drop(name)
	if e.cfg.Sessions != nil {
		e.cfg.Sessions.Release(name)
	}
}

// locate finds the session of a request among those of this node.
func (e *Edge) locate(req *exchange.Request) (at loop.Handle, ok bool) {
	if req.Name != "" {
		return e.named.find(req.Name)
	}
	at, _, ok = parseSessionID(req.ID)
	return at, ok && int(at.Loop) < len(e.handlers)
}

// Exchange does what another gateway asks about a session of this node. It may
// be called on any goroutine and does not block; answer is called once, on any
// goroutine.
func (e *Edge) Exchange(req *exchange.Request, answer func(exchange.Reply)) {
	at, ok := e.locate(req)
	switch {
	case !ok:
		answer(exchange.Reply{Status: 404})
	case req.Op == exchange.Find:
		answer(exchange.Reply{Status: 200})
	default:
		h := e.handlers[at.Loop]
		if !h.loop.Post(mail{run: func() { h.asked(at, req, answer) }}) {
			answer(exchange.Reply{Status: 503})
		}
	}
}

// ask is Exchange for a session that may be on any node: the one of that name,
// for sessions that their gateway named.
func (e *Edge) ask(node string, req *exchange.Request, answer func(exchange.Reply)) {
	_, here := e.locate(req)
	switch {
	case req.Name == "" && (node == "" || node == e.cfg.Node), req.Name != "" && here, e.cfg.Sessions == nil:
		e.Exchange(req, answer)
	default:
		e.cfg.Sessions.Ask(node, req, answer)
	}
}
