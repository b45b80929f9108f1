package edge

import (
	"iter"
	"strings"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/hub"
	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/channel"
)

// client is a connection with its session; it is what the hosts of all kinds
// of sessions have in common. It belongs to its loop.
type client struct {
	h        *handler
	conn     *loop.Conn
	sess     life
	pending  *attachment // list of those that are not complete
	members  []membership
	protocol uint8 // index of Config.Protocols
	counted  bool  // in the app's connections
	carried  bool  // by HTTP exchanges: see carrier
	closing  bool  // Close was called: nothing more is read
	left     bool  // the transport is gone
	greeted  bool  // it was told that it is connected
	parted   bool  // its end was told: see farewell
}

// life is what the edge tells a session, whatever its protocol: see
// session.Session, which has all of these methods.
type life interface {
	Open(now int64)
	Message(payload []byte, now int64) dialect.Reason
	Active(now int64)
	Tick(now int64) (next int64)
	Attached(r session.Attached, now int64)
	Lost(lost func(channel string) bool)
	Shut(why dialect.Reason)
	Gone()

	Opened() int64
	App() *app.App
	UserID() string
	Channels() iter.Seq2[string, session.State]
}

// membership is a presence channel that the client's member has joined.
type membership struct{ channel, user string }

// app is nil if the key is unknown.
func (c *client) app() *app.App { return c.sess.App() }

// user is the id of the signed-in user, "" if there is none.
func (c *client) user() string { return c.sess.UserID() }

func (c *client) proto() *Protocol { return &c.h.edge.cfg.Protocols[c.protocol] }

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
	if c.carried && !c.closing {
		next = c.carrier().tick(now, next)
	}
	if !c.closing {
		c.conn.SetTimer(next)
	}
}

// wake has tick called at a time, or earlier, instead of when it was to be.
func (c *client) wake(at int64) {
	if end := c.oldest(); end > 0 {
		at = min(at, end)
	}
	if c.carried {
		at = c.carrier().soonest(at)
	}
	c.conn.SetTimer(at)
}

// hear takes one message of the client.
func (c *client) hear(payload []byte) {
	if c.closing {
		return
	}
	c.h.stats.messages.Add(1)
	if why := c.sess.Message(payload, c.h.loop.Now()); why != dialect.None {
		c.h.stats.refused[why].Add(1)
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
func (c *client) Send(payload []byte) { c.conn.SendMessage(payload, c.proto().Binary()) }

// Close implements session.Host.
func (c *client) Close(why dialect.Reason) {
	code, reason := c.proto().Closing(why)
	c.disconnect(why, code, reason)
}

func (c *client) disconnect(why dialect.Reason, code int, reason string) {
	if c.closing {
		return
	}
	c.closing = true
	c.farewell(code, reason)
	c.h.stats.close(why)
	c.conn.SetTimer(0)
	if c.carried && c.conn.Parked() {
		c.carrier().die(code, reason)
		return
	}
	c.conn.Close(code, reason)
}

// admit counts the client among a user's, unless those are as many as the app
// allows: then it is closed.
func (c *client) admit(user string) bool {
	if c.h.edge.door.signIn(c.app(), user) {
		return true
	}
	c.sess.Shut(dialect.UserQuota)
	return false
}

// become makes the client, which was admitted, one of a user's.
func (c *client) become(user string) {
	key := c.key(user)
	c.h.users[key] = append(c.h.users[key], c)
	c.h.edge.cfg.Roster.Online(c.app().ID, user)
}

// Attach implements session.Host.
func (c *client) Attach(name string, how session.Attach) {
	a := &attachment{c: c, keys: []channel.Key{c.key(name)}, how: how}
	number, ok := c.h.filters.use(how.Filter)
	if !ok {
		a.fail(dialect.Unavailable, "the node has too many different filters, try again later")
	}
	a.kind = hub.KindOf(c.h.edge.views[c.protocol][how.View], number)
	c.attach(a)
}

// Detach implements session.Host.
func (c *client) Detach(name string) {
	for a := c.pending; a != nil; a = a.next {
		if a.watch == nil && a.keys[0].Name == name {
			a.cancel()
			return
		}
	}
	key := c.key(name)
	if kind, ok := c.h.table.Remove(key, c.conn.Handle().Slot); ok {
		c.unsubscribed(key, kind)
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
func (c *client) unsubscribed(key channel.Key, kind hub.Kind) {
	c.unregister(key, kind)
	if occupies(key) {
		c.h.edge.cfg.Roster.Unsubscribed(key)
	}
}

// unregister takes back what attach has registered.
func (c *client) unregister(key channel.Key, kind hub.Kind) {
	if number := kind.Number(); number != 0 {
		c.h.filters.leave(number)
	}
	full := hub.KindOf(c.h.edge.full[kind.Encoding()], kind.Number())
	c.h.edge.interest.Unregister(key, c.h.index, full)
}

// occupies says whether subscriptions of the channel count: those on the
// channels that belong to users do not.
func occupies(key channel.Key) bool { return !strings.HasPrefix(key.Name, "#") }

// gone undoes everything the client has done to the rest of the gateway.
func (c *client) gone() {
	if c.left {
		return
	}
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
