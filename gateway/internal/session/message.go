package session

import (
	"bytes"
	"errors"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/proto/message"
)

// malformedMax is how many messages that are none of the protocol a client
// may send before it is closed.
const malformedMax = 10

// Message handles one text message of the client. It returns why the message
// was refused or ignored, None if it was not; the client was told already.
func (s *Session) Message(payload []byte, now int64) dialect.Reason {
	if s.flags.has(closed) {
		return dialect.None
	}
	s.Active(now)
	if !s.messages.Take(now, s.app.Limits.MessagesPerSecond, floodWindow) {
		s.Shut(dialect.Flood)
		return dialect.Flood
	}
	cmd, err := s.dialect.Decode(payload)
	if err != nil {
		return s.undecodable(err)
	}
	return s.do(&cmd, now)
}

func (s *Session) undecodable(err error) dialect.Reason {
	var r *dialect.Refusal
	if errors.As(err, &r) {
		return s.refused(r.Reason, "%s", r.Message)
	}
	if s.malformed++; s.malformed > malformedMax {
		s.shut(dialect.Malformed, err.Error())
		return dialect.Malformed
	}
	return s.refused(dialect.Malformed, "%s", err)
}

func (s *Session) do(cmd *dialect.Command, now int64) dialect.Reason {
	switch cmd.Kind {
	case dialect.Subscribe:
		return s.subscribe(cmd)
	case dialect.Unsubscribe:
		return s.unsubscribe(cmd.Channel)
	case dialect.Publish:
		return s.publish(cmd, now)
	case dialect.SignIn:
		return s.signIn(cmd)
	case dialect.Ping:
		s.tell(dialect.Event{Kind: dialect.PongEvent})
		return dialect.None
	case dialect.Pong:
		return dialect.None
	}
	return dialect.Ignored
}

// publish sends a client event on, under the conditions of the Pusher
// protocol, "client events".
func (s *Session) publish(cmd *dialect.Command, now int64) dialect.Reason {
	limits := &s.app.Limits
	if !s.app.ClientEvents {
		return s.refused(dialect.ClientEvents, "client events are not enabled for this app")
	}
	if n := limits.EventNameBytes; n > 0 && len(cmd.Event) > n {
		return s.refused(dialect.BadEvent, "the event name has %d bytes, at most %d are allowed", len(cmd.Event), n)
	}
	i := s.subs.Find(cmd.Channel)
	if i < 0 || s.subs.Rows[i].state != Live {
		return s.refused(dialect.NotSubscribed, "client event on channel %s rejected: the connection is not subscribed to it", cmd.Channel)
	}
	sub := &s.subs.Rows[i]
	if !sub.traits.has(private) || sub.traits.has(encrypted|userOwn) {
		return s.refused(dialect.ClientEvents,
			"client event on channel %s rejected: only private and presence channels that are not encrypted take client events", cmd.Channel)
	}
	if n := limits.EventBytes; n > 0 && len(cmd.Data) > n {
		return s.refused(dialect.TooLarge, "the data of the client event has %d bytes, at most %d are allowed", len(cmd.Data), n)
	}
	if !s.events.Take(now, limits.ClientEventsPerSecond, second) {
		return s.refused(dialect.RateLimit, "client event rejected: at most %d a second are allowed", limits.ClientEventsPerSecond)
	}
	pub := &message.Publication{
		Kind: message.ClientEvent, App: s.app.ID, Channel: sub.name, Event: cmd.Event,
		Data: bytes.Clone(cmd.Data), Exclude: s.host.SocketID(),
	}
	if sub.member != nil {
		pub.UserID = *sub.member
	}
	s.host.Publish(pub)
	return dialect.None
}
