package centrifugo

import (
	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/proto/authz"
)

const (
	second = int64(1e9)
	// staleDelay is how long a client may take to send connect.
	staleDelay = 10 * second
	// pingInterval and pongTimeout are those that Centrifugo has unless it is
	// told otherwise. Clients that see nothing for the interval and 10 s more
	// reconnect.
	pingInterval = 25 * second
	pongTimeout  = 8 * second
	// expiryDelay is how much longer than its credentials a connection or a
	// subscription lives, so that the client can bring new ones.
	expiryDelay = 25 * second
	// callTimeout is when a question is answered with error 100: clients wait
	// 5 s, and then reconnect.
	callTimeout = 4500 * int64(1e6)
	// retryRefresh is when the authorization service is asked again whether a
	// connection may live on, if it could not tell.
	retryRefresh = 60 * second
	// rateWindow is the time over which the rate of commands is averaged.
	rateWindow = 10 * second
	// ttlMax is the longest life that clients can count: a timer of a browser
	// has 31 bits of milliseconds.
	ttlMax = 1<<31/1000 - 1
)

// clock is the times of a session; 0 is never, unless said otherwise.
type clock struct {
	opened   int64
	active   int64
	pingAt   int64 // next ping
	pinged   int64 // since when a pong is due
	expireAt int64 // end of the credentials
	wake     int64 // when Tick was asked for last
}

// firstPing scatters the first pings over the second half of an interval.
func firstPing(now int64, random uint64) int64 {
	const half = pingInterval / 2
	return now + half + int64(random%uint64(half))
}

// Active notes that the client was heard at the time now.
func (s *Session) Active(now int64) { s.clock.active = max(s.clock.active, now) }

// pong: one that was not asked for is no command (client protocol, 1.3).
func (s *Session) pong() {
	if s.clock.pinged == 0 {
		s.bad("a pong without a ping")
		return
	}
	s.clock.pinged = 0
}

// Tick does what is due and returns when it wants to be called again, 0 for
// never.
func (s *Session) Tick(now int64) (next int64) {
	for _, due := range [...]func(now int64) int64{s.tickStart, s.tickPing, s.tickExpiry, s.tickSubscriptions, s.tickCalls} {
		if s.phase == closed || s.app == nil {
			return 0
		}
		if at := due(now); at > 0 && (next == 0 || at < next) {
			next = at
		}
	}
	if s.phase == closed {
		return 0
	}
	s.clock.wake = next
	return next
}

// wake has Tick called at the time at, which may be before the one that it
// asked for.
func (s *Session) wake(at int64) {
	if s.phase != closed && (s.clock.wake == 0 || at < s.clock.wake) {
		s.clock.wake = at
		s.host.Wake(at)
	}
}

// tickStart closes those that never connect, and answers a connect that takes
// too long.
func (s *Session) tickStart(now int64) int64 {
	at := s.clock.opened + staleDelay
	switch s.phase {
	case connected:
		return 0
	case connecting:
		if at = s.connect.deadline; now < at {
			return at
		}
		id := s.connect.id
		s.fail(func() { s.refuse(id, dialect.Unavailable, "nobody answered in time, try again") })
		at = now + staleDelay
	}
	if now >= at {
		s.Shut(dialect.AuthTimeout)
	}
	return at
}

// tickPing pings those that are connected, whatever they say meanwhile.
func (s *Session) tickPing(now int64) int64 {
	switch {
	case s.phase != connected:
		return 0
	case s.clock.pinged > 0:
		if now >= s.clock.pinged+pongTimeout {
			s.Shut(dialect.NoPong)
		}
		return s.clock.pinged + pongTimeout
	case now >= s.clock.pingAt:
		s.say(s.dialect.AppendPing)
		s.clock.pinged, s.clock.pingAt = now, now+pingInterval
		return now + pongTimeout
	}
	return s.clock.pingAt
}

// after is the loop time of a Unix time, at least now; 0 is never.
func (s *Session) after(unix, now int64) int64 {
	if unix == 0 {
		return 0
	}
	return now + max(0, unix-s.host.Unix())*second
}

// ttl is what is left until a Unix time, in seconds.
func (s *Session) ttl(unix int64) uint32 { return uint32(min(max(0, unix-s.host.Unix()), ttlMax)) }

func (s *Session) past(unix int64) bool { return unix != 0 && unix <= s.host.Unix() }

// tickExpiry ends the connection some time after its credentials, or asks for
// more time.
func (s *Session) tickExpiry(now int64) int64 {
	at := s.clock.expireAt
	switch {
	case at == 0 || s.phase != connected:
		return 0
	case s.identity.refresher == server && now >= at:
		s.clock.expireAt = now + retryRefresh // unless there is an answer
		s.due = now + callTimeout
		s.decide(&authz.Refresh{Client: s.about()}, 0, s.refreshedByServer)
		return s.clock.expireAt
	case s.identity.refresher == server:
		return at
	case now >= at+expiryDelay:
		s.Shut(dialect.Expired)
		return 0
	}
	return at + expiryDelay
}

// tickSubscriptions answers those that take too long and ends those that have
// expired. Centrifugo makes the client subscribe again, or connect again if it
// was the server who subscribed it.
func (s *Session) tickSubscriptions(now int64) (next int64) {
	for i := len(s.subs.Rows) - 1; i >= 0 && s.phase != closed; i-- {
		if i >= len(s.subs.Rows) { // ending one may have ended others
			continue
		}
		sub := &s.subs.Rows[i]
		at := sub.deadline
		if sub.state == session.Live {
			at = sub.end()
		}
		switch {
		case at == 0:
		case now < at:
			if next == 0 || at < next {
				next = at
			}
		case sub.state != session.Live:
			s.drop(i, dialect.Unavailable, "the subscription took too long, try again", now)
		case sub.has(refreshes):
			sub.expireAt = now + retryRefresh // unless there is an answer
			s.refreshSubscription(sub.name, now)
			if next == 0 || now+retryRefresh < next {
				next = now + retryRefresh
			}
		case sub.has(byServer):
			s.Shut(dialect.SubscriptionExpired)
		default:
			s.end(i, codec.UnsubscribedExpired)
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

func (s *Session) tickCalls(now int64) (next int64) {
	for i := len(s.calls) - 1; i >= 0; i-- {
		if i >= len(s.calls) { // answering may have ended others
			continue
		}
		c := s.calls[i]
		if now < c.deadline {
			if next == 0 || c.deadline < next {
				next = c.deadline
			}
			continue
		}
		s.calls = append(s.calls[:i], s.calls[i+1:]...)
		if c.id != 0 {
			s.refuse(c.id, dialect.Unavailable, "nobody answered in time, try again")
		}
	}
	return next
}
