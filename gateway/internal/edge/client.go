package edge

import (
	"strings"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// client is a connection with its session; it is the session's host. It
// belongs to its loop.
type client struct {
	h       *handler
	conn    *loop.Conn
	sess    session.Session
	pending *attachment // list of those that are not complete
	members []membership
	enc     uint8 // of its dialect, see Edge.positioned
	counted bool  // in the app's connections
	closing bool  // Close was called: nothing more is read
	left    bool  // the transport is gone
}

var _ session.Host = (*client)(nil)

// membership is a presence channel that the client's member has joined.
type membership struct{ channel, user string }

func newClient(h *handler, conn *loop.Conn, enc uint8, hello dialect.Hello, origin string) *client {
	c := &client{h: h, conn: conn, enc: enc}
	a := h.edge.cfg.Apps.ByKey(hello.Key)
	hello.Key = keptKey(a, hello.Key)
	opt := session.Options{Origin: origin, Now: h.loop.Now()}
	if a != nil && hello.Refuse == dialect.None {
		c.counted = true
		opt.OverQuota = h.edge.apps.add(a)
	}
	c.sess.Init(c.dialect(), a, hello, opt, c)
	return c
}

// keptKey is an app key that outlives the request head it came in: the app's
// own string where there is one, which costs a connection nothing.
func keptKey(a *app.App, key string) string {
	if a != nil {
		if k, _ := a.Key(key); k.Key == key {
			return k.Key
		}
	}
	return strings.Clone(key)
}

// app is nil if the key is unknown.
func (c *client) app() *app.App { return c.sess.App() }

// user is the id of the signed-in user, "" if there is none.
func (c *client) user() string {
	if u := c.sess.User(); u != nil {
		return u.ID
	}
	return ""
}

func (c *client) dialect() dialect.Dialect { return c.h.edge.cfg.Dialects[c.enc] }

func (c *client) key(name string) channel.Key { return channel.Key{App: c.app().ID, Name: name} }

// tick gives the session the time and sets the next.
func (c *client) tick(now int64) {
	c.sess.Active(c.conn.LastInput())
	next := c.sess.Tick(now)
	if c.closing {
		return
	}
	if at := c.aged(now); at > 0 && (next == 0 || at < next) {
		next = at
	}
	if !c.closing {
		c.conn.SetTimer(next)
	}
}

// answer runs f on the loop unless the client is gone by then.
func (c *client) answer(f func()) {
	c.h.run(func() {
		if !c.left && !c.closing {
			f()
		}
	})
}

// SocketID implements session.Host.
func (c *client) SocketID() string { return socketID(c.h.edge.cfg.NodeNumber, c.conn.Handle()) }

// Send implements session.Host.
func (c *client) Send(payload []byte) { c.conn.SendText(payload) }

// Close implements session.Host.
func (c *client) Close(why dialect.Reason) {
	if c.closing {
		return
	}
	c.closing = true
	c.h.stats.close(why)
	code, reason := c.dialect().Closing(why)
	c.conn.SetTimer(0)
	c.conn.Close(code, reason)
}

// Authorize implements session.Host.
func (c *client) Authorize(id uint32, req *authz.Subscribe, wish *resume.Wish) {
	c.h.edge.cfg.Backbone.Authorize(req, func(d authz.Decision) {
		c.answer(func() { c.sess.Authorized(id, d, wish, c.h.loop.Now()) })
	})
}

// SignIn implements session.Host.
func (c *client) SignIn(req *authz.SignIn) {
	c.h.edge.cfg.Backbone.SignIn(req, func(d authz.Decision) {
		c.answer(func() { c.signedIn(d) })
	})
}

func (c *client) signedIn(d authz.Decision) {
	door, first := c.h.edge.door, d.Allow && d.User != nil && c.user() == ""
	if first && !door.signIn(c.app(), d.User.ID) {
		c.sess.Shut(dialect.UserQuota)
		return
	}
	c.sess.SignInDecided(d, c.h.loop.Now())
	if first && c.user() == "" { // the session would not have it
		door.signOut(c.app(), d.User.ID)
	}
}

// Publish implements session.Host.
func (c *client) Publish(pub *message.Publication) {
	c.h.stats.clientEvents.Add(1)
	c.h.edge.cfg.Backbone.Publish(pub)
}

// SetUser implements session.Host.
func (c *client) SetUser(user *authz.User, watch []string) {
	key := c.key(user.ID)
	c.h.users[key] = append(c.h.users[key], c)
	c.h.edge.cfg.Roster.Online(c.app().ID, user.ID)
	if len(watch) > 0 {
		c.watch(watch)
	}
}

// Attach implements session.Host.
func (c *client) Attach(name string, how session.Attach) {
	a := &attachment{c: c, keys: []channel.Key{c.key(name)}, how: how, enc: c.enc}
	if a.keeps() {
		a.enc = c.h.edge.positioned[c.enc]
	}
	c.attach(a)
}

// Detach implements session.Host.
func (c *client) Detach(name string) {
	for a := c.pending; a != nil; a = a.next {
		if a.watched == nil && a.keys[0].Name == name {
			a.cancel()
			return
		}
	}
	key := c.key(name)
	if enc, ok := c.h.table.Remove(key, c.conn.Handle().Slot); ok {
		c.unsubscribed(key, enc)
	}
	for i, m := range c.members {
		if m.channel == name {
			c.h.edge.cfg.Roster.Leave(key, m.user)
			c.members = append(c.members[:i], c.members[i+1:]...)
			return
		}
	}
}

// unsubscribed tells the node that one subscription less is there.
func (c *client) unsubscribed(key channel.Key, enc uint8) {
	c.h.edge.interest.Unregister(key, c.h.index, enc)
	if occupies(key) {
		c.h.edge.cfg.Roster.Unsubscribed(key)
	}
}

// occupies says whether subscriptions of the channel count: those on the
// channels that belong to users do not.
func occupies(key channel.Key) bool { return !strings.HasPrefix(key.Name, "#") }

// gone undoes everything the client has done to the rest of the gateway.
func (c *client) gone() {
	c.left = true
	c.sess.Gone()
	for c.pending != nil {
		c.pending.cancel()
	}
	c.h.table.RemoveAll(c.conn.Handle().Slot, c.unsubscribed)
	for _, m := range c.members {
		c.h.edge.cfg.Roster.Leave(c.key(m.channel), m.user)
	}
	c.members = nil
	if user := c.user(); user != "" {
		c.h.forgetUser(c, user)
		c.h.edge.cfg.Roster.Offline(c.app().ID, user)
		c.h.edge.door.signOut(c.app(), user)
	}
	if c.counted {
		c.h.edge.apps.done(c.app())
	}
	c.h.edge.door.leave(c.conn.RemoteIP())
}

func (h *handler) forgetUser(c *client, user string) {
	key := c.key(user)
	list := h.users[key]
	for i, x := range list {
		if x == c {
			list[i] = list[len(list)-1]
			list[len(list)-1] = nil
			list = list[:len(list)-1]
			break
		}
	}
	if len(list) == 0 {
		delete(h.users, key)
		return
	}
	h.users[key] = list
}
