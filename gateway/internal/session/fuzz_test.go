package session_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon/gateway/internal/dialect"
	"github.com/carillon-rt/carillon/gateway/internal/dialect/pusher"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/gateway/internal/session"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

func TestSessionInvariants(t *testing.T) { rapid.Check(t, invariants) }

func FuzzSession(f *testing.F) { f.Fuzz(rapid.MakeFuzz(invariants)) }

// world is a host that checks every wish against what it knows.
type world struct {
	t       *rapid.T
	asked   map[uint32]string // authorizations without an answer
	latest  map[string]uint32 // the latest authorization of a channel
	allowed map[string]bool   // channels whose latest authorization was allowed
	pending map[string]session.Attach
	live    map[string]bool // attached, as the host sees it
	left    map[string]bool // it was live, and that it ended is not told yet
	told    map[string]bool // subscription_succeeded was sent, not unsubscribed since
	signing int
	user    string
	watched bool
	closed  bool
}

// invariants plays random commands and answers, with more channels than a
// session keeps without an index, and with answers that come late or twice.
func invariants(t *rapid.T) {
	w := &world{
		t: t, asked: map[uint32]string{}, latest: map[string]uint32{}, allowed: map[string]bool{},
		pending: map[string]session.Attach{}, live: map[string]bool{}, left: map[string]bool{}, told: map[string]bool{},
	}
	a := testApp()
	a.ClientEvents, a.Watchlist = true, true
	a.Limits.Subscriptions = rapid.SampledFrom([]int{1, 5, 20, 30}).Draw(t, "limit")
	s := session.New(pusher.New(""), &a, dialect.Hello{Key: "key", Protocol: 7}, session.Options{}, w)
	s.Open(0)
	now := int64(0)
	for _, name := range names[len(names)-rapid.SampledFrom([]int{0, 10, 24}).Draw(t, "first"):] {
		s.Message(fmt.Appendf(nil, `{"event":"pusher:subscribe","data":{"channel":%q}}`, name), now)
	}
	for range rapid.IntRange(0, 300).Draw(t, "steps") {
		now += rapid.Int64Range(0, 1e9).Draw(t, "pause")
		w.step(s, now)
		w.compare(s, a.Limits.Subscriptions)
	}
}

var names = func() []string {
	list := []string{"private-a", "private-cache-a", "presence-a", "presence-b", "private-encrypted-a", "cache-a", "#server-to-user-7", "bad name"}
	for i := range 24 {
		list = append(list, fmt.Sprint("public-", i))
	}
	return list
}()

func (w *world) step(s *session.Session, now int64) {
	t := w.t
	name := rapid.SampledFrom(names).Draw(t, "channel")
	switch rapid.IntRange(0, 11).Draw(t, "what") {
	case 0, 1, 2:
		auth := rapid.SampledFrom([]string{"", `,"auth":"key:x"`}).Draw(t, "auth")
		resume := rapid.SampledFrom([]string{"", "", `,"resume":{}`, `,"resume":{"position":"5","epoch":"e"}`, `,"resume":{"rewind":0}`}).Draw(t, "resume")
		s.Message(fmt.Appendf(nil, `{"event":"pusher:subscribe","data":{"channel":%q%s%s}}`, name, auth, resume), now)
	case 3:
		was := w.told[name] || w.has(s, name)
		delete(w.told, name)
		s.Message(fmt.Appendf(nil, `{"event":"pusher:unsubscribe","data":{"channel":%q}}`, name), now)
		if was && !w.closed && w.has(s, name) {
			t.Fatalf("%s is still there after unsubscribe", name)
		}
	case 4, 5:
		w.authorized(s, now)
	case 6, 7:
		w.attached(s, name, now)
	case 8:
		s.Message(fmt.Appendf(nil, `{"event":"client-x","channel":%q,"data":{}}`, name), now)
	case 9:
		s.Message([]byte(`{"event":"pusher:signin","data":{"auth":"key:x","user_data":"{}"}}`), now)
	case 10:
		if w.signing > 0 {
			w.signing--
			id := rapid.SampledFrom([]string{"7", "8"}).Draw(t, "user")
			s.SignInDecided(authz.Decision{Allow: true, User: &authz.User{ID: id, RawID: id, Watchlist: []string{"1", "2"}}}, now)
		} else if w.watched {
			w.watched = false
			s.Watching([]string{"2"}, now)
		}
	case 11:
		switch rapid.IntRange(0, 20).Draw(t, "rare") {
		case 0:
			s.Shut(dialect.Terminated)
		case 1:
			s.Message(rapid.SliceOf(rapid.Byte()).Draw(t, "garbage"), now)
		case 2:
			s.Tick(now)
		default:
			s.Active(now)
		}
	}
}

func (w *world) has(s *session.Session, name string) bool {
	for have := range s.Channels() {
		if have == name {
			return true
		}
	}
	return false
}

// authorized answers one of the open questions, sometimes a second time.
func (w *world) authorized(s *session.Session, now int64) {
	ids := make([]uint32, 0, len(w.asked))
	for id := uint32(0); len(ids) < len(w.asked); id++ {
		if _, open := w.asked[id]; open {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return
	}
	id := rapid.SampledFrom(ids).Draw(w.t, "id")
	if rapid.Bool().Draw(w.t, "once") {
		defer delete(w.asked, id)
	}
	if rapid.IntRange(0, 3).Draw(w.t, "answer") == 0 {
		s.Authorized(id, authz.Refuse(authz.Unavailable, "not now"), nil, now)
		return
	}
	if name := w.asked[id]; w.latest[name] == id {
		w.allowed[name] = true
	}
	s.Authorized(id, authz.Decision{Allow: true, User: &authz.User{ID: "7", RawID: "7"}}, nil, now)
}

func (w *world) attached(s *session.Session, name string, now int64) {
	how, open := w.pending[name]
	if !open {
		return
	}
	delete(w.pending, name)
	r := session.Attached{Channel: name}
	if rapid.IntRange(0, 3).Draw(w.t, "attach") == 0 {
		r.Failed = dialect.Unavailable
	} else {
		w.live[name] = true
		if how.Member != nil {
			r.Members = []presence.Member{*how.Member}
		}
	}
	s.Attached(r, now)
	if !w.closed && w.told[name] != (r.Failed == dialect.None) {
		w.t.Fatalf("attached %s (failed: %s), told the client: %v", name, r.Failed, w.told[name])
	}
}

// compare checks that session and host agree on what there is.
func (w *world) compare(s *session.Session, limit int) {
	if w.closed {
		return
	}
	live, pending, n := map[string]bool{}, 0, 0
	for name, state := range s.Channels() {
		n++
		switch state {
		case session.Live:
			live[name] = true
		case session.Attaching:
			pending++
			if _, open := w.pending[name]; !open {
				w.t.Fatalf("%s waits for an attach that nobody makes", name)
			}
		case session.Authorizing:
			if w.allowed[name] {
				w.t.Fatalf("%s waits for an authorization that was given", name)
			}
		}
	}
	if len(w.left) > 0 {
		w.t.Fatalf("nobody was told that %v ended", w.left)
	}
	if !maps.Equal(live, w.live) || !maps.Equal(live, w.told) || pending != len(w.pending) {
		w.t.Fatalf("session has live %v, host %v, client %v; pending %d and %d", live, w.live, w.told, pending, len(w.pending))
	}
	if n != s.Subscriptions() || n > limit {
		w.t.Fatalf("%d subscriptions counted, %d said, limit %d", n, s.Subscriptions(), limit)
	}
}

// Send implements session.Host.
func (w *world) SocketID() string { return "1.2" }

func (w *world) Send(payload []byte) {
	if w.closed {
		w.t.Fatalf("sent after close: %s", payload)
	}
	var frame struct {
		Event, Channel string
		Data           json.RawMessage
	}
	if err := json.Unmarshal(payload, &frame); err != nil {
		w.t.Fatalf("sent %s: %v", payload, err)
	}
	if frame.Event == "pusher_internal:subscription_succeeded" {
		if w.told[frame.Channel] {
			w.t.Fatalf("%s succeeded twice", frame.Channel)
		}
		w.told[frame.Channel] = true
	}
}

// Close implements session.Host.
func (w *world) Close(dialect.Reason) {
	if w.closed {
		w.t.Fatal("closed twice")
	}
	w.closed = true
}

func (w *world) open(wish string) {
	if w.closed {
		w.t.Fatalf("%s after close", wish)
	}
}

// Authorize implements session.Host.
func (w *world) Authorize(id uint32, req *authz.Subscribe, _ *resume.Wish) {
	w.open("authorize")
	if id <= w.latest[req.Channel] || !channel.KindOf(req.Channel).Private {
		w.t.Fatalf("authorization %d for %s", id, req.Channel)
	}
	w.asked[id], w.latest[req.Channel], w.allowed[req.Channel] = req.Channel, id, false
}

// SignIn implements session.Host.
func (w *world) SignIn(*authz.SignIn) {
	w.open("sign-in")
	if w.signing++; w.signing > 1 {
		w.t.Fatal("two sign-ins at once")
	}
}

// Attach implements session.Host.
func (w *world) Attach(name string, how session.Attach) {
	w.open("attach")
	_, twice := w.pending[name]
	kind := channel.KindOf(name)
	switch {
	case twice || w.live[name]:
		w.t.Fatalf("attached %s twice", name)
	case kind.Private && !w.allowed[name]:
		w.t.Fatalf("attached %s without authorization", name)
	case kind.User && strings.TrimPrefix(name, channel.UserPrefix) != w.user:
		w.t.Fatalf("attached %s as user %q", name, w.user)
	case how.Resume != nil && how.Resume.Wrong != "":
		w.t.Fatalf("attached %s with a wish that is wrong: %s", name, how.Resume.Wrong)
	case kind.Presence != (how.Member != nil), kind.Cache != how.Cache:
		w.t.Fatalf("attached %s with %+v", name, how)
	}
	w.allowed[name] = false
	w.pending[name] = how
}

// Connected implements session.Host.
func (w *world) Connected() { w.open("connected") }

// Unsubscribed implements session.Host: the client was subscribed, and wanted it
// so.
func (w *world) Unsubscribed(name string, code uint32, reason string) {
	w.open("unsubscribed")
	if !w.left[name] || code != 0 || reason != "" {
		w.t.Fatalf("unsubscribed from %s, with %d %q", name, code, reason)
	}
	delete(w.left, name)
}

// Detach implements session.Host.
func (w *world) Detach(name string) {
	w.open("detach")
	if _, open := w.pending[name]; !open && !w.live[name] {
		w.t.Fatalf("detached %s, which is not attached", name)
	}
	if w.live[name] {
		w.left[name] = true
	}
	delete(w.pending, name)
	delete(w.live, name)
}

// Publish implements session.Host.
func (w *world) Publish(pub *message.Publication) {
	w.open("publish")
	kind := channel.KindOf(pub.Channel)
	if !w.live[pub.Channel] || !kind.Private || kind.Encrypted || pub.Exclude != "1.2" || kind.Presence != (pub.UserID == "7") {
		w.t.Fatalf("published %+v", pub)
	}
}

// SetUser implements session.Host.
func (w *world) SetUser(user *authz.User, watch []string) {
	w.open("set-user")
	if w.user != "" || len(watch) != 2 {
		w.t.Fatalf("user %q after %q, watching %q", user.ID, w.user, watch)
	}
	w.user, w.watched = user.ID, true
}
