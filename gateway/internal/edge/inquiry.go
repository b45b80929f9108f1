package edge

import (
	"context"
	"slices"

	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/control"
)

// webSocketName is what backends are told of how clients with WebSockets are
// connected.
const webSocketName = "websocket"

// detailed is a session that knows more of its client than others do.
type detailed interface {
	// Detail fills in what it knows.
	Detail(of *control.Connection)
}

// Inquire answers a question about the connections here. It visits the loops
// a page of slots at a time: no turn of a loop gets long, and the answer is of
// no single moment.
func (e *Edge) Inquire(ctx context.Context, q *control.Question) (control.Answer, error) {
	var a control.Answer
	i := inquiry{e, q.App}
	if of := q.Connections; of != nil {
		if err := i.list(ctx, of, q.Limit, &a); err != nil {
			return control.Answer{}, err
		}
	}
	if q.Numbers {
		n, err := i.count(ctx)
		if err != nil {
			return control.Answer{}, err
		}
		a.Numbers = n
	}
	return a, nil
}

// inquiry is a question about the connections of one app.
type inquiry struct {
	*Edge
	app string
}

// list adds the connections of the app that are selected.
func (i inquiry) list(ctx context.Context, of *control.Select, limit int, a *control.Answer) error {
	take := func(c *client) {
		if !c.isOf(i.app) || !matches(c, of) {
			return
		}
		if len(a.Connections) >= limit {
			a.Cut = true
			return
		}
		a.Connections = append(a.Connections, c.detail())
	}
	switch {
	case of.Client != "":
		handle, ok := i.resolve(of.Client)
		if !ok {
			return nil
		}
		h := i.handlers[handle.Loop]
		return h.do(ctx, func() {
			if conn := h.loop.Conn(handle); conn != nil {
				if c, _ := conn.Data.(*client); c != nil {
					take(c)
				}
			}
		})
	case of.User != "":
		for _, h := range i.handlers {
			if err := h.do(ctx, func() {
				for _, c := range h.users[channel.Key{App: i.app, Name: of.User}] {
					take(c)
				}
			}); err != nil {
				return err
			}
		}
		return nil
	case of.All:
		return i.visit(ctx, take)
	}
	return nil
}

// count counts what the app has here.
func (i inquiry) count(ctx context.Context) (*control.Numbers, error) {
	n := &control.Numbers{}
	users, channels := map[string]struct{}{}, map[string]struct{}{}
	err := i.visit(ctx, func(c *client) {
		if !c.isOf(i.app) {
			return
		}
		n.Clients++
		if user := c.user(); user != "" {
			users[user] = struct{}{}
		}
		for name := range c.sess.Channels() {
			n.Subscriptions++
			channels[name] = struct{}{}
		}
	})
	n.Users, n.Channels = len(users), len(channels)
	return n, err
}

// visit calls f for every client, on its loop.
func (e *Edge) visit(ctx context.Context, f func(*client)) error {
	for _, h := range e.handlers {
		for page, more := 0, true; more; page++ {
			if err := h.do(ctx, func() { more = h.visit(page, f) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// visit calls f for the clients of a page, and says whether there was one.
func (h *handler) visit(page int, f func(*client)) bool {
	return h.loop.EachOfPage(page, func(conn *loop.Conn) {
		if c, _ := conn.Data.(*client); c != nil {
			f(c)
		}
	})
}

// do has f called on the loop, and waits for that.
func (h *handler) do(ctx context.Context, f func()) error {
	done := make(chan struct{})
	h.run(func() {
		defer close(done)
		if ctx.Err() == nil { // nobody reads what f writes when it has been given up
			f()
		}
	})
	select {
	case <-done:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// isOf says whether the client belongs to an app, and still is one.
func (c *client) isOf(app string) bool {
	a := c.app()
	return !c.closing && !c.left && a != nil && a.ID == app
}

func matches(c *client, of *control.Select) bool {
	id := c.SocketID()
	return (of.Client == "" || of.Client == id) && (of.User == "" || of.User == c.user()) && !slices.Contains(of.Except, id)
}

// transport is how the client is connected.
func (c *client) transport() string {
	if !c.carried {
		return webSocketName
	}
	k := c.carrier()
	if k.polls {
		return k.transport.PollName
	}
	return k.transport.StreamName
}

// detail describes the client to backends: its first hundred channels.
func (c *client) detail() control.Connection {
	info := c.describe(c.SocketID())
	out := control.Connection{Client: info.SocketID, User: info.User, Transport: c.transport(), Protocol: info.Dialect}
	for name := range info.Channels {
		out.Channels = append(out.Channels, name)
	}
	slices.Sort(out.Channels)
	if s, ok := any(c.sess).(detailed); ok {
		s.Detail(&out)
	}
	return out
}
