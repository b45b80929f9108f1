package loop

import (
	"errors"

	"github.com/carillon-rt/carillon/gateway/internal/httphead"
	"github.com/carillon-rt/carillon/gateway/internal/netpoll"
	"github.com/carillon-rt/carillon/gateway/internal/ws"
)

// reader takes what the loop's connections sent: request heads, then frames.
type reader struct {
	core *core // immutable after New

	// owned by the loop
	input   []byte // the one read buffer
	request Head
	decoder *ws.Decoder
}

func (r *reader) init(c *core) {
	r.core = c
	r.input = make([]byte, c.cfg.ReadBuffer)
	r.decoder = ws.NewDecoder(c.cfg.MessageBytesMax)
}

// readable reads once: what remains is reported again in the next turn.
func (r *reader) readable(s *Conn) {
	n, err := s.recv(r.input)
	if err == netpoll.ErrAgain {
		return
	}
	if err != nil {
		r.core.lost(s, err)
		return
	}
	r.core.turn.bytesIn += int64(n)
	s.lastInput = r.core.now.Load()
	switch s.state {
	case stateHead, stateBody:
		r.requests(s, r.input[:n])
	case stateAnswer:
		r.early(s)
	case stateOpen, stateClosing:
		if s.http == nil { // clients of streams have nothing more to say
			r.frames(s, r.input[:n])
		}
	case stateDraining: // thrown away
	}
	if s.pipe != nil && s.state != stateDead {
		s.pipe.Resume()
	}
}

// requests takes bytes of requests, one after the other.
func (r *reader) requests(s *Conn, in []byte) {
	if s.state == stateBody {
		in = r.bodyInput(s, in)
	}
	for len(in) > 0 && s.state == stateHead {
		in = r.headInput(s, in)
	}
}

// headInput takes bytes that belong to a request head, and perhaps to what
// follows it; it returns what follows the request.
func (r *reader) headInput(s *Conn, in []byte) []byte {
	var scanner httphead.Scanner
	p := s.http
	if p == nil {
		n, err := scanner.Scan(in)
		if n == 0 && err == nil {
			s.http = &exchange{scanner: scanner, bytes: append([]byte(nil), in...)}
			return nil
		}
		return r.headDone(s, in, n, err)
	}
	p.bytes = append(p.bytes, in...)
	n, err := p.scanner.Scan(p.bytes)
	if n == 0 && err == nil {
		return nil
	}
	s.http = nil
	return r.headDone(s, p.bytes, n, err)
}

// headDone serves a complete head, all[:n], or refuses a bad one. It returns
// what follows the request.
func (r *reader) headDone(s *Conn, all []byte, n int, err error) []byte {
	if err == nil {
		err = r.request.Parse(all[:n])
	}
	if err != nil {
		r.refuseError(s, err)
		return nil
	}
	if s.flags&flagOverflow != 0 {
		r.core.refuse(s, 503, "too many connections")
		return nil
	}
	v := r.core.guard.request(s, &r.request)
	if s.state != stateHead {
		return nil // aborted by the handler
	}
	switch v.Action {
	case Upgrade:
		r.upgrade(s, v.Protocol, all[n:])
	case HandOver:
		r.core.handOver(s, all[httphead.LeadingBytes(all):])
	case Serve:
		return r.serve(s, v.BodyMax, all[n:])
	default:
		r.core.refuse(s, v.Status, v.Body)
	}
	return nil
}

// refuseError answers a request that can't be served.
func (r *reader) refuseError(s *Conn, err error) {
	var he *httphead.Error
	status := 400
	if errors.As(err, &he) {
		status = he.Status
	}
	r.core.abandon(s)
	r.core.refuse(s, status, err.Error())
}

// upgrade answers the handshake of r.request and goes on with the frames that
// came right behind it.
func (r *reader) upgrade(s *Conn, protocol string, rest []byte) {
	if err := ws.CheckUpgrade(&r.request); err != nil {
		var he *ws.HandshakeError
		status := 400
		if errors.As(err, &he) {
			status = he.Status
		}
		r.core.refuse(s, status, err.Error())
		return
	}
	s.state, s.deadline = stateOpen, 0
	s.flags |= flagOpened
	r.core.stats.opened.Add(1)
	r.core.writer.upgrade(s, &r.request, protocol)
	r.core.guard.open(s)
	if len(rest) > 0 && (s.state == stateOpen || s.state == stateClosing) {
		r.frames(s, rest)
	}
}

// frames takes bytes of a WebSocket.
func (r *reader) frames(s *Conn, in []byte) {
	for len(in) > 0 {
		ev, used, err := s.reader.Next(r.decoder, in)
		if err != nil {
			r.broken(s, err)
			return
		}
		in = in[used:]
		switch ev.Op {
		case ws.OpText, ws.OpBinary:
			if s.state == stateOpen {
				r.core.turn.messagesIn++
				r.core.guard.message(s, ev.Op == ws.OpText, ev.Payload)
			}
		case ws.OpPing:
			if s.state == stateOpen {
				r.core.writer.frame(s, ws.OpPong, ev.Payload)
			}
		case ws.OpClose:
			r.peerClosed(s, ev)
		}
		if s.state != stateOpen && s.state != stateClosing {
			return
		}
	}
}

// peerClosed answers the peer's close frame, or completes our own close.
func (r *reader) peerClosed(s *Conn, ev ws.Event) {
	if s.state == stateClosing {
		s.state, s.after = stateDraining, afterClose
		if !s.dirty && s.out == nil {
			r.core.written(s)
		}
		return
	}
	if ev.Code == ws.CloseNoStatus {
		r.core.writer.frame(s, ws.OpClose, nil)
	} else {
		r.core.writer.closeFrame(s, ev.Code, "")
	}
	r.core.end(s, Closure{Cause: CausePeer, Code: ev.Code, Reason: string(ev.Payload)})
	r.core.linger(s, stateDraining, afterClose)
}

// broken fails a connection whose client broke the protocol. Its socket is
// drained until the client has seen the close frame, because closing a socket
// with unread input would throw the frame away.
func (r *reader) broken(s *Conn, err error) {
	if s.state == stateClosing {
		r.core.linger(s, stateDraining, afterShutdown)
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
	r.core.fail(s, why)
}
