package session_test

import (
	"testing"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/dialect/pusher"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/message"
)

// mute is a host that does nothing.
type mute struct{ sent int }

func (m *mute) SocketID() string                                 { return "1.2" }
func (m *mute) Send([]byte)                                      { m.sent++ }
func (m *mute) Close(dialect.Reason)                             {}
func (m *mute) Authorize(uint32, *authz.Subscribe, *resume.Wish) {}
func (m *mute) SignIn(*authz.SignIn)                             {}
func (m *mute) Attach(string, session.Attach)                    {}
func (m *mute) Detach(string)                                    {}
func (m *mute) Publish(*message.Publication)                     {}
func (m *mute) Connected()                                       {}
func (m *mute) Unsubscribed(string, uint32, string)              {}
func (m *mute) SetUser(*authz.User, []string)                    {}

const subscription = `{"event":"pusher:subscribe","data":{"auth":"","channel":"my-channel"}}`

// connect is the session's part of a connection with one public subscription:
// greeting, subscribe, success.
func connect(p *pusher.Pusher, a *app.App, host session.Host, subscribe []byte) {
	hello, _ := p.Hello(&httphead.Head{Path: "/app/key", RawQuery: "protocol=7&client=js&version=8.6.0&flash=false"})
	s := session.New(p, a, hello, session.Options{}, host)
	s.Open(0)
	s.Message(subscribe, 1)
	s.Attached(session.Attached{Channel: "my-channel"}, 2)
}

func BenchmarkConnect(b *testing.B) {
	p, a, host, subscribe := pusher.New(""), testApp(), &mute{}, []byte(subscription)
	b.ReportAllocs()
	for b.Loop() {
		connect(p, &a, host, subscribe)
	}
	if host.sent != 2*b.N {
		b.Fatalf("%d messages for %d connections", host.sent, b.N)
	}
}

// silent is a session that is asked every 25 s whether it is still there.
func silent(now int64) *session.Session {
	a := testApp()
	a.ActivityTimeout = 20 * time.Second // the session waits 5 s longer
	s := session.New(pusher.New(""), &a, dialect.Hello{Key: "key"}, session.Options{Now: now}, &mute{})
	s.Open(now)
	return s
}

const pong = `{"event":"pusher:pong","data":{}}`

// BenchmarkKeepAlive is what an idle client costs every 25 s in its session:
// the tick that pings, its pong, the tick after.
func BenchmarkKeepAlive(b *testing.B) {
	now := int64(0)
	s, answer := silent(now), []byte(pong)
	b.ReportAllocs()
	for b.Loop() {
		now += 25e9
		s.Tick(now)
		now++
		s.Message(answer, now)
		s.Tick(now)
	}
}

// TestAllocations: a gateway with a million idle clients is asked 40,000
// times a second, and greets as many when another one has gone.
func TestAllocations(t *testing.T) {
	if withRaceDetector {
		t.Skip("pools, also that of encoding/json, lose some at random with the race detector")
	}
	p, a, host, subscribe := pusher.New(""), testApp(), &mute{}, []byte(subscription)
	if got := testing.AllocsPerRun(100, func() { connect(p, &a, host, subscribe) }); got > 4 {
		t.Errorf("%v allocations to connect and subscribe, want 3: the session, its list, the name", got)
	}
	now := int64(0)
	s, answer := silent(now), []byte(pong)
	answered := func() {
		now++
		s.Message(answer, now)
		if next := s.Tick(now); next != session.Together(now+25e9) {
			t.Fatalf("after the pong the next tick is in %d ns", next-now)
		}
	}
	if got := testing.AllocsPerRun(100, answered); got != 0 {
		t.Errorf("%v allocations for a pong, want none", got)
	}
	if got := testing.AllocsPerRun(100, func() {
		now = session.Together(now + 25e9)
		if next := s.Tick(now); next != now+25e9 { // when it is silent again, unless it does not answer
			t.Fatalf("after the ping the next tick is in %d ns", next-now)
		}
		answered()
	}); got != 0 {
		t.Errorf("%v allocations for a ping and its pong, want none", got)
	}
}
