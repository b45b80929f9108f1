package loop

import (
	"errors"
	"strconv"

	"github.com/carillon-rt/carillon/gateway/internal/httphead"
	"github.com/carillon-rt/carillon/gateway/internal/netpoll"
	"github.com/carillon-rt/carillon/gateway/internal/ws"
)

// partialHead is a request head that is not complete.
type partialHead struct {
	scanner httphead.Scanner
	bytes   []byte
}

// readable reads once: what remains is reported again in the next turn.
func (c *core) readable(s *Conn) {
	n, err := s.recv(c.input)
	if err == netpoll.ErrAgain {
		return
	}
	if err != nil {
		c.lost(s, err)
		return
	}
	c.turn.bytesIn += int64(n)
	s.lastInput = c.now.Load()
	switch s.state {
	case stateHead:
		c.headInput(s, c.input[:n])
	case stateOpen, stateClosing:
		c.frames(s, c.input[:n])
	case stateDraining: // thrown away
	}
	if s.pipe != nil && s.state != stateDead {
		s.pipe.Resume()
	}
}

// headInput takes bytes that belong to a request head, and perhaps to what
// follows it.
func (c *core) headInput(s *Conn, in []byte) {
	var scanner httphead.Scanner
	p := s.partial
	if p == nil {
		p = &partialHead{}
		n, err := scanner.Scan(in)
		if n == 0 && err == nil {
			s.partial = &partialHead{scanner: scanner, bytes: append([]byte(nil), in...)}
			return
		}
		c.headDone(s, in, n, err)
		return
	}
	p.bytes = append(p.bytes, in...)
	n, err := p.scanner.Scan(p.bytes)
	if n == 0 && err == nil {
		return
	}
	s.partial = nil
	c.headDone(s, p.bytes, n, err)
}

// headDone serves a complete head, all[:n], or refuses a bad one.
func (c *core) headDone(s *Conn, all []byte, n int, err error) {
	if err == nil {
		err = c.request.Parse(all[:n])
	}
	if err != nil {
		var he *httphead.Error
		status := 400
		if errors.As(err, &he) {
			status = he.Status
		}
		c.refuse(s, status, err.Error())
		return
	}
	if s.flags&flagOverflow != 0 {
		c.refuse(s, 503, "too many connections")
		return
	}
	v := c.callRequest(s, &c.request)
	if s.state != stateHead {
		return // aborted by the handler
	}
	switch v.Action {
	case Upgrade:
		c.upgrade(s, v.Protocol, all[n:])
	case HandOver:
		c.handOver(s, all[httphead.LeadingBytes(all):])
	default:
		c.refuse(s, v.Status, v.Body)
	}
}

// upgrade answers the handshake of c.request and goes on with the frames that
// came right behind it.
func (c *core) upgrade(s *Conn, protocol string, rest []byte) {
	if err := ws.CheckUpgrade(&c.request); err != nil {
		var he *ws.HandshakeError
		status := 400
		if errors.As(err, &he) {
			status = he.Status
		}
		c.refuse(s, status, err.Error())
		return
	}
	s.state, s.deadline = stateOpen, 0
	s.flags |= flagOpened
	c.stats.opened.Add(1)
	start := c.arena.reserve(256 + len(protocol))
	c.arena.chunk = ws.AppendUpgrade(c.arena.chunk, &c.request, protocol)
	c.queuePrivate(s, c.arena.chunk[start:len(c.arena.chunk):len(c.arena.chunk)])
	c.callOpen(s)
	if len(rest) > 0 && (s.state == stateOpen || s.state == stateClosing) {
		c.frames(s, rest)
	}
}

// frames takes bytes of a WebSocket.
func (c *core) frames(s *Conn, in []byte) {
	for len(in) > 0 {
		ev, used, err := s.reader.Next(c.decoder, in)
		if err != nil {
			c.broken(s, err)
			return
		}
		in = in[used:]
		switch ev.Op {
		case ws.OpText, ws.OpBinary:
			if s.state == stateOpen {
				c.turn.messagesIn++
				c.callMessage(s, ev.Op == ws.OpText, ev.Payload)
			}
		case ws.OpPing:
			if s.state == stateOpen {
				c.queuePrivate(s, c.arena.frame(ws.OpPong, ev.Payload))
			}
		case ws.OpClose:
			c.peerClosed(s, ev)
		}
		if s.state != stateOpen && s.state != stateClosing {
			return
		}
	}
}

// peerClosed answers the peer's close frame, or completes our own close.
func (c *core) peerClosed(s *Conn, ev ws.Event) {
	if s.state == stateClosing {
		s.state, s.after = stateDraining, afterClose
		if !s.dirty && s.out == nil {
			c.written(s)
		}
		return
	}
	if ev.Code == ws.CloseNoStatus {
		c.queuePrivate(s, c.arena.frame(ws.OpClose, nil))
	} else {
		c.closeFrame(s, ev.Code, "")
	}
	c.end(s, Closure{Cause: CausePeer, Code: ev.Code, Reason: string(ev.Payload)})
	c.linger(s, stateDraining, afterClose)
}

// broken fails a connection whose client broke the protocol. Its socket is
// drained until the client has seen the close frame, because closing a socket
// with unread input would throw the frame away.
func (c *core) broken(s *Conn, err error) {
	if s.state == stateClosing {
		c.linger(s, stateDraining, afterShutdown)
		return
	}
	why := Closure{Cause: CauseProtocol, Code: ws.CloseProtocol, Reason: err.Error()}
	var we *ws.Error
	if errors.As(err, &we) {
		why.Code = we.Code
	}
	if why.Code == ws.CloseTooBig {
		why.Cause = CauseTooBig
	}
	c.fail(s, why)
}

// fail ends a connection with a close frame and without waiting for the
// peer's.
func (c *core) fail(s *Conn, why Closure) {
	c.closeFrame(s, why.Code, why.Reason)
	c.end(s, why)
	c.linger(s, stateDraining, afterShutdown)
}

// closeFrame queues a close frame.
func (c *core) closeFrame(s *Conn, code int, reason string) {
	start := c.arena.reserve(ws.HeaderBytesMax + 2 + ws.ReasonBytesMax)
	c.arena.chunk = ws.AppendClose(c.arena.chunk, code, reason)
	c.queuePrivate(s, c.arena.chunk[start:len(c.arena.chunk):len(c.arena.chunk)])
}

// refuse answers a request with a status and closes. 426 and 503 carry the
// header that says what would be right.
func (c *core) refuse(s *Conn, status int, text string) {
	if status < 200 || status > 599 {
		status = 500
	}
	c.stats.refused.Add(1)
	body := text
	if body != "" {
		body += "\n"
	}
	b := make([]byte, 0, 256+len(body))
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(status), 10)
	b = append(b, ' ')
	b = append(b, statusText(status)...)
	b = append(b, "\r\nConnection: close\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	switch status {
	case 426:
		b = append(b, "\r\nUpgrade: websocket\r\nSec-WebSocket-Version: "+ws.Version...)
	case 503:
		b = append(b, "\r\nRetry-After: 5"...)
	}
	b = append(b, "\r\n\r\n"...)
	b = append(b, body...)
	c.queuePrivate(s, b)
	c.linger(s, stateDraining, afterShutdown)
}
