package session

import (
	"github.com/carillon-rt/carillon/gateway/internal/dialect"
)

const (
	second = int64(1e9)
	// pongTimeout is how long a client may take to answer a ping (Pusher
	// protocol, "ping and pong": 30 s).
	pongTimeout = 30 * second
	// pingSlack is how much longer than the activity timeout the session
	// waits before it pings: an idle client pings first, and one exchange is
	// enough for both sides.
	pingSlack = 5 * second
	// inactivityMax closes clients that know no ping (close code 4202).
	inactivityMax = 24 * 3600 * second
	// floodWindow is the time over which the rate of messages is averaged.
	floodWindow = 10 * second
)

// silence is the activity timeout that the client is told.
func (s *Session) silence() int64 { return int64(s.app.ActivityTimeout) }

// Active notes that the client was heard at the time now: any frame counts,
// control frames too.
func (s *Session) Active(now int64) { s.active = max(s.active, now) }

// Tick does what is due: pings a silent client, closes one that does not
// answer or did not authorize in time. It returns when it wants to be called
// again, 0 for never.
func (s *Session) Tick(now int64) (next int64) {
	if s.flags.has(closed) || s.app == nil {
		return 0
	}
	next = s.idle(now)
	if limit := int64(s.app.AuthorizationTimeout); limit > 0 && !s.flags.has(vouched|closed) {
		deadline := s.opened + limit
		if now >= deadline {
			s.Shut(dialect.AuthTimeout)
		}
		next = min(next, deadline)
	}
	if s.flags.has(closed) {
		return 0
	}
	return next
}

// idle looks after silence and returns when it is to be looked after next.
func (s *Session) idle(now int64) int64 {
	switch {
	case s.flags.has(pingless):
		if now >= s.active+inactivityMax {
			s.Shut(dialect.Inactive)
		}
		return s.active + inactivityMax
	case s.pinged > s.active:
		if now >= s.pinged+pongTimeout {
			s.Shut(dialect.NoPong)
		}
		return s.pinged + pongTimeout
	case now < s.active+s.silence()+pingSlack:
		return s.active + s.silence() + pingSlack
	}
	s.tell(dialect.Event{Kind: dialect.PingEvent})
	s.pinged = now
	return now + min(pongTimeout, s.silence()+pingSlack) // when it is silent again, if it answers at once
}
