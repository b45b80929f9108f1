package edge

import (
	"iter"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/proto/app"
)

// doorstepTime is how long a client may take to say who it is, in nanoseconds.
const doorstepTime = int64(10e9)

// Introducer is a dialect whose clients say with their first message what
// others say with their URL.
type Introducer interface {
	dialect.Dialect
	First(message []byte) (dialect.Hello, error)
}

// PusherIntroduced is Pusher for such a dialect.
func PusherIntroduced(d Introducer) Protocol {
	p := Pusher(d)
	p.birth = func(b *birth) *client {
		c := &pusherClient{}
		step := &doorstep{c: c, d: d, origin: b.head.Header("Origin"), opened: b.h.loop.Now()}
		c.client = b.client(step)
		return &c.client
	}
	return p
}

// doorstep is the life of a client before its first message.
type doorstep struct {
	c      *pusherClient
	d      Introducer
	origin string
	opened int64
}

var _ life = (*doorstep)(nil)

// Open implements life: the client speaks first.
func (s *doorstep) Open(int64) {}

// Message implements life: it gives the client its session.
func (s *doorstep) Message(payload []byte, now int64) dialect.Reason {
	hello, err := s.d.First(payload)
	if err != nil {
		s.c.h.edge.cfg.Log.Debug("a client did not say who it is", "err", err)
		s.Shut(dialect.Malformed)
		return dialect.Malformed
	}
	s.c.enter(s.d, hello, s.origin)
	s.c.sess = &s.c.session
	s.c.sess.Open(now)
	s.c.tick(now)
	return dialect.None
}

// Tick implements life.
func (s *doorstep) Tick(now int64) (next int64) {
	if now >= s.opened+doorstepTime {
		s.Shut(dialect.Inactive)
	}
	return s.opened + doorstepTime
}

// Shut implements life.
func (s *doorstep) Shut(why dialect.Reason) { s.c.Close(why) }

// Active, Attached, Lost and Gone implement life: nothing has begun.
func (s *doorstep) Active(int64)                     {}
func (s *doorstep) Attached(session.Attached, int64) {}
func (s *doorstep) Lost(func(string) bool)           {}
func (s *doorstep) Gone()                            {}

// Opened implements life.
func (s *doorstep) Opened() int64 { return s.opened }

// App implements life.
func (s *doorstep) App() *app.App { return nil }

// UserID implements life.
func (s *doorstep) UserID() string { return "" }

// Channels implements life.
func (s *doorstep) Channels() iter.Seq2[string, session.State] {
	return func(func(string, session.State) bool) {}
}
