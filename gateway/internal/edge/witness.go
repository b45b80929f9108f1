package edge

import (
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/gateway/internal/ws"
	"github.com/carillon-rt/carillon/proto/app"
)

// connectionLost is said of connections that broke.
const connectionLost = "connection lost"

// Connected implements session.Witness.
func (c *client) Connected() {
	c.greeted = true
	if a := c.listener(); a != nil {
		c.witness(a, app.ClientConnected, "", 0, "")
	}
}

// Unsubscribed implements session.Witness.
func (c *client) Unsubscribed(channel string, code uint32, reason string) {
	if a := c.listener(); a != nil {
		c.witness(a, app.ClientUnsubscribed, channel, int(code), reason)
	}
}

// farewell tells the end of the client, and of what it was subscribed to, once:
// when it is closed, or when its connection is gone.
func (c *client) farewell(code int, reason string) {
	if !c.greeted || c.parted {
		return
	}
	c.parted = true
	a := c.listener()
	if a == nil {
		return
	}
	for name, state := range c.sess.Channels() {
		if state == session.Live {
			c.witness(a, app.ClientUnsubscribed, name, code, reason)
		}
	}
	c.witness(a, app.ClientDisconnected, "", code, reason)
}

// listener is the client's app as it is set now, nil if it does not want to
// know what happens to clients.
func (c *client) listener() *app.App {
	cfg := &c.h.edge.cfg
	if cfg.Events == nil {
		return nil
	}
	if a := cfg.Apps.ByID(c.app().ID); a != nil && a.TellsOfClients() {
		return a
	}
	return nil
}

// witness tells an event, if the app wants this one.
func (c *client) witness(a *app.App, kind, channel string, code int, reason string) {
	if !a.WantsHook(kind, channel) {
		return
	}
	c.h.edge.cfg.Events.Tell(a.ID, Event{
		Kind: kind, SocketID: c.SocketID(), User: c.user(), Channel: channel, Code: code, Reason: reason, AtMs: time.Now().UnixMilli(),
	})
}

// lastWords are the code and reason of a connection that this node's sessions
// did not close: 0 when the client did.
func lastWords(why loop.Closure) (code int, reason string) {
	switch why.Cause {
	case loop.CausePeer:
		return 0, ""
	case loop.CauseLost, loop.CauseAborted:
		return ws.CloseAbnormal, connectionLost
	}
	return why.Code, why.Reason
}
