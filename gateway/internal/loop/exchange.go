package loop

import (
	"strconv"

	"github.com/carillon-rt/carillon/gateway/internal/framing"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
)

// exchange is what a connection has beyond a WebSocket: a request that is not
// complete or not answered, or a response that goes on.
type exchange struct {
	scanner httphead.Scanner
	bytes   []byte // of a head that is not complete, or of a body so far
	body    httphead.Body
	keep    bool            // the connection, for another request
	framing framing.Framing // of an open connection; nil before
}

// Exchanger is an optional ability of handlers: to answer HTTP requests on
// the loop, those for which the verdict is Serve. The rules are those of
// Handler.
type Exchanger interface {
	// Body is called when the request is complete. The body, nil if there is
	// none, is valid during the call only. The handler answers with
	// Conn.Respond or Conn.Stream, now or later; Conn.Data tells it what the
	// request was.
	Body(c *Conn, body []byte)
	// Abandoned is called instead of an answer: when the connection was lost
	// before Body, or after it and before the answer, or when the answer took
	// longer than Config.AnswerTimeout. The connection is gone as after Closed.
	Abandoned(c *Conn)
	// Parked is called when a connection that parks has lost its socket. It is
	// open as before; what is queued is kept for Conn.Take.
	Parked(c *Conn)
	// Ready is called after a turn in which something was queued for a parked
	// connection, and there is something to Take.
	Ready(c *Conn)
}

// Response is the whole answer to a request.
type Response struct {
	Status int
	// Type is the content type, "" for none.
	Type string
	// Header is further header lines, each with its CR LF.
	Header string
	Body   []byte
	// Close: the connection is not used again, whatever the client says.
	Close bool
}

// Respond answers the request of an Exchanger's connection. The connection
// then waits for the next one, or is closed if the client or the response says
// so.
func (c *Conn) Respond(r Response) {
	if c.state != stateBody && c.state != stateAnswer {
		return
	}
	ex := c.http
	ex.keep = ex.keep && !r.Close && c.state == stateAnswer // what is left of a body that nobody read is no request
	c.core.stats.answered.Add(1)
	c.core.writer.response(c, &r, ex.keep)
	c.Data = nil
	if !ex.keep {
		c.core.linger(c, stateDraining, afterShutdown)
		return
	}
	c.http = nil
	c.state, c.deadline = stateHead, c.core.now.Load()+int64(c.core.cfg.IdleTimeout)
	c.core.wheel.arm(c)
}

// Stream answers the request of an Exchanger's connection with a response
// without an end: the connection is open from now on, as after Handler.Open,
// which is not called. What is sent is written with f; nothing more is read.
// Header is further header lines, each with its CR LF.
func (c *Conn) Stream(contentType, header string, f framing.Framing) {
	if c.state != stateBody && c.state != stateAnswer {
		return
	}
	c.core.writer.streamHead(c, contentType, header)
	c.http = &exchange{framing: f}
	c.state, c.deadline = stateOpen, 0
	c.flags |= flagOpened
	c.core.stats.opened.Add(1)
}

// response queues an answer.
func (w *writer) response(s *Conn, r *Response, keep bool) {
	start := w.arena.reserve(256 + len(r.Header) + len(r.Body))
	b := appendStatus(w.arena.chunk, r.Status)
	if r.Status >= 200 && r.Status != 204 && r.Status != 304 {
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, int64(len(r.Body)), 10)
		b = append(b, "\r\n"...)
	}
	b = appendHeader(b, r.Type, r.Header, !keep)
	w.arena.chunk = append(b, r.Body...)
	w.queuePrivate(s, w.arena.chunk[start:len(w.arena.chunk):len(w.arena.chunk)])
}

// streamHead queues the head of a response without an end: the end of the
// connection is its end, as every HTTP/1 client and proxy understands, and
// what is written stays the same for all kinds of clients.
func (w *writer) streamHead(s *Conn, contentType, header string) {
	start := w.arena.reserve(256 + len(header))
	w.arena.chunk = appendHeader(appendStatus(w.arena.chunk, 200), contentType, header, true)
	w.queuePrivate(s, w.arena.chunk[start:len(w.arena.chunk):len(w.arena.chunk)])
}

func appendStatus(b []byte, status int) []byte {
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, statusText(status)...)
	return append(b, "\r\n"...)
}

func appendHeader(b []byte, contentType, header string, closing bool) []byte {
	if contentType != "" {
		b = append(b, "Content-Type: "...)
		b = append(b, contentType...)
		b = append(b, "\r\n"...)
	}
	if closing {
		b = append(b, "Connection: close\r\n"...)
	}
	b = append(b, header...)
	return append(b, "\r\n"...)
}

// serve begins to read the body of a request whose head was all[:n], and
// returns what is behind it.
func (r *reader) serve(s *Conn, most int, rest []byte) []byte {
	body, err := r.request.Body(most)
	ex := &exchange{body: body, keep: r.request.Persists()}
	s.http, s.state = ex, stateBody
	if err != nil {
		r.refuseError(s, err)
		return nil
	}
	if body.Done() {
		return r.served(s, nil, rest)
	}
	if whole := body.Whole(rest); whole != nil {
		return r.served(s, whole, rest[len(whole):])
	}
	if r.request.HeaderHas("Expect", "100-continue") && len(rest) == 0 {
		r.core.writer.queue(s, continueLine, false)
	}
	s.deadline = r.core.now.Load() + int64(r.core.cfg.HeadTimeout)
	r.core.wheel.arm(s)
	return r.bodyInput(s, rest)
}

var continueLine = []byte("HTTP/1.1 100 Continue\r\n\r\n")

// bodyInput takes bytes that belong to a body, and returns what is behind it.
func (r *reader) bodyInput(s *Conn, in []byte) []byte {
	ex := s.http
	var used int
	var err error
	if ex.bytes, used, err = ex.body.Read(ex.bytes, in); err != nil {
		r.refuseError(s, err)
		return nil
	}
	if !ex.body.Done() {
		return nil
	}
	body := ex.bytes
	ex.bytes = nil
	return r.served(s, body, in[used:])
}

// served hands a complete request to the handler. What is behind it is the
// next request if it was answered at once; else the client is told with the
// answer that nobody reads it (RFC 9112 9.3.2).
func (r *reader) served(s *Conn, body, rest []byte) []byte {
	s.state, s.deadline = stateAnswer, r.core.now.Load()+int64(r.core.cfg.AnswerTimeout)
	r.core.wheel.arm(s)
	r.core.guard.body(s, body)
	if s.state == stateAnswer && len(rest) > 0 {
		s.http.keep = false
	}
	return rest
}

// early takes what came while a request is being answered.
func (r *reader) early(s *Conn) { s.http.keep = false }

// abandon tells the handler that a request will not be answered, if it knows
// the request.
func (c *core) abandon(s *Conn) {
	if (s.state == stateBody || s.state == stateAnswer) && s.flags&flagEnded == 0 {
		s.flags |= flagEnded
		c.ended = append(c.ended, ended{slot: s.slot, request: true})
	}
}
