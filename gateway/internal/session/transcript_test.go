package session_test

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
	"github.com/carillon-rt/carillon/gateway/internal/dialect/pusher"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

var rewrite = flag.Bool("rewrite", false, "write what the sessions really say into testdata; read the diff before you commit it")

// TestTranscripts plays the scripts in testdata. In a script
//
//	app {...}        are the app's settings, over those of testApp
//	connect PATH?QUERY [origin=...] [over-quota]
//	> {...}          is a message of the client; $(x*200) stands for 200 times x
//	= verb ...       is an answer of the host or the time, see (*player).answer
//	< {...}          is what the client gets
//	! ...            is what the session asks of its host
//
// and the lines with < and ! are what is tested.
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("found %d scripts (%v), expected at least 10", len(files), err)
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
			from := max(0, i-5)
			return fmt.Sprintf("line %d\n%s\nwant %s\ngot  %s", i+1, strings.Join(w[from:i], "\n"), w[i], g[i])
		}
	}
	return fmt.Sprintf("want %d lines, got %d", len(w), len(g))
}

func testApp() app.App {
	return app.App{ID: "1001", Keys: []app.Key{{Key: "key"}, {Key: "old", Disabled: true}}}.WithDefaults()
}

// player plays one script. It is the session's host.
type player struct {
	t    *testing.T
	app  app.App
	d    *pusher.Pusher
	s    *session.Session
	now  int64
	out  []string
	done bool
	// resume is what came with the last authorization that was asked for.
	resume *resume.Wish
}

func play(t *testing.T, script string) string {
	p := &player{t: t, d: pusher.New(""), app: testApp()}
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
		b.WriteString(collapse(p.out))
	}
	return b.String()
}

// collapse joins lines, and repeated ones into a count.
func collapse(lines []string) string {
	var b strings.Builder
	for i := 0; i < len(lines); {
		n := 1
		for i+n < len(lines) && lines[i+n] == lines[i] {
			n++
		}
		b.WriteString(lines[i] + "\n")
		if n > 1 {
			fmt.Fprintf(&b, "! the same %d times more\n", n-1)
		}
		i += n
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
	case "connect":
		p.connect(rest)
	case ">":
		p.message(rest)
	case "=":
		verb, rest, _ = strings.Cut(rest, " ")
		p.answer(verb, rest)
	default:
		p.t.Fatalf("what is %q?", line)
	}
}

func (p *player) connect(rest string) {
	fields := strings.Fields(rest)
	path, query, _ := strings.Cut(fields[0], "?")
	hello, ok := p.d.Hello(&httphead.Head{Path: path, RawQuery: query})
	if !ok {
		p.wish("not a path of the dialect")
		return
	}
	opt := session.Options{Now: p.now}
	for _, f := range fields[1:] {
		if o, ok := strings.CutPrefix(f, "origin="); ok {
			opt.Origin = o
		}
		opt.OverQuota = opt.OverQuota || f == "over-quota"
	}
	var a *app.App
	if _, found := p.app.Key(hello.Key); found || hello.Key == "old" {
		mine := p.app
		a = &mine
	}
	p.done = false
	p.s = session.New(p.d, a, hello, opt, p)
	p.s.Open(p.now)
	p.tick()
}

func (p *player) message(payload string) {
	buf := []byte(payload)
	why := p.s.Message(buf, p.now)
	for i := range buf { // nothing may be kept of it
		buf[i] = 'X'
	}
	if why != dialect.None {
		p.wish("counted as %s", why)
	}
}

// answer plays the host's part:
//
//	= allow ID [USER]        the authorization service says yes; USER is an authz.User
//	= refuse ID REASON TEXT
//	= signed-in USER / = not-signed-in REASON TEXT
//	= attached CHANNEL [members MEMBERS] [cached DATA] [resume ANSWER] [both MEMBERS ANSWER] [failed REASON TEXT]
//	= watching [USER...]     those that are online
//	= at TIME                since the start; then Tick
//	= heard                  a control frame came
//	= repeat N MESSAGE
//	= shut REASON
//	= published KIND CHANNEL EVENT USER VERSION DATA   what subscribers get
//	= channels               lists them
func (p *player) answer(verb, rest string) {
	word, tail, _ := strings.Cut(rest, " ")
	switch verb {
	case "allow":
		p.s.Authorized(p.id(word), p.decision(tail), p.resume, p.now)
	case "refuse":
		p.s.Authorized(p.id(word), refusal(tail), p.resume, p.now)
	case "signed-in":
		p.s.SignInDecided(p.decision(rest), p.now)
	case "not-signed-in":
		p.s.SignInDecided(refusal(rest), p.now)
	case "attached":
		p.attached(word, tail)
	case "watching":
		p.s.Watching(strings.Fields(rest), p.now)
	case "at":
		d, err := time.ParseDuration(rest)
		if err != nil {
			p.t.Fatal(err)
		}
		p.now = int64(d)
		p.tick()
	case "heard":
		p.s.Active(p.now)
	case "repeat":
		for range p.id(word) {
			p.message(tail)
		}
	case "shut":
		p.s.Shut(reason(p.t, rest))
	case "published":
		p.published(rest)
	case "channels":
		for name, state := range p.s.Channels() {
			p.wish("%s is %s", name, state)
		}
	default:
		p.t.Fatalf("what is %q?", verb)
	}
}

func (p *player) decode(text string, into any) {
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		p.t.Fatalf("%s: %v", text, err)
	}
}

func (p *player) id(word string) uint32 {
	n, err := strconv.ParseUint(word, 10, 32)
	if err != nil {
		p.t.Fatal(err)
	}
	return uint32(n)
}

func (p *player) decision(user string) authz.Decision {
	d := authz.Decision{Allow: true}
	if user != "" {
		d.User = new(authz.User)
		p.decode(user, d.User)
	}
	return d
}

func refusal(rest string) authz.Decision {
	why, text, _ := strings.Cut(rest, " ")
	return authz.Refuse(authz.Reason(why), text)
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

func (p *player) attached(name, rest string, changes ...func(*session.Attached)) {
	r := session.Attached{Channel: name}
	what, arg, _ := strings.Cut(rest, " ")
	switch what {
	case "members":
		var infos []presence.MemberInfo
		p.decode(arg, &infos)
		for _, m := range infos {
			r.Members = append(r.Members, presence.Member(m))
		}
	case "cached":
		r.Cached = &message.Publication{Kind: message.Event, Channel: name, Event: "cached-event", Data: []byte(arg)}
	case "resume":
		r.Resume = new(resume.Answer)
		p.decode(arg, r.Resume)
	case "both":
		members, answer, _ := strings.Cut(arg, " ")
		p.attached(name, "members "+members, func(r *session.Attached) {
			r.Resume = new(resume.Answer)
			p.decode(answer, r.Resume)
		})
		return
	case "failed":
		why, text, _ := strings.Cut(arg, " ")
		r.Failed, r.Message = reason(p.t, why), text
	}
	for _, change := range changes {
		change(&r)
	}
	p.s.Attached(r, p.now)
}

func (p *player) published(rest string) {
	f := strings.SplitN(rest, " ", 6)
	kinds := map[string]message.Kind{
		"event": message.Event, "client": message.ClientEvent, "added": message.MemberAdded, "removed": message.MemberRemoved,
		"count": message.SubscriptionCount, "online": message.UserOnline, "offline": message.UserOffline,
	}
	for i := range f {
		if f[i] == "-" {
			f[i] = ""
		}
	}
	version, _ := strconv.ParseUint(f[4], 10, 64)
	pub := message.Publication{Kind: kinds[f[0]], Channel: f[1], Event: f[2], UserID: f[3], Version: version, Data: []byte(f[5])}
	p.Send(p.d.AppendPublication(nil, &pub))
}

func (p *player) tick() {
	if next := p.s.Tick(p.now); next > 0 {
		p.wish("wake at %s", time.Duration(next))
	}
}

func (p *player) wish(format string, args ...any) {
	p.out = append(p.out, "! "+fmt.Sprintf(format, args...))
}

// Send implements session.Host: everything that is sent must be JSON on one line.
func (p *player) SocketID() string { return "123.456" }

func (p *player) Send(payload []byte) {
	if p.done {
		p.t.Errorf("sent after close: %s", payload)
	}
	if !json.Valid(payload) || bytes.ContainsAny(payload, "\n") {
		p.t.Errorf("sent something that is not JSON: %s", payload)
	}
	p.out = append(p.out, "< "+string(payload))
}

// Close implements session.Host.
func (p *player) Close(why dialect.Reason) {
	p.done = true
	code, text := p.d.Closing(why)
	p.wish("close %d %q (%s)", code, text, why)
}

// Authorize implements session.Host.
func (p *player) Authorize(id uint32, req *authz.Subscribe, wish *resume.Wish) {
	p.resume = wish
	p.wish("authorize %d %s", id, line(req))
}

// SignIn implements session.Host.
func (p *player) SignIn(req *authz.SignIn) { p.wish("sign-in %s", line(req)) }

// Attach implements session.Host.
func (p *player) Attach(channel string, how session.Attach) {
	fill := ""
	if how.Fill > 0 {
		fill = how.Fill.String()
	}
	p.wish("attach %s %s", channel, line(struct {
		Member *presence.Member
		Cache  bool
		Fill   string `json:",omitempty"`
	}{how.Member, how.Cache, fill}))
	if how.Resume != nil {
		p.wish("resume %s, of %d for %s", line(how.Resume), how.Keep.Size, how.Keep.TTL)
	}
}

// Connected implements session.Host: what the client is sent says it.
func (p *player) Connected() {}

// Unsubscribed implements session.Host.
func (p *player) Unsubscribed(channel string, code uint32, reason string) {
	p.wish("unsubscribed %s %d %q", channel, code, reason)
}

// Detach implements session.Host.
func (p *player) Detach(channel string) { p.wish("detach %s", channel) }

// Publish implements session.Host.
func (p *player) Publish(pub *message.Publication) {
	p.wish("publish %s on %s excluding %s, user %q: %s", pub.Event, pub.App+"/"+pub.Channel, pub.Exclude, pub.UserID, pub.Data)
}

// SetUser implements session.Host.
func (p *player) SetUser(user *authz.User, watch []string) {
	p.wish("set-user %s watching %q", user.ID, watch)
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
