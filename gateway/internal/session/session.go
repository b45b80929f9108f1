package session

import (
	"fmt"
	"iter"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/session/table"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
)

// Session is the state of one client. It belongs to the loop of its
// connection and is not safe for use by several goroutines.
//
// All times are nanoseconds of the loop's monotonic clock. Once the session
// has asked its host to close, every further call does nothing.
type Session struct {
	// immutable after New
	dialect dialect.Dialect
	host    Host
	app     *app.App
	key     string // the app key that the client came with

	user     *authz.User // nil until signed in
	userData string      // of the sign-in that is being decided

	subs table.Table[subscription]

	opened   int64
	active   int64      // when the client was last heard
	pinged   int64      // when it was last asked whether it is there, 0 if never
	messages table.Rate // of all messages
	events   table.Rate // of client events

	lastID    uint32 // of the latest authorization
	malformed uint8  // messages so far
	refuse    dialect.Reason
	flags     flags
}

type flags uint8

const (
	closed     flags = 1 << iota
	pingless         // see dialect.Hello
	vouched          // has signed in or joined a protected channel
	signing          // a sign-in is being decided
	watchAsked       // Host.SetUser was given users to watch
)

func (f flags) has(bit flags) bool { return f&bit != 0 }

// Options are what a connection is born with.
type Options struct {
	Origin string // header, "" if absent
	Now    int64
	// OverQuota: the app has too many connections already.
	OverQuota bool
}

// New returns the session of a connection that came with hello. It says
// nothing to the client before Open. a is nil when the key is unknown.
func New(d dialect.Dialect, a *app.App, hello dialect.Hello, opt Options, host Host) *Session {
	s := &Session{}
	s.Init(d, a, hello, opt, host)
	return s
}

// Init is New for a session that is part of something else: one object less
// for each connection.
func (s *Session) Init(d dialect.Dialect, a *app.App, hello dialect.Hello, opt Options, host Host) {
	*s = Session{
		dialect: d, host: host, app: a, key: hello.Key,
		opened: opt.Now, active: opt.Now, refuse: refusal(a, &hello, &opt),
	}
	if hello.Pingless {
		s.flags |= pingless
	}
}

func refusal(a *app.App, hello *dialect.Hello, opt *Options) dialect.Reason {
	if hello.Refuse != dialect.None {
		return hello.Refuse
	}
	if a == nil {
		return dialect.AppUnknown
	}
	_, usable := a.Key(hello.Key)
	switch {
	case a.Disabled, !usable:
		return dialect.AppDisabled
	case !a.MatchOrigin(opt.Origin):
		return dialect.BadOrigin
	case opt.OverQuota:
		return dialect.OverQuota
	}
	return dialect.None
}

// Open greets the client, or refuses and closes.
func (s *Session) Open(now int64) {
	if s.flags.has(closed) {
		return
	}
	if s.refuse != dialect.None {
		s.Shut(s.refuse)
		return
	}
	s.opened, s.active = now, now
	s.tell(dialect.Event{
		Kind: dialect.Established, SocketID: s.host.SocketID(),
		ActivitySeconds: max(1, int(s.silence()/second)),
	})
	s.host.Connected()
}

// Shut tells the client why and closes.
func (s *Session) Shut(why dialect.Reason) { s.shut(why, "") }

func (s *Session) shut(why dialect.Reason, message string) {
	if s.flags.has(closed) {
		return
	}
	s.tell(dialect.Event{Kind: dialect.Error, Reason: why, Message: message})
	s.flags |= closed
	s.host.Close(why)
}

// Gone ends a session whose transport is gone. It asks the host for nothing:
// whoever calls it cleans up what the session had attached.
func (s *Session) Gone() {
	s.flags |= closed
	s.subs = table.Table[subscription]{}
}

// Opened is when the client was greeted.
func (s *Session) Opened() int64 { return s.opened }

// User is the signed-in user, nil if there is none.
func (s *Session) User() *authz.User { return s.user }

// UserID is the id of the signed-in user, "" if there is none.
func (s *Session) UserID() string {
	if s.user == nil {
		return ""
	}
	return s.user.ID
}

// Lost says that publications of the channels for which lost is true are gone
// for good: subscribers of durable ones come back for a fresh start.
func (s *Session) Lost(lost func(channel string) bool) {
	for i := range s.subs.Rows {
		if name := s.subs.Rows[i].name; lost(name) && s.app.Effective(name).Durable() {
			s.Shut(dialect.Reconnect)
			return
		}
	}
}

// SocketID is the id of the connection.
func (s *Session) SocketID() string { return s.host.SocketID() }

// App is the client's app, nil if its key is unknown.
func (s *Session) App() *app.App { return s.app }

// Subscriptions is the number of subscriptions, pending ones included.
func (s *Session) Subscriptions() int { return len(s.subs.Rows) }

// Channels yields the channels of the session and how far each subscription
// has come. The session must not be called meanwhile.
func (s *Session) Channels() iter.Seq2[string, State] {
	return func(yield func(string, State) bool) {
		for i := range s.subs.Rows {
			if !yield(s.subs.Rows[i].name, s.subs.Rows[i].state) {
				return
			}
		}
	}
}

func (s *Session) tell(ev dialect.Event) { s.dialect.Encode(ev, s.host) }

// refused tells the client that its request was refused, and gives why back.
func (s *Session) refused(why dialect.Reason, format string, args ...any) dialect.Reason {
	s.tell(dialect.Event{Kind: dialect.Error, Reason: why, Message: fmt.Sprintf(format, args...)})
	return why
}
