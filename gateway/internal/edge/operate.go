package edge

import (
	"slices"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/control"
)

// operate carries out an operation on the connections that it selects.
func (e *Edge) operate(app string, op *control.Operation) {
	if op.Client != "" {
		handle, ok := e.resolve(op.Client)
		if !ok {
			return
		}
		h := e.handlers[handle.Loop]
		h.run(func() { h.operateOn(handle, app, op) })
		return
	}
	if op.User == "" && !op.All {
		e.cfg.Log.Warn("an operation that selects no connections was ignored", "app", app)
		return
	}
	for _, h := range e.handlers {
		h.run(func() {
			for _, c := range h.selected(app, op) {
				c.operate(op)
			}
		})
	}
}

func (h *handler) operateOn(handle loop.Handle, app string, op *control.Operation) {
	conn := h.loop.Conn(handle)
	if conn == nil {
		return
	}
	c, _ := conn.Data.(*client)
	if c == nil || c.app() == nil || c.app().ID != app || op.User != "" && c.user() != op.User {
		return
	}
	c.operate(op)
}

// selected are the loop's clients that the operation is about.
func (h *handler) selected(app string, op *control.Operation) []*client {
	if op.User != "" {
		return slices.Clone(h.users[channel.Key{App: app, Name: op.User}])
	}
	var all []*client
	h.each(func(c *client) {
		if c.app() != nil && c.app().ID == app {
			all = append(all, c)
		}
	})
	return all
}

// operate does what the operation says to one client. A session that knows no
// operations is closed if that is what it says; the rest is not for it.
func (c *client) operate(op *control.Operation) {
	if c.closing || len(op.Except) > 0 && slices.Contains(op.Except, c.SocketID()) {
		return
	}
	c.h.stats.operations[kindOf(op)].Add(1)
	switch s := c.sess.(type) {
	case operable:
		s.Operate(op, c.h.loop.Now())
	default:
		if op.Disconnect != nil {
			c.sess.Shut(dialect.Terminated)
		}
	}
}

// Operation is what a backend wanted of connections.
type Operation uint8

// Operations.
const (
	OpSubscribe Operation = iota
	OpUnsubscribe
	OpDisconnect
	OpRefresh
	operationsMax
)

// String is the metric label.
func (o Operation) String() string {
	return [operationsMax]string{"subscribe", "unsubscribe", "disconnect", "refresh"}[o]
}

func kindOf(op *control.Operation) Operation {
	switch {
	case op.Subscribe != nil:
		return OpSubscribe
	case op.Unsubscribe != "":
		return OpUnsubscribe
	case op.Disconnect != nil:
		return OpDisconnect
	}
	return OpRefresh
}
