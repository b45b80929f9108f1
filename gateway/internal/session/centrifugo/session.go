package centrifugo

import (
	"bytes"
	"cmp"
	"iter"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/gateway/internal/session/table"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
)

// phase is how far a connection has come.
type phase uint8

const (
	fresh      phase = iota // waits for the connect command
	connecting              // it is being decided, or its subscriptions made
	connected
	failed // connect was answered with an error: no further command is taken
	closed
)

// Session is the state of one client. It belongs to the loop of its connection
// and is not safe for use by several goroutines.
//
// All times are nanoseconds of the loop's monotonic clock, unless they are Unix
// seconds. Once the session has asked its host to close, every further call
// does nothing.
type Session struct {
	// immutable after New
	voice
	app *app.App
	opt Options

	phase    phase
	identity identity
	clock    clock

	subs subscriptions

	connect *connect // until connected
	calls   []call   // questions that are not answered yet
	last    uint32   // number of the latest
	due     int64    // when the command that is being done has to be answered

	messages table.Rate // of all commands
}

// identity is who the connection acts as.
type identity struct {
	user   string
	info   string  // JSON, or ""
	unseen *unseen // nil if there is nothing: most have none of it
	// refresher is who asks for more time when the credentials expire.
	refresher refresher
}

// unseen is what the client itself does not see of its connection.
type unseen struct {
	meta     string // JSON, or ""
	claims   string // of the token, where a condition of the app looks at them
	emulated map[string]string
}

// behind gives what is unseen.
func (i *identity) behind() unseen {
	if i.unseen == nil {
		return unseen{}
	}
	return *i.unseen
}

// hide sets what is unseen.
func (i *identity) hide(u unseen) {
	if i.unseen = nil; u.meta != "" || u.claims != "" || u.emulated != nil {
		i.unseen = &u
	}
}

type refresher uint8

const (
	nobody refresher = iota
	client
	server
)

// Options are what a connection is born with.
type Options struct {
	// Refuse is why the connection must be refused, or nil.
	Refuse *dialect.Refusal
	// Transport is "websocket" or another of authz.Client, Headers what hooks
	// may see of the request.
	Transport string
	Headers   map[string]string
	// Random differs between connections: it scatters their pings.
	Random uint64
	Now    int64
	// Frames says that the transport has pings of its own, and says why it closes:
	// a WebSocket.
	Frames bool
}

// Version is what connections are told of the server.
const Version = "carillon"

// New returns the session of a connection to an app. It says nothing to the
// client before Open. a is nil when none was found.
func New(d *codec.Dialect, a *app.App, opt Options, host Host) *Session {
	s := &Session{}
	s.Init(d, a, opt, host)
	return s
}

// Init is New for a session that is part of something else.
func (s *Session) Init(d *codec.Dialect, a *app.App, opt Options, host Host) {
	*s = Session{voice: voice{dialect: d, host: host}, app: a, opt: opt, clock: clock{opened: opt.Now, active: opt.Now}}
	if a == nil && opt.Refuse == nil {
		s.opt.Refuse = &dialect.Refusal{Reason: dialect.AppUnknown}
	}
}

// Open begins, or refuses and closes.
func (s *Session) Open(now int64) {
	if r := s.opt.Refuse; r != nil {
		code, text := s.dialect.Closing(r.Reason)
		s.shut(r.Reason, code, cmp.Or(r.Message, text))
		return
	}
	s.clock.opened, s.clock.active = now, now
}

// Shut closes with the protocol's code for why.
func (s *Session) Shut(why dialect.Reason) {
	code, text := s.dialect.Closing(why)
	s.shut(why, code, text)
}

// shut closes. A reason that is JSON would be misunderstood: see CloseReason.
func (s *Session) shut(why dialect.Reason, code int, text string) {
	if s.phase == closed {
		return
	}
	text = codec.CloseReason(text)
	if s.dialect.Unidirectional() && s.opt.Frames {
		s.push("", codec.NewDisconnect(code, text)) // other transports tell it by themselves
	}
	s.phase, s.silent = closed, true
	s.host.Disconnect(why, code, text)
}

// Gone ends a session whose transport is gone. It asks the host for nothing:
// whoever calls it cleans up what the session had attached.
func (s *Session) Gone() {
	s.phase, s.silent = closed, true
	s.subs, s.calls, s.connect = subscriptions{}, nil, nil
}

// Opened is when the connection began.
func (s *Session) Opened() int64 { return s.clock.opened }

// App is the client's app, nil if there is none.
func (s *Session) App() *app.App { return s.app }

// UserID is the user that the connection acts as, "" if that is nobody.
func (s *Session) UserID() string { return s.identity.user }

// Channels yields the channels of the session and how far each subscription
// has come. The session must not be called meanwhile.
func (s *Session) Channels() iter.Seq2[string, session.State] {
	return func(yield func(string, session.State) bool) {
		for i := range s.subs.Rows {
			if !yield(s.subs.Rows[i].name, s.subs.Rows[i].state) {
				return
			}
		}
	}
}

// Message handles one message of the client, which may hold several commands.
// Clients that only listen have one thing to say: what follows is ignored, as
// long as it is not too much.
func (s *Session) Message(payload []byte, now int64) dialect.Reason {
	s.Active(now)
	if s.dialect.Unidirectional() && s.phase != fresh && s.phase != closed {
		return cmp.Or(s.admit(now), dialect.Ignored)
	}
	waiting := s.connect.waits()
	for cmd, err := range s.dialect.Commands(payload) {
		if s.phase == closed {
			break
		}
		if err != nil {
			s.shut(dialect.Malformed, 3501, "bad request: "+err.Error())
			return dialect.Malformed
		}
		if cmd.Body == nil {
			s.pong(now)
			continue
		}
		if why := s.admit(now); why != dialect.None {
			return why
		}
		s.due = now + callTimeout
		s.take(&cmd, now)
	}
	if s.connect.waits() > waiting {
		s.connect.holds(len(payload))
	}
	return dialect.None
}

// admit counts a command, and closes if they are too many.
func (s *Session) admit(now int64) dialect.Reason {
	if s.messages.Take(now, s.app.Limits.MessagesPerSecond, rateWindow) {
		return dialect.None
	}
	s.Shut(dialect.Flood)
	return dialect.Flood
}

// take does what a command asks for, in the order in which they came: what
// comes while the connection is being decided waits for that.
func (s *Session) take(cmd *codec.Command, now int64) {
	body, isConnect := cmd.Body.(*codec.ConnectRequest)
	switch {
	case s.phase == fresh && isConnect:
		s.begin(cmd.ID, body)
	case s.phase == fresh:
		s.bad("the first command must be connect")
	case isConnect:
		s.bad("the connection has sent connect already")
	case s.phase == failed:
		s.bad("connect was refused, no further command is taken")
	case s.phase == connecting:
		s.connect.postpone(cmd)
	default:
		s.do(cmd, now)
	}
}

// bad closes because of a command that makes no sense.
func (s *Session) bad(text string) {
	s.host.Refused(dialect.Malformed)
	s.shut(dialect.Malformed, 3501, "bad request: "+text)
}

func reasonOf(d *authz.Decision) dialect.Reason {
	if d.Temporary {
		return dialect.Unavailable
	}
	return dialect.ReasonOf(d.Reason)
}

// about is the connection as the authorization service is told of it.
func (s *Session) about() authz.Client {
	unseen := s.identity.behind()
	c := authz.Client{
		App: s.app.ID, ID: s.host.SocketID(), User: s.identity.user, Transport: s.opt.Transport, Protocol: "centrifugo", Encoding: "json",
		Info: s.identity.info, Meta: unseen.meta, Headers: s.opt.Headers, Emulated: unseen.emulated,
	}
	if s.dialect.Binary() {
		c.Encoding = "binary"
	}
	return c
}

// info is what others are told of the connection, as JSON.
func (s *Session) info(chanInfo string) []byte {
	return codec.AppendClientInfo(nil, &codec.ClientInfo{
		User: s.identity.user, Client: s.host.SocketID(), ConnInfo: s.identity.info, ChanInfo: chanInfo,
	})
}

// kept is a payload that outlives the message it came in.
func kept(data []byte) []byte { return bytes.Clone(data) }
