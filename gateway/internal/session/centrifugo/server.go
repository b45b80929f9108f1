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
	switch {
	case s.phase == closed:
	case op.Disconnect != nil:
		s.disconnect(op.Disconnect)
	case s.phase != connected: // no subscriptions, no lifetime: it is on its way
	case op.Subscribe != nil:
		s.serverSubscribes(op.Subscribe, now)
	case op.Unsubscribe != "":
		if i := s.subs.Find(op.Unsubscribe); i >= 0 {
			waits := s.subs.Rows[i].id
			if s.subs.Rows[i].state == session.Live {
				s.end(i, codec.UnsubscribedByServer)
				return
			}
			s.remove(i)
			if waits != 0 {
				s.refuse(waits, dialect.Unauthorized, "the server unsubscribed it meanwhile")
			}
		}
	case op.Refresh != nil:
		s.serverRefreshes(op.Refresh, now)
	}
}

func (s *Session) disconnect(v *authz.Verdict) {
	code, text := s.dialect.Closing(dialect.Terminated)
	if v.Code != 0 {
		code, text = int(v.Code), v.Text
	}
	s.shut(dialect.Terminated, code, text)
}

// serverSubscribes makes a subscription, unless there is one.
func (s *Session) serverSubscribes(want *control.SubscribeThem, now int64) {
	if channel.Validate(want.Channel) != nil || s.subs.Find(want.Channel) >= 0 || s.past(want.Grant.ExpireAt) {
		return
	}
	if n := s.app.Limits.Subscriptions; n > 0 && len(s.subs.Rows) >= n {
		s.Shut(dialect.Subscriptions)
		return
	}
	ask := codec.SubscribeRequest{Channel: want.Channel}
	if want.SinceEpoch != "" {
		ask.Recover, ask.Offset, ask.Epoch = true, want.SinceOffset, want.SinceEpoch
	}
	s.subs.Add(subscription{name: want.Channel, flags: byServer, deadline: now + callTimeout})
	s.wake(now + callTimeout)
	s.attach(len(s.subs.Rows)-1, &ask, &want.Grant, false, now)
}

// serverRefreshes changes how long the connection lives, and tells the client.
func (s *Session) serverRefreshes(creds *authz.Credentials, now int64) {
	if creds.Expired || s.past(creds.ExpireAt) {
		s.Shut(dialect.Expired)
		return
	}
	if creds.Info != "" {
		s.identity.info = creds.Info
	}
	s.live(creds, now)
	if s.identity.refresher != server {
		s.push("", &codec.Refresh{Expires: creds.ExpireAt != 0, TTL: s.ttl(creds.ExpireAt)})
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
