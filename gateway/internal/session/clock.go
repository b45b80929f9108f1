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
	// pingStep is how far apart the times are at which connections are pinged.
	pingStep = second / 2
)

// Together is the time at or after at when a ping is sent that is due at: those
// of many connections go out together, so that they and their answers wake
// either side up once.
func Together(at int64) int64 {
	at += pingStep - 1
	return at - at%pingStep
}

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

// pingAt is when the client is pinged if it says nothing until then.
func (s *Session) pingAt() int64 { return Together(s.active + s.silence() + pingSlack) }

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
	case now < s.pingAt():
		return s.pingAt()
	}
	s.tell(dialect.Event{Kind: dialect.PingEvent})
	s.pinged = now
	return min(now+pongTimeout, Together(now+s.silence()+pingSlack)) // when it is silent again, if it answers at once
}
