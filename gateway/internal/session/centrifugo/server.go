package centrifugo

import (
	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/control"
)

// Operate carries out what a backend wants of the connection.
func (s *Session) Operate(op *control.Operation, now int64) {
	by := backend{s, now}
	switch {
	case s.phase == closed:
	case op.Disconnect != nil:
		by.disconnect(op.Disconnect)
	case s.phase == connecting:
		s.connect.later(op)
	case s.phase != connected: // no subscriptions, no lifetime
	case op.Subscribe != nil:
		by.subscribe(op.Subscribe)
	case op.Unsubscribe != "":
		by.unsubscribe(op.Unsubscribe)
	case op.Refresh != nil:
		by.refresh(op.Refresh)
	}
}

// backend is a backend that does something to the connection.
type backend struct {
	s   *Session
	now int64
}

func (by backend) disconnect(v *authz.Verdict) {
	code, text := by.s.dialect.Closing(dialect.Terminated)
	if v.Code != 0 {
		code, text = int(v.Code), v.Text
	}
	by.s.shut(dialect.Terminated, code, text)
}

// subscribe makes a subscription, unless there is one.
func (by backend) subscribe(want *control.SubscribeThem) {
	if channel.Validate(want.Channel) != nil || by.s.subs.Find(want.Channel) >= 0 || past(by.s.host, want.Grant.ExpireAt) {
		return
	}
	if n := by.s.app.Limits.Subscriptions; n > 0 && len(by.s.subs.Rows) >= n {
		by.s.Shut(dialect.Subscriptions)
		return
	}
	ask := codec.SubscribeRequest{Channel: want.Channel}
	if want.SinceEpoch != "" {
		ask.Recover, ask.Offset, ask.Epoch = true, want.SinceOffset, want.SinceEpoch
	}
	by.s.subs.Add(subscription{name: want.Channel, flags: byServer, deadline: by.now + callTimeout})
	by.s.wake(by.now + callTimeout)
	by.s.attach(len(by.s.subs.Rows)-1, &ask, &want.Grant, false, by.now)
}

// unsubscribe ends a subscription, whoever made it.
func (by backend) unsubscribe(name string) {
	i := by.s.subs.Find(name)
	if i < 0 {
		return
	}
	waits := by.s.subs.Rows[i].id
	if by.s.subs.Rows[i].state == session.Live {
		by.s.end(i, codec.UnsubscribedByServer)
		return
	}
	by.s.remove(i)
	if waits != 0 {
		by.s.refuse(waits, dialect.Unauthorized, "the server unsubscribed it meanwhile")
	}
}

// refresh changes how long the connection lives, and tells the client, unless
// its app refreshes connections by itself.
func (by backend) refresh(said *authz.Credentials) {
	creds := *said // the operation is other connections', too
	creds.ServerRefresh = by.s.app.Centrifugo.RefreshHook != ""

	if creds.Expired || past(by.s.host, creds.ExpireAt) {
		by.s.Shut(dialect.Expired)
		return
	}
	if creds.Info != "" {
		by.s.identity.info = creds.Info
	}
	by.s.live(&creds, by.now)
	if !creds.ServerRefresh {
		by.s.push("", &codec.Refresh{Expires: creds.ExpireAt != 0, TTL: ttl(by.s.host, creds.ExpireAt)})
	}
}

// Lost says that publications of the channels for which lost is true are gone
// for good. Clients subscribe to durable ones again; what the server
// subscribed them to they get by connecting again (client protocol, 1.7).
func (s *Session) Lost(lost func(channel string) bool) {
	for i := len(s.subs.Rows) - 1; i >= 0 && s.phase != closed; i-- {
		sub := &s.subs.Rows[i]
		switch {
		case sub.state == session.Authorizing || !lost(sub.name) || !s.app.Effective(sub.name).Durable():
		case sub.has(byServer):
			s.Shut(dialect.LostPlace)
		case sub.state == session.Live:
			s.end(i, codec.UnsubscribedLost)
		default:
			s.drop(i, dialect.Unavailable, "publications were lost meanwhile, try again", 0)
		}
	}
}
