package edge

import (
	"strings"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/hub"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// pusherClient is a client with a session.Session, in one object: there are a
// million.
type pusherClient struct {
	client
	session session.Session
}

var _ session.Host = (*pusherClient)(nil)

// Pusher is the protocol of a dialect whose clients have session.Session; by
// WebSocket, or by HTTP exchanges if the dialect is a dialect.HTTP.
func Pusher(d dialect.Dialect) Protocol {
	http, _ := d.(dialect.HTTP)
	return Protocol{Protocol: d, http: http, birth: func(b *birth) *client { return newPusherClient(d, b) }}
}

func newPusherClient(d dialect.Dialect, b *birth) *client {
	c := &pusherClient{}
	c.client = b.client(&c.session)
	c.enter(d, b.hello, b.head.Header("Origin"))
	return &c.client
}

// enter gives the client the session of one that has come with hello.
func (c *pusherClient) enter(d dialect.Dialect, hello dialect.Hello, origin string) {
	edge := c.h.edge
	a := edge.cfg.Apps.ByKey(hello.Key)
	hello.Key = keptKey(a, hello.Key)
	opt := session.Options{Origin: origin, Now: c.h.loop.Now()}
	if a != nil && hello.Refuse == dialect.None {
		c.counted = true
		opt.OverQuota = edge.apps.add(a)
	}
	c.session.Init(d, a, hello, opt, c)
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

// Authorize implements session.Host.
func (c *pusherClient) Authorize(id uint32, req *authz.Subscribe, wish *resume.Wish) {
	req.Transport = c.transport()
	c.h.edge.cfg.Backbone.Authorize(req, func(d authz.Decision) {
		c.answer(func() { c.session.Authorized(id, d, wish, c.h.loop.Now()) })
	})
}

// SignIn implements session.Host.
func (c *pusherClient) SignIn(req *authz.SignIn) {
	c.h.edge.cfg.Backbone.SignIn(req, func(d authz.Decision) {
		c.answer(func() { c.signedIn(d) })
	})
}

func (c *pusherClient) signedIn(d authz.Decision) {
	first := d.Allow && d.User != nil && c.user() == ""
	if first && !c.admit(d.User.ID) {
		return
	}
	c.session.SignInDecided(d, c.h.loop.Now())
	if first && c.user() == "" { // the session would not have it
		c.h.edge.door.signOut(c.app(), d.User.ID)
	}
}

// Publish implements session.Host.
func (c *pusherClient) Publish(pub *message.Publication) {
	c.h.stats.clientEvents.Add(1)
	c.h.edge.cfg.Backbone.Publish(pub)
}

// SetUser implements session.Host.
func (c *pusherClient) SetUser(user *authz.User, watch []string) {
	c.become(user.ID)
	if len(watch) == 0 {
		return
	}
	a := &attachment{c: &c.client, kind: hub.KindOf(c.h.edge.views[c.protocol][0], 0), watch: &watching{users: watch, told: c.session.Watching}}
	a.keys = make([]channel.Key, len(watch))
	for i, u := range watch {
		a.keys[i] = c.key(channel.OnlinePrefix + u)
	}
	c.attach(a)
}
