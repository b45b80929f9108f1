package session_test

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/dialect/pusher"
	"github.com/carillon-rt/carillon/gateway/internal/httphead"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/gateway/internal/transcript"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

// TestTranscripts plays the scripts in testdata, whose verbs are
//
//	app {...}        the app's settings, over those of testApp
//	connect PATH?QUERY [origin=...] [over-quota]
//	> {...}          a message of the client
//	= verb ...       an answer of the host or the time, see (*player).answer
func TestTranscripts(t *testing.T) {
	transcript.Compare(t, 10, func(t *testing.T, script string) string {
		p := &player{Tape: transcript.Tape{T: t}, d: pusher.New(""), app: testApp()}
		return p.Play(script, p.step)
	})
}

func testApp() app.App {
	return app.App{ID: "1001", Keys: []app.Key{{Key: "key"}, {Key: "old", Disabled: true}}}.WithDefaults()
}

// player plays one script. It is the session's host.
type player struct {
	transcript.Tape
	app app.App
	d   *pusher.Pusher
	s   *session.Session
	now int64
	// resume is what came with the last authorization that was asked for.
	resume *resume.Wish
}

func (p *player) step(verb, rest string) {
	switch verb {
	case "app":
		p.app = testApp()
		p.Decode(rest, &p.app)
	case "connect":
		p.connect(rest)
	case ">":
		p.message(rest)
	case "=":
		verb, rest, _ = strings.Cut(rest, " ")
		p.answer(verb, rest)
	default:
		p.T.Fatalf("what is %q?", verb)
	}
}

func (p *player) connect(rest string) {
	fields := strings.Fields(rest)
	path, query, _ := strings.Cut(fields[0], "?")
	hello, ok := p.d.Hello(&httphead.Head{Path: path, RawQuery: query})
	if !ok {
		p.Wish("not a path of the dialect")
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
	p.Closed = false
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
		p.Wish("counted as %s", why)
	}
}

// answer plays the host's part:
//
//	= allow ID [USER]        the authorization service says yes; USER is an authz.User
//	= refuse ID REASON TEXT
//	= verdict ID VERDICT     a hook's own answer, an authz.Verdict
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
		p.s.Authorized(p.Number(word), p.decision(tail), p.resume, p.now)
	case "refuse":
		p.s.Authorized(p.Number(word), refusal(tail), p.resume, p.now)
	case "verdict":
		d := refusal("forbidden the application refused it")
		p.Decode(tail, &d.Verdict)
		p.s.Authorized(p.Number(word), d, p.resume, p.now)
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
			p.T.Fatal(err)
		}
		p.now = int64(d)
		p.tick()
	case "heard":
		p.s.Active(p.now)
	case "repeat":
		for range p.Number(word) {
			p.message(tail)
		}
	case "shut":
		p.s.Shut(p.Reason(rest))
	case "published":
		p.published(rest)
	case "channels":
		for name, state := range p.s.Channels() {
			p.Wish("%s is %s", name, state)
		}
	default:
		p.T.Fatalf("what is %q?", verb)
	}
}

func (p *player) decision(user string) authz.Decision {
	d := authz.Decision{Allow: true}
	if user != "" {
		d.User = new(authz.User)
		p.Decode(user, d.User)
	}
	return d
}

func refusal(rest string) authz.Decision {
	why, text, _ := strings.Cut(rest, " ")
	return authz.Refuse(authz.Reason(why), text)
}

func (p *player) attached(name, rest string, changes ...func(*session.Attached)) {
	r := session.Attached{Channel: name}
	what, arg, _ := strings.Cut(rest, " ")
	switch what {
	case "members":
		var infos []presence.MemberInfo
		p.Decode(arg, &infos)
		for _, m := range infos {
			r.Members = append(r.Members, presence.Member(m))
		}
	case "cached":
		r.Cached = &message.Publication{Kind: message.Event, Channel: name, Event: "cached-event", Data: []byte(arg)}
	case "resume":
		r.Resume = new(resume.Answer)
		p.Decode(arg, r.Resume)
	case "both":
		members, answer, _ := strings.Cut(arg, " ")
		p.attached(name, "members "+members, func(r *session.Attached) {
			r.Resume = new(resume.Answer)
			p.Decode(answer, r.Resume)
		})
		return
	case "failed":
		why, text, _ := strings.Cut(arg, " ")
		r.Failed, r.Message = p.Reason(why), text
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
		p.Wish("wake at %s", time.Duration(next))
	}
}

// SocketID implements session.Host.
func (p *player) SocketID() string { return "123.456" }

// Close implements session.Host.
func (p *player) Close(why dialect.Reason) {
	p.Closed = true
	code, text := p.d.Closing(why)
	p.Wish("close %d %q (%s)", code, text, why)
}

// Authorize implements session.Host.
func (p *player) Authorize(id uint32, req *authz.Subscribe, wish *resume.Wish) {
	p.resume = wish
	p.Wish("authorize %d %s", id, transcript.Line(req))
}

// SignIn implements session.Host.
func (p *player) SignIn(req *authz.SignIn) { p.Wish("sign-in %s", transcript.Line(req)) }

// Attach implements session.Host.
func (p *player) Attach(channel string, how session.Attach) {
	fill := ""
	if how.Fill > 0 {
		fill = how.Fill.String()
	}
	p.Wish("attach %s %s", channel, transcript.Line(struct {
		Member *presence.Member
		Cache  bool
		Fill   string `json:",omitempty"`
	}{how.Member, how.Cache, fill}))
	if how.Resume != nil {
		p.Wish("resume %s, of %d for %s", transcript.Line(how.Resume), how.Keep.Size, how.Keep.TTL)
	}
}

// Publish implements session.Host.
func (p *player) Publish(pub *message.Publication) {
	p.Wish("publish %s on %s excluding %s, user %q: %s", pub.Event, pub.App+"/"+pub.Channel, pub.Exclude, pub.UserID, pub.Data)
}

// SetUser implements session.Host.
func (p *player) SetUser(user *authz.User, watch []string) {
	p.Wish("set-user %s watching %q", user.ID, watch)
}
