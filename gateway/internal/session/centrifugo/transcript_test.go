package centrifugo_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
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
	"github.com/carillon-rt/carillon/proto/presence"
)

var rewrite = flag.Bool("rewrite", false, "write what the sessions really say into testdata; read the diff before you commit it")

// TestTranscripts plays the scripts in testdata. In a script
//
//	app {...}    are the app's settings
//	open         opens a connection; "open uni" one that only listens, "open uni frames" by WebSocket
//	> {...}      is a message of the client; $(x*200) stands for 200 times x, \n for a newline
//	= verb ...   is an answer of the host or the time, see (*player).answer
//	< {...}      is what the client gets
//	! ...        is what the session asks of its host
//
// and the lines with < and ! are what is tested.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 8 {
		t.Fatalf("found %d scripts (%v), expected at least 8", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("%s differs:\n%s\n(-rewrite accepts it)", file, firstDifference(string(want), got))
			}
		})
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range min(len(w), len(g)) {
		if w[i] != g[i] {
			return fmt.Sprintf("line %d\n%s\nwant %s\ngot  %s", i+1, strings.Join(w[max(0, i-5):i], "\n"), w[i], g[i])
		}
	}
	return fmt.Sprintf("want %d lines, got %d", len(w), len(g))
}

// player plays one script. It is the session's host.
type player struct {
	t    *testing.T
	app  app.App
	d    *codec.Dialect
	s    *centrifugo.Session
	now  int64
	out  []string
	done bool
	full bool // Identify says no
	gap  bool // Live says no
}

// start is the Unix time of the loop's time 0.
const start = 1_700_000_000

func testApp() app.App {
	return app.App{ID: "1001", Keys: []app.Key{{Key: "key"}}, Centrifugo: app.Centrifugo{Enabled: true}}.WithDefaults()
}

func play(t *testing.T, script string) string {
	p := &player{t: t, app: testApp()}
	var b strings.Builder
	for line := range strings.Lines(script) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "<") || strings.HasPrefix(line, "!") {
			continue
		}
		b.WriteString(line + "\n")
		if line == "" || line[0] == '#' {
			continue
		}
		p.out = nil
		p.step(line)
		for _, l := range p.out {
			b.WriteString(l + "\n")
		}
	}
	return b.String()
}

var repeated = regexp.MustCompile(`\$\(([^*]*)\*(\d+)\)`)

func (p *player) step(line string) {
	verb, rest, _ := strings.Cut(line, " ")
	rest = repeated.ReplaceAllStringFunc(rest, func(s string) string {
		m := repeated.FindStringSubmatch(s)
		n, _ := strconv.Atoi(m[2])
		return strings.Repeat(m[1], n)
	})
	switch verb {
	case "app":
		p.app = testApp()
		p.decode(rest, &p.app)
	case "open":
		p.now, p.done, p.full, p.gap = int64(time.Second), false, false, false
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
		p.t.Fatalf("what is %q?", line)
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
		p.decode(tail, &d)
		p.s.Decided(p.number(word), d, p.now)
	case "attached":
		p.attached(word, tail)
	case "published":
		why := dialect.None
		if tail != "" {
			why = reason(p.t, tail)
		}
		p.s.Published(p.number(word), why, p.now)
	case "presence":
		var m *centrifugo.Members
		if tail != "" {
			var infos []presence.MemberInfo
			p.decode(tail, &infos)
			m = &centrifugo.Members{}
			for _, i := range infos {
				m.List = append(m.List, presence.Member(i))
			}
		}
		p.s.PresenceCame(p.number(word), m, p.now)
	case "history":
		p.s.HistoryCame(p.number(word), p.stream(tail), p.now)
	case "at":
		d, err := time.ParseDuration(rest)
		if err != nil {
			p.t.Fatal(err)
		}
		p.now = int64(d)
		p.tick()
	case "operate":
		var op control.Operation
		p.decode(rest, &op)
		p.s.Operate(&op, p.now)
	case "heard":
		p.s.Active(p.now)
	case "lost":
		p.s.Lost(func(name string) bool { return name == rest })
	case "shut":
		p.s.Shut(reason(p.t, rest))
	case "full":
		p.full = true
	case "gap":
		p.gap = true
	case "channels":
		for name, state := range p.s.Channels() {
			p.wish("%s is %s", name, state)
		}
	default:
		p.t.Fatalf("what is %q?", verb)
	}
}

// entries reads POSITION:DATA words.
func (p *player) entries(words []string) (all []resume.Entry) {
	for _, w := range words {
		pos, data, _ := strings.Cut(w, ":")
		all = append(all, resume.Entry{Position: message.Position(p.number(pos)), Publication: &message.Publication{Kind: message.Event, Data: []byte(data)}})
	}
	return all
}

func (p *player) stream(rest string) *centrifugo.Stream {
	words := strings.Fields(rest)
	if len(words) < 2 {
		return nil
	}
	h := &centrifugo.Stream{Epoch: words[0], Top: message.Position(p.number(words[1]))}
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
			Many            int
			Cached          string
		}
		p.decode(rest, &a)
		place := resume.Place{Epoch: a.Epoch, Position: message.Position(a.Position)}
		switch {
		case a.Failed != "":
			r.Failed, r.Message = reason(p.t, a.Failed), a.Message
		case a.Cached != "":
			r.Cached, r.CachedAt = &message.Publication{Kind: message.Event, Data: []byte(a.Cached)}, place
		default:
			for i := range a.Many {
				a.Entries = append(a.Entries, fmt.Sprintf("%d:%d", i+1, i))
			}
			r.Resume = &resume.Answer{Kept: true, Place: place, Entries: p.entries(a.Entries)}
			if a.Since != nil {
				r.Resume.Recovered, r.Resume.Since = true, resume.Place{Epoch: a.Epoch, Position: message.Position(*a.Since)}
			}
		}
	}
	p.s.Attached(r, p.now)
}

func (p *player) decode(text string, into any) {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		p.t.Fatalf("%s: %v", text, err)
	}
}

func (p *player) number(word string) uint32 {
	n, err := strconv.ParseUint(word, 10, 32)
	if err != nil {
		p.t.Fatal(err)
	}
	return uint32(n)
}

func reason(t *testing.T, name string) dialect.Reason {
	for _, r := range dialect.Reasons() {
		if r.String() == name {
			return r
		}
	}
	t.Fatalf("no reason is called %q", name)
	return dialect.None
}

func (p *player) tick() {
	if next := p.s.Tick(p.now); next > 0 {
		p.wish("tick at %s", time.Duration(next))
	}
}

func (p *player) wish(format string, args ...any) {
	p.out = append(p.out, "! "+fmt.Sprintf(format, args...))
}

// The host's methods.

func (p *player) SocketID() string { return "7.1" }

// SessionID implements centrifugo.Transport.
func (p *player) SessionID() (node, id string, ok bool) { return "", "", false }
func (p *player) Unix() int64                           { return start + p.now/int64(time.Second) }
func (p *player) Wake(at int64)                         { p.wish("wake at %s", time.Duration(at)) }

func (p *player) Send(payload []byte) {
	if p.done {
		p.t.Errorf("sent after close: %s", payload)
	}
	if !json.Valid(payload) || bytes.ContainsAny(payload, "\n") {
		p.t.Errorf("sent something that is not JSON: %s", payload)
	}
	p.out = append(p.out, "< "+string(payload))
}

func (p *player) Disconnect(why dialect.Reason, code int, text string) {
	if p.done {
		p.t.Error("disconnected twice")
	}
	p.done = true
	p.wish("disconnect %d %q (%s)", code, text, why)
	if json.Valid([]byte(text)) {
		p.t.Errorf("the reason %q is JSON", text)
	}
}

func (p *player) Probe() { p.wish("probe") }

func (p *player) Refused(why dialect.Reason) { p.wish("counted as %s", why) }

func (p *player) Attach(channel string, how session.Attach) {
	var b strings.Builder
	if how.Member != nil {
		fmt.Fprintf(&b, " as %s (%s)", how.Member.RawID, how.Member.Info)
	}
	if how.Resume != nil {
		fmt.Fprintf(&b, " keeping %d for %s since %q %d", how.Keep.Size, how.Keep.TTL, how.Resume.Since.Epoch, how.Resume.Since.Position)
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
	p.wish("attach %s%s", channel, b.String())
}

// Connected implements session.Witness: what the client is sent says it.
func (p *player) Connected() {}

// Unsubscribed implements session.Witness.
func (p *player) Unsubscribed(channel string, code uint32, reason string) {
	p.wish("unsubscribed %s %d %q", channel, code, reason)
}

func (p *player) Detach(channel string) { p.wish("detach %s", channel) }

func (p *player) Live(channel string) bool {
	p.wish("live %s", channel)
	return !p.gap
}

func (p *player) Identify(user string) bool {
	p.wish("identify %s", user)
	if p.full {
		p.s.Shut(dialect.UserQuota)
	}
	return !p.full
}

func (p *player) Decide(call uint32, req any) {
	p.wish("decide %d %s %s", call, strings.TrimPrefix(fmt.Sprintf("%T", req), "*authz."), line(req))
}

func (p *player) Publish(call uint32, pub *message.Publication) {
	p.wish("publish %d on %s: %s by %s, tags %q, key %q", call, pub.Channel, pub.Data, pub.Info, pub.Tags, pub.IdempotencyKey)
}

func (p *player) Presence(call uint32, channel string) { p.wish("presence %d of %s", call, channel) }

func (p *player) History(call uint32, q *centrifugo.HistoryQuestion) {
	p.wish("history %d of %s, which keeps %d", call, q.Channel, q.Keep.Size)
}

func line(v any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(b.String())
}
