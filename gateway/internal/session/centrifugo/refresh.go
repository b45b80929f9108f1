package centrifugo

import (
	"slices"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/proto/authz"
)

// refresh brings a new token for the connection.
func (c command) refresh(b *codec.RefreshRequest) {
	switch {
	case c.s.identity.refresher == server:
		c.s.bad("the server refreshes this connection")
	case b.Token == "":
		c.s.bad("refresh needs a token")
	default:
		req := &authz.Refresh{Client: c.s.about(), Token: b.Token}
		c.s.decide(req, c.id, func(d *authz.Decision, now int64) { c.refreshed(d, now) })
	}
}

func (c command) refreshed(d *authz.Decision, now int64) {
	creds := d.Credentials
	if creds == nil {
		creds = &authz.Credentials{}
	}
	expired := d.Verdict == nil && reasonOf(d) == dialect.TokenExpired
	switch {
	case !d.Allow && d.Verdict == nil && reasonOf(d) == dialect.BadToken:
		c.s.Shut(dialect.BadToken)
	case !d.Allow && !expired:
		c.denied(d)
	case expired || creds.Expired || past(c.s.host, creds.ExpireAt): // after an error SDKs would stay away
		c.s.Shut(dialect.Expired)
	case creds.User != c.s.identity.user:
		c.s.Shut(dialect.BadToken)
	case !c.s.subs.sameSubs(creds, c.s.host):
		c.s.Shut(dialect.LostPlace) // the client gets them by connecting again
	default:
		c.s.identity.is(creds)
		c.s.live(creds, now)
		r := &codec.RefreshResult{Client: c.s.host.SocketID(), Version: Version, Expires: creds.ExpireAt != 0}
		if r.Expires {
			r.TTL = ttl(c.s.host, creds.ExpireAt)
		}
		c.reply(r)
	}
}

// sameSubs says whether a new token gives the subscriptions that the client
// has, and takes away none that a token gave. Those that came otherwise stay.
func (t *subscriptions) sameSubs(creds *authz.Credentials, host Transport) bool {
	for name, grant := range creds.Subs {
		if i := t.Find(name); gives(host, name, &grant) && (i < 0 || !t.Rows[i].has(byServer)) {
			return false
		}
	}
	return !slices.ContainsFunc(t.Rows, func(sub subscription) bool {
		_, there := creds.Subs[sub.name]
		return sub.has(byToken) && !there
	})
}

// refreshedByServer goes on with the answer to a refresh that nobody asked for
// but the server.
func (c command) refreshedByServer(d *authz.Decision, now int64) {
	creds := d.Credentials
	switch {
	case d.Verdict != nil && d.Verdict.Disconnect:
		c.denied(d)
	case !d.Allow && d.Temporary: // asked again later
	case !d.Allow || creds == nil || creds.Expired || past(c.s.host, creds.ExpireAt):
		c.s.Shut(dialect.Expired)
	default:
		if creds.Info != "" {
			c.s.identity.info = creds.Info
		}
		if creds.Meta != "" {
			u := c.s.identity.behind()
			u.meta = creds.Meta
			c.s.identity.hide(u)
		}
		creds.ServerRefresh = true
		c.s.live(creds, now)
	}
}

// subRefresh brings a new token for a subscription.
func (c command) subRefresh(b *codec.SubRefreshRequest) {
	switch {
	case b.Channel == "":
		c.s.bad("sub_refresh needs a channel")
	case b.Type != 0:
		c.refuse(dialect.NotAvailable, "shared poll subscriptions are not offered")
	case c.s.subs.liveOn(b.Channel) == nil:
		c.refuse(dialect.NotSubscribed, "")
	case b.Token == "":
		c.s.bad("sub_refresh needs a token")
	default:
		name := b.Channel
		req := &authz.SubRefresh{Client: c.s.about(), Channel: name, Token: b.Token}
		c.s.decide(req, c.id, func(d *authz.Decision, now int64) { c.subRefreshed(name, d, now) })
	}
}

func (c command) subRefreshed(name string, d *authz.Decision, now int64) {
	sub := c.s.subs.liveOn(name)
	grant := d.Grant
	if grant == nil {
		grant = &authz.Grant{}
	}
	switch {
	case sub == nil:
		c.refuse(dialect.NotSubscribed, "")
	case !d.Allow && d.Verdict == nil && reasonOf(d) == dialect.BadToken:
		c.s.Shut(dialect.BadToken)
	case !d.Allow && d.Verdict == nil && reasonOf(d) == dialect.TokenExpired, d.Allow && past(c.s.host, grant.ExpireAt):
		if !sub.has(byServer) { // after the error alone SDKs would give it up
			c.s.end(c.s.subs.Find(name), codec.UnsubscribedExpired)
		}
		c.refuse(dialect.TokenExpired, d.Message)
	case !d.Allow:
		c.denied(d)
	default:
		c.extend(sub, grant, now)
		sub.set(refreshes, false)
		r := &codec.SubRefreshResult{Expires: grant.ExpireAt != 0}
		if r.Expires {
			r.TTL = ttl(c.s.host, grant.ExpireAt)
		}
		c.reply(r)
	}
}

func (c command) extend(sub *subscription, g *authz.Grant, now int64) {
	if sub.expireAt = after(c.s.host, g.ExpireAt, now); sub.expireAt > 0 {
		c.s.wake(sub.expireAt)
	}
	if g.Info != "" {
		sub.info = g.Info
	}
}

// refreshSubscription asks whether a subscription may go on that came about
// without a token.
func (c command) refreshSubscription(name string, now int64) {
	c.s.due = now + callTimeout
	c.s.decide(&authz.SubRefresh{Client: c.s.about(), Channel: name}, c.id, func(d *authz.Decision, now int64) {
		i := c.s.subs.Find(name)
		switch {
		case d.Verdict != nil && d.Verdict.Disconnect:
			c.denied(d)
		case i < 0 || c.s.subs.Rows[i].state != session.Live || !d.Allow && d.Temporary:
		case !d.Allow || d.Grant == nil || past(c.s.host, d.Grant.ExpireAt):
			c.s.end(i, codec.UnsubscribedExpired)
		default:
			c.extend(&c.s.subs.Rows[i], d.Grant, now)
		}
	})
}
