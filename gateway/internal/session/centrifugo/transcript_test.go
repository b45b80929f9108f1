package centrifugo_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/gateway/internal/session/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/transcript"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/control"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

// TestTranscripts plays the scripts in testdata, whose verbs are
//
//	app {...}    the app's settings
//	open         opens a connection; "open uni" one that only listens, "open uni frames" by WebSocket
//	> {...}      a message of the client, \n is a newline
//	= verb ...   an answer of the host or the time, see (*player).answer
func TestTranscripts(t *testing.T) {
	transcript.Compare(t, 8, func(t *testing.T, script string) string {
		p := &player{Tape: transcript.Tape{T: t}, app: testApp()}
		return p.Play(script, p.step)
	})
}

// TestTooManyQuestions: what can't be asked is refused at once, and not when the
// time for an answer is over.
func TestTooManyQuestions(t *testing.T) {
	p := &player{Tape: transcript.Tape{T: t}}
	said := p.Play(`app {"id":"1001","keys":[{"key":"key"}],"hooks":[{"name":"h"}],"centrifugo":{"enabled":true,"rpc":[{"match":"*","hook":"h"}]}}
open
> {"id":1,"connect":{}}
= decided 1 {"allow":true}
> $({"id":2,"rpc":{"method":"m"}}\n*256){"id":3,"rpc":{"method":"m"}}\n{"id":4,"subscribe":{"channel":"a","token":"t"}}
> {"id":5,"subscribe":{"channel":"b"}}
`, p.step)
	for _, want := range []string{
		`< {"id":3,"error":{"code":111,"message":"too many requests: too many commands wait for an answer","temporary":true}}`,
		`< {"id":4,"error":{"code":111,"message":"too many requests: too many commands wait for an answer","temporary":true}}`,
		"! attach b",
	} {
		if !strings.Contains(said, want+"\n") {
			t.Errorf("missing: %s", want)
		}
	}
}

// player plays one script. It is the session's host.
type player struct {
	transcript.Tape
	app  app.App
	d    *codec.Dialect
	s    *centrifugo.Session
	now  int64
	full bool // Identify says no
	gap  bool // Live says no
}

// start is the Unix time of the loop's time 0.
const start = 1_700_000_000

func testApp() app.App {
	return app.App{ID: "1001", Keys: []app.Key{{Key: "key"}}, Centrifugo: app.Centrifugo{Enabled: true}}.WithDefaults()
}

func (p *player) step(verb, rest string) {
	switch verb {
	case "app":
		p.app = testApp()
		p.Decode(rest, &p.app)
	case "open":
		p.now, p.Closed, p.full, p.gap = int64(time.Second), false, false, false
		opt := centrifugo.Options{Transport: "websocket", Random: 3e9, Now: p.now, Headers: map[string]string{"origin": "x"}}
		p.d = codec.New(codec.JSON)
		switch rest {
		case "refused":
			opt.Refuse = &dialect.Refusal{Reason: dialect.OverQuota}
		case "nowhere":
			opt.Refuse = &dialect.Refusal{Reason: dialect.AppUnknown, Message: "bad request: there is no such app"}
		case "uni":
			p.d, opt.Transport = codec.NewUnidirectional(codec.JSON), "uni_sse"
		case "uni frames":
			p.d, opt.Transport, opt.Frames = codec.NewUnidirectional(codec.JSON), "uni_websocket", true
		}
		mine := p.app
		p.s = centrifugo.New(p.d, &mine, opt, p)
		p.s.Open(p.now)
		p.tick()
	case ">":
		p.message(strings.ReplaceAll(rest, `\n`, "\n"))
	case "=":
		verb, rest, _ = strings.Cut(rest, " ")
		p.answer(verb, rest)
	default:
		p.T.Fatalf("what is %q?", verb)
	}
}

func (p *player) message(payload string) {
	buf := []byte(payload)
	p.s.Message(buf, p.now)
	for i := range buf { // nothing may be kept of it
		buf[i] = 'X'
	}
}

// answer plays the host's part:
//
//	= decided CALL DECISION           an authz.Decision
//	= attached CHANNEL [ANSWER]       a session.Attached, with ids and data of publications instead of them
//	= published CALL [REASON]
//	= presence CALL [MEMBERS]         presence.MemberInfos
//	= history CALL EPOCH TOP [POSITION:DATA ...]  or without anything
//	= at TIME                         since the start; then Tick
//	= operate OPERATION               a control.Operation
//	= heard                           something came from the peer
//	= lost CHANNEL
//	= shut REASON
//	= full / gap                      Identify, or Live, says no from now on
//	= channels                        lists them
func (p *player) answer(verb, rest string) {
	word, tail, _ := strings.Cut(rest, " ")
	switch verb {
	case "decided":
		var d authz.Decision
		p.Decode(tail, &d)
		p.s.Decided(p.Number(word), d, p.now)
	case "attached":
		p.attached(word, tail)
	case "published":
		why := dialect.None
		if tail != "" {
			why = p.Reason(tail)
		}
		p.s.Published(p.Number(word), why, p.now)
	case "presence":
		var m *centrifugo.Members
		if tail != "" {
			var infos []presence.MemberInfo
			p.Decode(tail, &infos)
			m = &centrifugo.Members{}
			for _, i := range infos {
				m.List = append(m.List, presence.Member(i))
			}
		}
		p.s.PresenceCame(p.Number(word), m, p.now)
	case "history":
		p.s.HistoryCame(p.Number(word), p.stream(tail), p.now)
	case "at":
		d, err := time.ParseDuration(rest)
		if err != nil {
			p.T.Fatal(err)
		}
		p.now = int64(d)
		p.tick()
	case "operate":
		var op control.Operation
		p.Decode(rest, &op)
		p.s.Operate(&op, p.now)
	case "heard":
		p.s.Active(p.now)
	case "lost":
		p.s.Lost(func(name string) bool { return name == rest })
	case "shut":
		p.s.Shut(p.Reason(rest))
	case "full":
		p.full = true
	case "gap":
		p.gap = true
	case "channels":
		for name, state := range p.s.Channels() {
			p.Wish("%s is %s", name, state)
		}
	default:
		p.T.Fatalf("what is %q?", verb)
	}
}

// entries reads POSITION:DATA words.
func (p *player) entries(words []string) (all []resume.Entry) {
	for _, w := range words {
		pos, data, _ := strings.Cut(w, ":")
		all = append(all, resume.Entry{Position: message.Position(p.Number(pos)), Publication: &message.Publication{Kind: message.Event, Data: []byte(data)}})
	}
	return all
}

func (p *player) stream(rest string) *centrifugo.Stream {
	words := strings.Fields(rest)
	if len(words) < 2 {
		return nil
	}
	h := &centrifugo.Stream{Epoch: words[0], Top: message.Position(p.Number(words[1]))}
	h.Entries = p.entries(words[2:])
	return h
}

func (p *player) attached(name, rest string) {
	r := session.Attached{Channel: name}
	if rest != "" {
		var a struct {
			Failed, Message string
			Epoch           string
			Position        uint64
			Since           *uint64 // recovered from here
			Entries         []string
			Follows         bool
			Cached          string
		}
		p.Decode(rest, &a)
		place := resume.Place{Epoch: a.Epoch, Position: message.Position(a.Position)}
		switch {
		case a.Failed != "":
			r.Failed, r.Message = p.Reason(a.Failed), a.Message
		case a.Cached != "":
			r.Cached, r.CachedAt = &message.Publication{Kind: message.Event, Data: []byte(a.Cached)}, place
		default:
			r.Resume = &resume.Answer{Kept: true, Place: place, Entries: p.entries(a.Entries), Follows: a.Follows}
			if a.Since != nil {
				r.Resume.Recovered, r.Resume.Since = true, resume.Place{Epoch: a.Epoch, Position: message.Position(*a.Since)}
			}
		}
	}
	p.s.Attached(r, p.now)
}

func (p *player) tick() {
	if next := p.s.Tick(p.now); next > 0 {
		p.Wish("tick at %s", time.Duration(next))
	}
}

// The host's methods.

func (p *player) SocketID() string { return "7.1" }

// SessionID implements centrifugo.Transport.
func (p *player) SessionID() (node, id string, ok bool) { return "", "", false }
func (p *player) Unix() int64                           { return start + p.now/int64(time.Second) }
func (p *player) Wake(at int64)                         { p.Wish("wake at %s", time.Duration(at)) }

func (p *player) Disconnect(why dialect.Reason, code int, text string) {
	if p.Closed {
		p.T.Error("disconnected twice")
	}
	p.Closed = true
	p.Wish("disconnect %d %q (%s)", code, text, why)
	if json.Valid([]byte(text)) {
		p.T.Errorf("the reason %q is JSON", text)
	}
}

func (p *player) Probe() { p.Wish("probe") }

func (p *player) Refused(why dialect.Reason) { p.Wish("counted as %s", why) }

func (p *player) Attach(channel string, how session.Attach) {
	var b strings.Builder
	if how.Member != nil {
		fmt.Fprintf(&b, " as %s (%s)", how.Member.RawID, how.Member.Info)
	}
	if how.Resume != nil {
		fmt.Fprintf(&b, " keeping %d for %s since %q %d", how.Keep.Size, how.Keep.TTL, how.Resume.Since.Epoch, how.Resume.Since.Position)
		if how.Resume.Most > 0 {
			fmt.Fprintf(&b, " if that is no more than %d", how.Resume.Most)
		}
	}
	for _, f := range []struct {
		is   bool
		word string
	}{
		{how.Resume != nil && how.Resume.AnyEpoch, "any epoch"},
		{how.Cache, "with the cached value"},
		{how.Fill > 0, "or one that comes in " + how.Fill.String()},
		{how.View == codec.ViewMembers || how.View == codec.ViewDeltaMembers, "told of members"},
		{how.View >= codec.ViewDelta, "by differences"},
		{how.Filter != nil, "filtered"},
		{how.Wait, "waiting"},
	} {
		if f.is {
			b.WriteString(" " + f.word)
		}
	}
	p.Wish("attach %s%s", channel, b.String())
}

func (p *player) Live(channel string) bool {
	p.Wish("live %s", channel)
	return !p.gap
}

func (p *player) Identify(user string) bool {
	p.Wish("identify %s", user)
	if p.full {
		p.s.Shut(dialect.UserQuota)
	}
	return !p.full
}

func (p *player) Decide(call uint32, req any) {
	p.Wish("decide %d %s %s", call, strings.TrimPrefix(fmt.Sprintf("%T", req), "*authz."), transcript.Line(req))
}

func (p *player) Publish(call uint32, pub *message.Publication) {
	p.Wish("publish %d on %s: %s by %s, tags %q, key %q", call, pub.Channel, pub.Data, pub.Info, pub.Tags, pub.IdempotencyKey)
}

func (p *player) Presence(call uint32, channel string) { p.Wish("presence %d of %s", call, channel) }

func (p *player) History(call uint32, q *centrifugo.HistoryQuestion) {
	end := "oldest"
	if q.Reverse {
		end = "newest"
	}
	before := ""
	if q.Before != 0 {
		before = fmt.Sprintf(" and below %d", q.Before)
	}
	p.Wish("history %d of %s, the %d %s above %d%s", call, q.Channel, q.Limit, end, q.Since, before)
}
