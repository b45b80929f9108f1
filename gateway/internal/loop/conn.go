package loop

import (
	"net/netip"

	"github.com/carillon-rt/carillon/gateway/internal/netpoll"
	"github.com/carillon-rt/carillon/gateway/internal/ws"
)

// state is where a connection is in its life.
type state uint8

const (
	stateFree     state = iota // the slot has no connection
	stateHead                  // waits for the request head
	stateBody                  // waits for the body of a request that the handler answers
	stateAnswer                // waits for the handler's answer
	stateOpen                  // a WebSocket or a stream: the handler knows it
	stateClosing               // our close frame is queued; waits for the peer's
	stateDraining              // all was said; input is thrown away until its end
	stateDead                  // the socket is closed; the slot is not free yet
)

// after is what happens once everything queued has been written.
type after uint8

const (
	afterNothing  after = iota
	afterShutdown       // end our side, then drain
	afterClose
)

// Conn is one connection. It belongs to its loop: its methods may be called
// only in the handler's methods, and do nothing once the connection has ended.
//
// An idle connection is this struct and nothing else; its first cache line is
// what a fan-out touches.
type Conn struct {
	first  *Frame  // the turn's first frame, when that is a shared one
	out    *outbox // what the kernel did not take; nil while it takes all
	pipe   *netpoll.Pipe
	core   *core
	head   int32 // list of further frames of this turn, in writer.nodes; 0 is none
	tail   int32
	fd     int32
	slot   int32
	gen    uint32
	state  state
	after  after
	dirty  bool
	flags  connFlags
	reader ws.Reader

	// Data belongs to the handler; it is dropped after Handler.Closed.
	Data any

	http      *exchange // a request, or a stream; nil for WebSockets
	timerAt   int64     // the handler's timer, loop time; 0 is none
	deadline  int64     // the loop's own: head, outbox age or close
	lastInput int64
	wheelAt   uint32 // tick at which the wheel looks at the connection
	wheelNext int32  // slots of neighbours in the bucket, plus one; 0 is none
	wheelPrev int32
	port      uint16
	ip        [16]byte
}

// connFlags are rare facts about a connection.
type connFlags uint8

const (
	flagOpened   connFlags = 1 << iota // Handler.Open was called
	flagEnded                          // in core.ended: Handler.Closed is due or was called
	flagOverflow                       // admitted only to be told that the loop is full
	flagLinked                         // in the timing wheel
	flagDetached                       // the socket belongs to net/http now
	flagParks                          // lives on when its socket is lost
)

// Handle names the connection for other goroutines; see Loop.Conn.
func (c *Conn) Handle() Handle {
	return Handle{Loop: int32(c.core.cfg.Index), Slot: c.slot, Gen: c.gen}
}

// RemoteAddr is the peer's "ip:port".
func (c *Conn) RemoteAddr() string {
	return netip.AddrPortFrom(netip.AddrFrom16(c.ip).Unmap(), c.port).String()
}

// RemoteIP is the peer's address alone.
func (c *Conn) RemoteIP() netip.Addr { return netip.AddrFrom16(c.ip).Unmap() }

// LastInput is the loop time at which the peer last sent anything.
func (c *Conn) LastInput() int64 { return c.lastInput }

// SetTimer has Handler.Tick called once, at loop time at or up to some 100 ms
// later; 0 cancels. A connection has one timer.
func (c *Conn) SetTimer(at int64) {
	if c.state != stateOpen {
		return
	}
	c.timerAt = at
	c.core.wheel.arm(c)
}

// Send queues complete frames of the connection's framing for the end of the
// turn; they are copied. See ws.AppendFrame.
func (c *Conn) Send(frames []byte) {
	if c.state == stateOpen && len(frames) > 0 {
		c.core.writer.queuePrivate(c, c.core.writer.arena.copy(frames))
	}
}

// SendText queues payload, which must be UTF-8, as one text message; it is
// copied.
func (c *Conn) SendText(payload []byte) { c.SendMessage(payload, false) }

// SendMessage queues payload as one message, or with the framing of Stream; it
// is copied. Unless it is binary it must be UTF-8.
func (c *Conn) SendMessage(payload []byte, binary bool) {
	switch {
	case c.state != stateOpen:
	case c.http != nil:
		c.core.writer.framed(c, payload)
	case binary:
		c.core.writer.frame(c, ws.OpBinary, payload)
	default:
		c.core.writer.frame(c, ws.OpText, payload)
	}
}

// Ping queues a ping frame; the answer counts as input. Streams have none.
func (c *Conn) Ping() {
	if c.state == stateOpen && c.http == nil {
		c.core.writer.frame(c, ws.OpPing, nil)
	}
}

// SendShared queues a shared frame for the end of the turn without copying
// it.
func (c *Conn) SendShared(f *Frame) {
	if c.state != stateOpen {
		return
	}
	if !c.dirty {
		c.dirty = true
		c.first = f
		c.core.writer.dirty = append(c.core.writer.dirty, c.slot)
		return
	}
	c.core.writer.queue(c, f.Bytes, false)
}

// Pending is how many bytes wait to be written.
func (c *Conn) Pending() int {
	n := 0
	if c.first != nil {
		n = len(c.first.Bytes)
	}
	for i := c.head; i != 0; i = c.core.writer.nodes[i].next {
		n += len(c.core.writer.nodes[i].bytes)
	}
	if c.out != nil {
		n += c.out.bytes
	}
	return n
}

// Blocked says whether the kernel has not taken everything that was written in
// earlier turns. When it has, that is a turn of its own.
func (c *Conn) Blocked() bool { return c.out != nil && !c.out.empty() }

// Close sends a close frame after what is queued and waits for the peer's for
// up to Config.CloseTimeout; a stream ends with what its framing has for that.
// To the handler the connection ends with this
// turn: nothing more is delivered, and Handler.Closed is called soon after the
// current call has returned.
func (c *Conn) Close(code int, reason string) {
	if c.state != stateOpen {
		return
	}
	if !ws.ValidCloseCode(code) {
		code = ws.CloseInternal
	}
	why := Closure{Cause: CauseClosed, Code: code, Reason: reason}
	if c.http != nil {
		c.core.fail(c, why)
		return
	}
	c.core.writer.closeFrame(c, code, reason)
	c.core.end(c, why)
	c.core.linger(c, stateClosing, afterNothing)
}

// Abort closes the socket at once, without a close frame. Handler.Closed is
// called soon after the current call has returned.
func (c *Conn) Abort(reason string) {
	if c.state == stateOpen {
		c.core.end(c, Closure{Cause: CauseAborted, Code: ws.CloseAbnormal, Reason: reason})
	}
	c.core.kill(c)
}

// recv reads what the peer sent.
func (c *Conn) recv(b []byte) (int, error) {
	if c.pipe != nil {
		return c.pipe.Recv(b)
	}
	return netpoll.RecvFD(int(c.fd), b)
}

// send writes what the kernel takes of b.
func (c *Conn) send(b []byte) (int, error) {
	if c.pipe != nil {
		return c.pipe.Send(b)
	}
	return netpoll.SendFD(int(c.fd), b)
}

// watch changes what a descriptor is watched for; pipes report by themselves.
func (c *Conn) watch(from, to netpoll.Interest) error {
	if c.pipe != nil {
		return nil
	}
	return c.core.poller.Watch(int(c.fd), c.slot, c.gen, from, to)
}
