package session_test

import (
	"testing"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/dialect/pusher"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/message"
)

// mute is a host that does nothing.
type mute struct{ sent int }

func (m *mute) Send([]byte)                        { m.sent++ }
func (m *mute) Close(dialect.Reason)               {}
func (m *mute) Authorize(uint32, *authz.Subscribe) {}
func (m *mute) SignIn(*authz.SignIn)               {}
func (m *mute) Attach(string, session.Attach)      {}
func (m *mute) Detach(string)                      {}
func (m *mute) Publish(*message.Publication)       {}
func (m *mute) SetUser(*authz.User, []string)      {}

// BenchmarkConnect is the session's part of a connection with one public
// subscription: greeting, subscribe, success.
func BenchmarkConnect(b *testing.B) {
	p, a, host := pusher.New(""), testApp(), &mute{}
	subscribe := []byte(`{"event":"pusher:subscribe","data":{"auth":"","channel":"my-channel"}}`)
	b.ReportAllocs()
	for b.Loop() {
		hello, _ := p.Hello("/app/key", "protocol=7&client=js&version=8.6.0&flash=false")
		s := session.New(p, &a, hello, session.Options{SocketID: "1.2"}, host)
		s.Open(0)
		s.Message(subscribe, 1)
		s.Attached(session.Attached{Channel: "my-channel"}, 2)
	}
	if host.sent != 2*b.N {
		b.Fatalf("%d messages for %d connections", host.sent, b.N)
	}
}

// BenchmarkPing is what an idle client costs in each activity timeout.
func BenchmarkPing(b *testing.B) {
	a := testApp()
	a.Limits.MessagesPerSecond = -1
	s := session.New(pusher.New(""), &a, dialect.Hello{Key: "key"}, session.Options{SocketID: "1.2"}, &mute{})
	s.Open(0)
	ping := []byte(`{"event":"pusher:ping","data":{}}`)
	b.ReportAllocs()
	for b.Loop() {
		s.Message(ping, 1)
	}
}
