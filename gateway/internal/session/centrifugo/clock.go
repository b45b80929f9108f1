package centrifugo

import "github.com/carillon-rt/carillon/gateway/internal/session"

const (
	second = int64(1e9)
	// staleDelay is how long a client may take to send connect.
	staleDelay = 10 * second
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
func firstPing(now, interval int64, random uint64) int64 {
	half := interval / 2
	return session.Together(now + half + int64(random%uint64(half)))
}

// pongBy is until when a pong is waited for.
func (c *clock) pongBy(timeout int64) int64 { return session.Together(c.pinged + timeout) }

// afterMax keeps times of the loop, which are in nanoseconds, within their
// bounds: 100 years.
const afterMax = 100 * 365 * 24 * 3600

// after is the loop time of a Unix time, at least now; 0 is never.
func after(t Transport, unix, now int64) int64 {
	if unix == 0 {
		return 0
	}
	return now + min(max(0, unix-t.Unix()), afterMax)*second
}

// ttl is what is left until a Unix time, in seconds.
func ttl(t Transport, unix int64) uint32 { return uint32(min(max(0, unix-t.Unix()), ttlMax)) }

// past says whether a Unix time is over; 0 is never.
func past(t Transport, unix int64) bool { return unix != 0 && unix <= t.Unix() }

// Active notes that the client was heard at the time now.
func (s *Session) Active(now int64) { s.clock.active = max(s.clock.active, now) }

// pong: one that was not asked for is no command (client protocol, 1.3).
func (s *Session) pong(now int64) {
	if s.clock.pinged == 0 {
		s.bad("a pong without a ping")
		return
	}
	waits := s.clock.wake == s.clock.pongBy(int64(s.app.Centrifugo.PongTimeout))
	s.clock.pinged = 0
	if waits { // what is due next is seen now, with all of it at hand
		if at := s.Tick(now); at > 0 {
			s.host.Wake(at)
		}
	}
}

// Tick does what is due and returns when it wants to be called again, 0 for
// never.
func (s *Session) Tick(now int64) (next int64) {
	u := upkeep{s, now}
	for _, due := range [...]func() int64{u.start, u.ping, u.expiry, u.subscriptions, u.calls} {
		if s.phase == closed || s.app == nil {
			return 0
		}
		if at := due(); at > 0 && (next == 0 || at < next) {
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
