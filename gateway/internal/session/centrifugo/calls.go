package centrifugo

import (
	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/proto/authz"
)

// call is a question that is not answered yet. When that takes too long the
// command with its id, if it has one, is answered instead.
type call struct {
	number, id uint32
	deadline   int64
	then       any // what goes on with the answer
}

// callsMax bounds the questions of one connection.
const (
	callsMax     = 256
	tooManyCalls = "too many commands wait for an answer"
)

// call notes a question for command id, which has to be answered when the
// command has, and returns its number; false if there are too many.
func (s *Session) call(id uint32, then any) (number uint32, ok bool) {
	if len(s.calls) >= callsMax {
		if id != 0 {
			s.refuse(id, dialect.RateLimit, tooManyCalls)
		}
		return 0, false
	}
	s.last++
	s.calls = append(s.calls, call{number: s.last, id: id, deadline: s.due, then: then})
	s.wake(s.due)
	return s.last, true
}

// answered gives what goes on with the answer to a question, nil if nobody
// waits for it any more.
func (s *Session) answered(number uint32) any {
	for i := range s.calls {
		if s.calls[i].number == number {
			then := s.calls[i].then
			s.due = s.calls[i].deadline // of what follows, too
			if s.calls = append(s.calls[:i], s.calls[i+1:]...); len(s.calls) == 0 {
				s.calls = nil
			}
			return then
		}
	}
	return nil
}

// decide asks the authorization service, unless too much is asked already.
func (s *Session) decide(req any, id uint32, then onDecision) (asked bool) {
	number, ok := s.call(id, then)
	if ok {
		s.host.Decide(number, req)
	}
	return ok
}

// Decided is the answer to Cluster.Decide.
func (s *Session) Decided(number uint32, d authz.Decision, now int64) {
	if then, ok := s.answered(number).(onDecision); ok {
		then(&d, now)
	}
}

// Published is the answer to Cluster.Publish: why is None, TooLarge, or
// Unavailable.
func (s *Session) Published(number uint32, why dialect.Reason, _ int64) {
	if then, ok := s.answered(number).(onReceipt); ok {
		then(why)
	}
}

// PresenceCame is the answer to Cluster.Presence.
func (s *Session) PresenceCame(number uint32, m *Members, _ int64) {
	if then, ok := s.answered(number).(onMembers); ok {
		then(m)
	}
}

// HistoryCame is the answer to Cluster.History.
func (s *Session) HistoryCame(number uint32, h *Stream, _ int64) {
	if then, ok := s.answered(number).(onStream); ok {
		then(h)
	}
}
