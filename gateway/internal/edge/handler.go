package edge

import (
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/hub"
	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/gateway/internal/ws"
	"github.com/carillon-rt/carillon/proto/channel"
)

// mail is what reaches a loop from elsewhere; one of its fields is set.
type mail struct {
	delivery *hub.Delivery
	// mark is an attachment whose channel (keys[markKey]) is registered now.
	mark    *attachment
	markKey int
	run     func()
}

// handler is the code of one loop.
type handler struct {
	// immutable after New
	edge  *Edge
	index int
	loop  *loop.Loop[mail]

	// owned by the loop
	table *hub.Table
	dirty []*hub.Channel // whose turn is to be expanded
	// paced are attachments whose client has not read what it was given yet.
	paced   []*attachment
	reels   reels // what they are given
	filters filters
	// users are the signed-in clients by app and user id.
	users map[channel.Key][]*client
	// carriers are those of the clients that come by HTTP exchanges, by slot.
	carriers map[int32]*carrier

	// atomic
	backlog atomic.Int64 // deliveries in the mailbox
	stats   counters
}

func newHandler(e *Edge, index int) (*handler, error) {
	h := &handler{
		edge: e, index: index, table: hub.NewTable(),
		users: map[channel.Key][]*client{}, carriers: map[int32]*carrier{},
	}
	cfg := e.cfg.Loop
	cfg.Index = index
	l, err := loop.New[mail](cfg, h)
	h.loop = l
	return h, err
}

// each calls f with every client whose connection is open.
func (h *handler) each(f func(*client)) {
	h.loop.Each(func(c *loop.Conn) {
		if cl, ok := c.Data.(*client); ok {
			f(cl)
		}
	})
}

// run has f called on the loop.
func (h *handler) run(f func()) { h.loop.PostAlways(mail{run: f}) }

// Request implements loop.Handler.
func (h *handler) Request(c *loop.Conn, head *loop.Head) loop.Verdict {
	for i := range h.edge.cfg.Protocols {
		p := &h.edge.cfg.Protocols[i]
		hello, ok := p.Hello(head)
		if !ok {
			continue
		}
		if ws.CheckUpgrade(head) != nil {
			return loop.Verdict{Action: loop.Upgrade} // which the loop refuses: no client, nothing to undo
		}
		if no, ok := h.edge.door.enter(c.RemoteIP(), time.Since(h.edge.started), h.loop.Full()); !ok {
			return no
		}
		c.Data = p.birth(&birth{h: h, conn: c, protocol: uint8(i), hello: hello, head: head})
		return loop.Verdict{Action: loop.Upgrade, Protocol: hello.Subprotocol}
	}
	if v, ok := h.serve(c, head); ok {
		return v
	}
	return loop.Verdict{Action: loop.HandOver}
}

// Open implements loop.Handler.
func (h *handler) Open(c *loop.Conn) { h.open(c.Data.(*client)) }

// open begins a client's session.
func (h *handler) open(cl *client) {
	h.stats.opened.Add(1)
	if h.edge.draining.Load() {
		cl.sess.Shut(dialect.Reconnect)
		return
	}
	now := h.loop.Now()
	cl.sess.Open(now)
	cl.tick(now)
}

// Message implements loop.Handler.
func (h *handler) Message(c *loop.Conn, text bool, payload []byte) {
	cl := c.Data.(*client)
	if cl.closing {
		return
	}
	if text == cl.proto().Binary() {
		h.stats.messages.Add(1)
		cl.sess.Shut(dialect.Malformed)
		return
	}
	cl.hear(payload)
}

// Closed implements loop.Handler.
func (h *handler) Closed(c *loop.Conn, why loop.Closure) {
	if y := relayOf(c); y != nil {
		y.leave()
		return
	}
	cl := c.Data.(*client)
	cl.farewell(lastWords(why))
	cl.gone()
	if cl.carried {
		cl.carrier().ended()
	}
	h.stats.closed.Add(1)
	c.Data = nil
}

// SlowClose implements loop.SlowCloser.
func (h *handler) SlowClose(c *loop.Conn) (code int, reason string) {
	if relayOf(c) != nil {
		return ws.CloseNormal, ""
	}
	cl := c.Data.(*client)
	h.stats.close(dialect.Slow)
	return cl.proto().Closing(dialect.Slow)
}

// Tick implements loop.Handler.
func (h *handler) Tick(c *loop.Conn, now int64) {
	if y := relayOf(c); y != nil {
		y.next()
		return
	}
	cl := c.Data.(*client)
	switch {
	case !cl.closing:
		cl.tick(now)
	case cl.carried:
		c.SetTimer(cl.carrier().tick(now, 0))
	}
}

// Mail implements loop.Handler. A panic in one item is for the loop to count,
// but must not cost the others.
func (h *handler) Mail(items []mail) {
	next := 0
	defer func() {
		if next < len(items) {
			h.Mail(items[next:])
		}
	}()
	for next < len(items) {
		m := &items[next]
		next++
		h.take(m)
	}
}

func (h *handler) take(m *mail) {
	switch {
	case m.delivery != nil:
		h.backlog.Add(-1)
		h.arrive(m.delivery)
	case m.mark != nil:
		m.mark.marked(m.markKey)
	default:
		m.run()
	}
}

// EndTurn implements loop.Handler. A panic in one channel costs no other's
// turn.
func (h *handler) EndTurn() {
	h.goOn()
	h.reels.sweep(h.loop.Now())
	next := 0
	defer func() {
		rest := copy(h.dirty, h.dirty[next:])
		h.dirty = h.dirty[:rest]
		if rest > 0 {
			h.EndTurn()
		}
	}()
	for next < len(h.dirty) {
		ch := h.dirty[next]
		h.dirty[next] = nil
		next++
		h.expand(ch)
	}
}
