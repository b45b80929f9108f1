package centrifugo

import (
	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/proto/authz"
)

// upkeep is what has to be done to a session because of the time that it is.
// Each part returns when it wants to be looked at again, 0 for never.
type upkeep struct {
	s   *Session
	now int64
}

// start closes those that never connect, and answers a connect that takes
// too long.
func (u upkeep) start() int64 {
	at := u.s.clock.opened + staleDelay
	switch u.s.phase {
	case connected:
		return 0
	case connecting:
		if at = u.s.connect.deadline; u.now < at {
			return at
		}
		u.s.connect.fail(dialect.Unavailable, errorOf(dialect.Unavailable, "nobody answered in time, try again"))
		at = u.now + staleDelay
	}
	if u.now >= at {
		u.s.Shut(dialect.AuthTimeout)
	}
	return at
}

// ping pings those that are connected, whatever they say meanwhile. Those that
// only listen answer nothing, but their WebSockets do.
func (u upkeep) ping() int64 {
	clock, listens := &u.s.clock, u.s.dialect.Unidirectional()
	interval, pongTimeout := int64(u.s.app.Centrifugo.PingInterval), int64(u.s.app.Centrifugo.PongTimeout)
	if listens && clock.active > clock.pinged {
		clock.pinged = 0
	}
	switch {
	case u.s.phase != connected:
		return 0
	case clock.pinged > 0:
		at := clock.pongBy(pongTimeout)
		if u.now >= at {
			u.s.Shut(dialect.NoPong)
		}
		return at
	case u.now < clock.pingAt:
		return clock.pingAt
	}
	u.s.say(u.s.dialect.AppendPing)
	if clock.pingAt += interval; clock.pingAt <= u.now { // it has been late, by much
		clock.pingAt = session.Together(u.now + interval)
	}
	switch {
	case listens && !u.s.opt.Frames:
		return clock.pingAt
	case listens:
		u.s.host.Probe()
	}
	clock.pinged = u.now
	return clock.pongBy(pongTimeout)
}

// expiry ends the connection some time after its credentials, or asks for
// more time.
func (u upkeep) expiry() int64 {
	at := u.s.clock.expireAt
	switch {
	case at == 0 || u.s.phase != connected:
		return 0
	case u.s.identity.refresher == server && u.now >= at:
		u.s.clock.expireAt = u.now + retryRefresh // unless there is an answer
		u.s.due = u.now + callTimeout
		u.s.decide(&authz.Refresh{Client: u.s.about()}, 0, command{s: u.s}.refreshedByServer)
		return u.s.clock.expireAt
	case u.s.identity.refresher == server:
		return at
	case u.now >= at+expiryDelay:
		u.s.Shut(dialect.Expired)
		return 0
	}
	return at + expiryDelay
}

// subscriptions answers those that take too long and ends those that have
// expired. Centrifugo makes the client subscribe again, or connect again if it
// was the server who subscribed it.
func (u upkeep) subscriptions() (next int64) {
	for i := len(u.s.subs.Rows) - 1; i >= 0 && u.s.phase != closed; i-- {
		if i >= len(u.s.subs.Rows) { // ending one may have ended others
			continue
		}
		sub := &u.s.subs.Rows[i]
		at := sub.deadline
		if sub.state == session.Live {
			at = sub.end()
		}
		switch {
		case at == 0:
		case u.now < at:
			if next == 0 || at < next {
				next = at
			}
		case sub.state != session.Live:
			u.s.drop(i, dialect.Unavailable, "the subscription took too long, try again", u.now)
		case sub.has(refreshes):
			sub.expireAt = u.now + retryRefresh // unless there is an answer
			command{s: u.s}.refreshSubscription(sub.name, u.now)
			if next == 0 || u.now+retryRefresh < next {
				next = u.now + retryRefresh
			}
		case sub.has(byServer):
			u.s.Shut(dialect.SubscriptionExpired)
		default:
			u.s.end(i, codec.UnsubscribedExpired)
		}
	}
	return next
}

// end is when the time of a live subscription is over.
func (sub *subscription) end() int64 {
	if sub.expireAt == 0 || sub.has(refreshes) {
		return sub.expireAt
	}
	return sub.expireAt + expiryDelay
}

// calls answers the commands whose questions were not answered in time.
func (u upkeep) calls() (next int64) {
	for i := len(u.s.calls) - 1; i >= 0; i-- {
		if i >= len(u.s.calls) { // answering may have ended others
			continue
		}
		c := u.s.calls[i]
		if u.now < c.deadline {
			if next == 0 || c.deadline < next {
				next = c.deadline
			}
			continue
		}
		u.s.calls = append(u.s.calls[:i], u.s.calls[i+1:]...)
		if c.id != 0 {
			u.s.refuse(c.id, dialect.Unavailable, "nobody answered in time, try again")
		}
	}
	return next
}
