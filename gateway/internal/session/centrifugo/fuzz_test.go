package centrifugo_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/gateway/internal/session/centrifugo"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/message"
)

// monkey is a client and a host that do anything at any time, and know what
// has to hold whatever they do:
//
//   - every command is answered once, within 5 s, unless the connection is closed
//   - a channel is attached once at a time, and detached only when it is attached
//   - publications flow only to channels that the client knows it is subscribed to
//   - of a subscription that the client knows it is told once that it ended
//   - nothing is said or asked after the connection was closed
//   - a client that only listens is told pushes, the first of them connect
type monkey struct {
	t *testing.T
	r *rand.Rand
	s *centrifugo.Session

	now      int64
	asked    map[uint32]func(call uint32) // questions that are not answered
	attached map[string]session.Attach    // true once it was answered
	live     map[string]bool
	held     map[string]bool  // answered, and waits for Live
	open     map[uint32]int64 // commands that are not answered, and since when
	lastID   uint32
	uni      bool // the client only listens
	told     bool // connect was answered
	pings    int
	greeted  bool            // it was told that it is connected
	known    map[string]bool // subscriptions that were live when looked at last, since then
	failed   bool            // connect was refused with an error
	closed   bool
}

func (m *monkey) SocketID() string { return "7.1" }

// SessionID implements centrifugo.Transport.
func (m *monkey) SessionID() (node, id string, ok bool) { return "", "", false }
func (m *monkey) Unix() int64                           { return start + m.now/int64(time.Second) }
func (m *monkey) Wake(int64)                            { m.still("Wake") }

func (m *monkey) Refused(dialect.Reason) {}

func (m *monkey) Probe() { m.still("Probe") }

func (m *monkey) still(what string) {
	if m.closed {
		m.t.Fatalf("%s after the end", what)
	}
}

func (m *monkey) Send(payload []byte) {
	m.still("Send")
	var reply struct {
		ID         uint32
		Error      *struct{ Code int }
		Push       *struct{ Channel string }
		Subscribe  *struct{}
		Connect    *struct{ Client string }
		Disconnect *struct{ Code int }
	}
	if err := json.Unmarshal(payload, &reply); err != nil {
		m.t.Fatalf("%s: %v", payload, err)
	}
	switch {
	case m.uni && (reply.ID != 0 || reply.Error != nil || reply.Push != nil || m.told == (reply.Connect != nil) && reply.Disconnect == nil):
		m.t.Fatalf("told a client that only listens: %s", payload)
	case m.uni:
		m.told = m.told || reply.Connect != nil
	case reply.Push != nil:
	case reply.ID == 0:
		m.pings++
	default:
		if _, waits := m.open[reply.ID]; !waits {
			m.t.Fatalf("a second answer, or one that nobody asked for: %s", payload)
		}
		delete(m.open, reply.ID)
		if reply.ID == 1 && reply.Error != nil { // of no further use
			clear(m.open)
			m.failed = true
		}
	}
}

func (m *monkey) Disconnect(_ dialect.Reason, code int, text string) {
	m.still("Disconnect")
	m.closed = true
	if json.Valid([]byte(text)) || code < 1000 || code > 4999 {
		m.t.Fatalf("closed with %d %q", code, text)
	}
}

func (m *monkey) Attach(channel string, how session.Attach) {
	m.still("Attach")
	if _, is := m.attached[channel]; is {
		m.t.Fatalf("%s is attached twice", channel)
	}
	m.attached[channel] = how
}

// Connected implements session.Witness.
func (m *monkey) Connected() {
	m.still("Connected")
	if m.greeted || m.failed {
		m.t.Fatal("connected twice, or after an error")
	}
	m.greeted = true
	m.note()
}

// note notes the subscriptions that the client knows of.
func (m *monkey) note() {
	for name, state := range m.s.Channels() {
		if m.greeted && state == session.Live {
			m.known[name] = true
		}
	}
}

// Unsubscribed implements session.Witness.
func (m *monkey) Unsubscribed(channel string, code uint32, reason string) {
	m.still("Unsubscribed")
	if !m.known[channel] || (code == 0) != (reason == "") {
		m.t.Fatalf("unsubscribed from %s, with %d %q", channel, code, reason)
	}
	delete(m.known, channel)
}

func (m *monkey) Detach(channel string) {
	if m.live[channel] || m.held[channel] {
		delete(m.live, channel)
		delete(m.held, channel)
	}
	delete(m.attached, channel)
}

func (m *monkey) Live(channel string) bool {
	m.still("Live")
	if !m.held[channel] {
		m.t.Fatalf("%s does not wait to go live", channel)
	}
	delete(m.held, channel)
	m.live[channel] = true
	return m.r.IntN(50) > 0
}

func (m *monkey) Identify(string) bool { m.still("Identify"); return true }

func (m *monkey) Decide(call uint32, req any) {
	m.still("Decide")
	m.asked[call] = func(call uint32) { m.s.Decided(call, m.decision(req), m.now) }
}

func (m *monkey) Publish(call uint32, _ *message.Publication) {
	m.still("Publish")
	m.asked[call] = func(call uint32) {
		m.s.Published(call, []dialect.Reason{dialect.None, dialect.Unavailable}[m.r.IntN(2)], m.now)
	}
}

func (m *monkey) Presence(call uint32, _ string) {
	m.still("Presence")
	m.asked[call] = func(call uint32) {
		m.s.PresenceCame(call, []*centrifugo.Members{nil, {}}[m.r.IntN(2)], m.now)
	}
}

func (m *monkey) History(call uint32, _ *centrifugo.HistoryQuestion) {
	m.still("History")
	m.asked[call] = func(call uint32) { m.s.HistoryCame(call, []*centrifugo.Stream{nil, {}}[m.r.IntN(2)], m.now) }
}

// soon is a Unix time not far from now, or never.
func (m *monkey) soon() int64 {
	if m.r.IntN(2) == 0 {
		return 0
	}
	return m.Unix() + m.r.Int64N(40) - 2
}

func (m *monkey) decision(req any) authz.Decision {
	if m.r.IntN(5) == 0 {
		reasons := []authz.Reason{authz.Forbidden, authz.TokenExpired, authz.BadToken, authz.Unavailable, authz.NoChannel}
		d := authz.Refuse(reasons[m.r.IntN(len(reasons))], "no")
		if m.r.IntN(4) == 0 {
			d.Verdict = &authz.Verdict{Disconnect: m.r.IntN(2) == 0, Code: 4000, Text: "true"}
		}
		return d
	}
	d := authz.Decision{Allow: true}
	switch req.(type) {
	case *authz.Connect:
		d.Credentials = &authz.Credentials{User: "u", ExpireAt: m.soon(), ServerRefresh: m.r.IntN(2) == 0, Subs: map[string]authz.Grant{}}
		for range m.r.IntN(4) {
			d.Credentials.Subs[m.channel()] = authz.Grant{ExpireAt: m.soon()}
		}
	case *authz.Refresh:
		d.Credentials = &authz.Credentials{User: "u", ExpireAt: m.soon(), Expired: m.r.IntN(9) == 0}
	case *authz.Subscribe, *authz.SubRefresh:
		d.Grant = &authz.Grant{ExpireAt: m.soon(), Publish: true}
	}
	return d
}

func (m *monkey) channel() string {
	names := []string{"a", "b", "log1", "log2", "room", "$p", "last", "presence-x", "asks", "ns:x", "#online-u"}
	return names[m.r.IntN(len(names))]
}

func (m *monkey) command() string {
	m.lastID++
	id, name := m.lastID, m.channel()
	if !m.failed && !m.uni {
		m.open[id] = m.now
	}
	bodies := []string{
		`"subscribe":{"channel":%q}`, `"subscribe":{"channel":%q,"token":"t","recover":true,"epoch":"e","flag":2}`, `"subscribe":{"channel":%q,"join_leave":true}`,
		`"unsubscribe":{"channel":%q}`, `"publish":{"channel":%q,"data":1}`, `"presence":{"channel":%q}`, `"presence_stats":{"channel":%q}`,
		`"history":{"channel":%q,"limit":5}`, `"sub_refresh":{"channel":%q,"token":"t"}`, `"rpc":{"method":%q}`, `"refresh":{"token":%q}`,
	}
	n := len(bodies)
	if m.r.IntN(20) > 0 {
		n-- // refreshes that the server does not want end the connection
	}
	return fmt.Sprintf(`{"id":%d,`+bodies[m.r.IntN(n)]+`}`, id, name)
}

// answerAttach answers one of the channels that are being attached.
func (m *monkey) answerAttach() {
	for name, how := range m.attached {
		if m.live[name] || m.held[name] {
			continue
		}
		r := session.Attached{Channel: name}
		if m.r.IntN(6) == 0 {
			r.Failed = dialect.Unavailable
			delete(m.attached, name)
			m.s.Attached(r, m.now)
			return
		}
		if how.Resume != nil {
			r.Resume = &resume.Answer{Kept: true, Place: resume.Place{Epoch: "e", Position: 9}, Recovered: m.r.IntN(2) == 0}
		}
		if how.Wait {
			m.held[name] = true
		} else {
			m.live[name] = true
		}
		m.s.Attached(r, m.now)
		return
	}
}

func (m *monkey) step() {
	switch m.r.IntN(12) {
	case 0, 1, 2, 3:
		payload := m.command()
		if m.r.IntN(3) == 0 {
			payload += "\n" + m.command()
		}
		m.s.Message([]byte(payload), m.now)
	case 4, 5, 6:
		for call, f := range m.asked {
			delete(m.asked, call)
			f(call)
			return
		}
	case 7, 8:
		m.answerAttach()
	case 9:
		m.now += m.r.Int64N(int64(2 * time.Second))
		m.s.Tick(m.now)
	case 10:
		m.s.Active(m.now)
		if m.pings > 0 {
			m.pings--
			m.s.Message([]byte("{}"), m.now)
		}
	case 11:
		m.rare()
	}
}

func (m *monkey) rare() {
	switch m.r.IntN(20) {
	case 0:
		m.s.Lost(func(name string) bool { return name == "log1" })
	case 1:
		m.s.Operate(&control.Operation{Subscribe: &control.SubscribeThem{Channel: m.channel(), Grant: authz.Grant{ExpireAt: m.soon()}}}, m.now)
	case 2:
		m.s.Operate(&control.Operation{Unsubscribe: m.channel()}, m.now)
	case 3:
		m.s.Operate(&control.Operation{Refresh: &authz.Credentials{ExpireAt: m.Unix() + 20}}, m.now)
	case 4:
		if m.r.IntN(10) == 0 {
			m.s.Operate(&control.Operation{Disconnect: &authz.Verdict{}}, m.now)
		}
	}
}

// check looks at what holds between any two steps.
func (m *monkey) check() {
	if m.closed {
		return
	}
	states := map[string]session.State{}
	for name, state := range m.s.Channels() {
		if _, twice := states[name]; twice {
			m.t.Fatalf("two subscriptions of %s", name)
		}
		states[name] = state
		if _, is := m.attached[name]; is == (state == session.Authorizing) {
			m.t.Fatalf("%s is %s, attached: %v", name, state, is)
		}
	}
	for name := range m.known {
		if states[name] != session.Live {
			m.t.Fatalf("nobody was told that %s ended", name)
		}
	}
	m.note()
	for name := range m.attached {
		if states[name] == 0 {
			m.t.Fatalf("%s is attached, and not subscribed to", name)
		}
	}
	for id, since := range m.open {
		if m.now-since > int64(5*time.Second) {
			m.t.Fatalf("command %d waits for %s", id, time.Duration(m.now-since))
		}
	}
}

func FuzzSession(f *testing.F) {
	for seed := range uint64(200) {
		f.Add(seed)
	}
	a := app.App{
		ID: "1", Keys: []app.Key{{Key: "k"}}, Hooks: []app.Hook{{Name: "h"}},
		Limits: app.Limits{Subscriptions: 6, ClientEventsPerSecond: 1000, MessagesPerSecond: 100_000},
		Policies: []app.Policy{
			{Match: "log*", History: app.History{Size: 9, TTL: time.Hour, Recover: true}, Publish: app.Anyone, ReadHistory: app.Anyone},
			{Match: "room", Presence: true, JoinLeave: true, ReadPresence: app.Anyone},
			{Match: "last", CacheTTL: time.Hour},
			{Match: "asks", SubscribeHook: "h", PublishHook: "h"},
		},
		Centrifugo: app.Centrifugo{Enabled: true, RPC: []app.RPC{{Match: "*", Hook: "h"}}},
	}.WithDefaults()
	f.Fuzz(func(t *testing.T, seed uint64) {
		m := &monkey{
			t: t, r: rand.New(rand.NewPCG(seed, 1)), now: int64(time.Second), asked: map[uint32]func(uint32){},
			attached: map[string]session.Attach{}, live: map[string]bool{}, held: map[string]bool{}, open: map[uint32]int64{}, known: map[string]bool{},
		}
		d := codec.New(codec.JSON)
		if m.uni = seed%4 == 3; m.uni {
			d = codec.NewUnidirectional(codec.JSON)
		}
		m.s = centrifugo.New(d, &a, centrifugo.Options{Now: m.now, Random: seed, Frames: seed%8 == 7}, m)
		m.s.Open(m.now)
		m.lastID++
		if !m.uni {
			m.open[m.lastID] = m.now
		}
		m.s.Message([]byte(`{"id":1,"connect":{"token":"t"}}`), m.now)
		for range 400 {
			if m.closed {
				break
			}
			m.step()
			m.check()
		}
		m.s.Gone()
		for call, f := range m.asked { // answers that come too late
			f(call)
		}
	})
}
