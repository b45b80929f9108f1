package decide_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/carillon-rt/carillon/authsvc/internal/decide"
	"github.com/carillon-rt/carillon/authsvc/internal/hook"
	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestConnect(t *testing.T) {
	const later = 1769864400
	for _, c := range []struct {
		name   string
		app    func(*app.App)
		token  jwt.MapClaims
		answer string // of the connect hook, which there is if it is not ""
		want   string
		cred   authz.Credentials
	}{
		{name: "no credentials", want: "forbidden"},
		{name: "anonymous", app: func(a *app.App) { a.Centrifugo.Anonymous = true }, want: "yes"},
		{name: "other app", app: func(a *app.App) { a.Centrifugo.Enabled = false }, want: "not_available"},
		{name: "disabled app", app: func(a *app.App) { a.Disabled = true }, want: "forbidden"},
		{
			name: "token", token: jwt.MapClaims{"sub": "7", "exp": later, "info": []int{1}, "meta": []int{2}, "channels": []string{"x"}}, want: "yes",
			cred: authz.Credentials{User: "7", ExpireAt: later, Info: "[1]", Meta: "[2]", Subs: map[string]authz.Grant{"x": {}}},
		},
		{name: "nobody's token", token: jwt.MapClaims{}, want: "yes"},
		{name: "a token is not asked about", token: jwt.MapClaims{"sub": "7"}, answer: `{"result":{"user":"8"}}`, want: "yes", cred: authz.Credentials{User: "7"}},
		{name: "expired", token: jwt.MapClaims{"exp": 1}, want: "token_expired"},
		{name: "expire_at has passed", token: jwt.MapClaims{"expire_at": 1}, want: "token_expired"},
		{name: "long user", token: jwt.MapClaims{"sub": strings.Repeat("7", 129)}, want: "bad_token"},
		{name: "subscription token", token: jwt.MapClaims{"channel": "x"}, want: "bad_token"},
		{name: "reserved channel", token: jwt.MapClaims{"channels": []string{"#online-7"}}, want: "bad_token"},
		{name: "no channel", token: jwt.MapClaims{"channels": []string{""}}, want: "bad_token"},
		{name: "binary data", token: jwt.MapClaims{"subs": map[string]any{"x": map[string]string{"b64data": "AAE="}}}, want: "bad_token"},
		{name: "unknown namespace", app: func(a *app.App) { a.Centrifugo.KnownNamespaces = true }, token: jwt.MapClaims{"channels": []string{"a:b"}}, want: "bad_token"},
		{name: "many channels", app: func(a *app.App) { a.Limits.Subscriptions = 1 }, token: jwt.MapClaims{"channels": []string{"a", "b"}}, want: "bad_token"},
		{
			name: "personal channel", app: func(a *app.App) { a.Centrifugo.Personal = app.PersonalChannel{Enabled: true, Namespace: "me"} },
			token: jwt.MapClaims{"sub": "7"}, want: "yes", cred: authz.Credentials{User: "7", Subs: map[string]authz.Grant{"me:#7": {}}},
		},
		{name: "hook knows nobody", answer: `{}`, want: "forbidden"},
		{name: "hook knows nobody, which is fine", app: func(a *app.App) { a.Centrifugo.Anonymous = true }, answer: `{"result":null}`, want: "yes"},
		{name: "hook is away", app: func(a *app.App) { a.Centrifugo.ConnectHook, a.Centrifugo.Anonymous = "backend", true }, want: "unavailable"},
		{name: "hook says nobody in particular", answer: `{"result":{}}`, want: "yes"},
		{
			name: "hook says all", answer: `{"result":{"user":"7","expire_at":1769864400,"info":{"a": 1},"data":{"d": 1},"meta":{"m":2},"channels":["x"],"subs":{"y":{"b64data":"Mg==","override":{"presence":{"value":true}}},"z":null}}}`, want: "yes",
			cred: authz.Credentials{User: "7", ExpireAt: later, Info: `{"a":1}`, Data: []byte(`{"d":1}`), Meta: `{"m":2}`, Subs: map[string]authz.Grant{"x": {}, "y": {Data: []byte("2"), Presence: ptr(true)}, "z": {}}},
		},
		{name: "hook refuses", answer: `{"error":{"code":1000,"message":"no"}}`, want: "error"},
		{name: "hook disconnects", answer: `{"disconnect":{"code":4500,"reason":"no"}}`, want: "disconnect"},
		{name: "hook says yes and no", answer: `{"result":{"user":"7"},"error":{"code":1000}}`, want: "error"},
		{name: "hook says two noes", answer: `{"error":{"code":1000},"disconnect":{"code":4500}}`, want: "disconnect"},
		{name: "hook says it has expired", answer: `{"result":{"expire_at":1}}`, want: "disconnect"},
		{name: "hook gives no JSON", answer: `{"result":{"b64info":"AAE="}}`, want: "unavailable"},
		{name: "hook gives binary", answer: `{"result":{"b64data":"AAE="}}`, want: "unavailable"},
		{name: "hook gives no base64", answer: `{"result":{"b64data":"!"}}`, want: "unavailable"},
		{name: "hook gives a filter", answer: `{"result":{"subs":{"x":{"server_tags_filter":{"op":"or"}}}}}`, want: "unavailable"},
		{name: "hook gives a reserved channel", answer: `{"result":{"channels":["#online-1"]}}`, want: "unavailable"},
	} {
		p := &application{answers: map[hook.Kind]string{hook.Connect: c.answer}}
		apps := centrifugo(t, func(a *app.App) {
			if c.answer != "" {
				a.Centrifugo.ConnectHook = "backend"
			}
			if c.app != nil {
				c.app(a)
			}
		})
		req := authz.Connect{Client: client(""), Data: []byte(`{"hello":1}`), Name: "js", Version: "1", Channels: []string{"x"}}
		if c.token != nil {
			req.Token = sign(t, c.token)
		}
		d := deciderOn(apps, p).Connect(t.Context(), &req)
		expect(t, c.name, d, c.want)
		if c.want != "yes" {
			continue
		}
		if len(d.Credentials.Subs) == 0 {
			d.Credentials.Subs = nil
		}
		d.Credentials.Claims = "" // see TestClaimsOfConnections
		if !reflect.DeepEqual(*d.Credentials, c.cred) {
			t.Errorf("%s: %+v, want %+v", c.name, *d.Credentials, c.cred)
		}
	}
}

func ptr[T any](v T) *T { return &v }

func TestConnectQuestion(t *testing.T) {
	p := &application{answers: map[hook.Kind]string{hook.Connect: `{}`}}
	apps := centrifugo(t, func(a *app.App) { a.Centrifugo.ConnectHook = "backend" })
	req := authz.Connect{Client: client(""), Data: []byte{0, 1}, Name: "js", Version: "1", Channels: []string{"x"}}
	deciderOn(apps, p).Connect(t.Context(), &req)
	want := &hook.ConnectRequest{
		From: hook.From{Client: "c1", Transport: "websocket", Protocol: "json", Encoding: "binary"}, B64Data: "AAE=", Name: "js", Version: "1", Channels: []string{"x"},
	}
	if len(p.asked) != 1 || !reflect.DeepEqual(p.asked[0].Request, want) {
		t.Errorf("asked %+v, want %+v", p.asked, want)
	}
	if d := deciderOn(apps, p).Connect(t.Context(), &authz.Connect{Client: authz.Client{App: "8"}}); d.Reason != authz.NotAvailable {
		t.Errorf("an app without Centrifugo: %+v", d)
	}
	if d := deciderOn(apps, p).Connect(t.Context(), &authz.Connect{Client: authz.Client{App: "7"}}); d.Reason != authz.Unavailable {
		t.Errorf("an app that is not known: %+v", d)
	}
}

func TestRefresh(t *testing.T) {
	for _, c := range []struct {
		name   string
		token  jwt.MapClaims
		hook   bool
		answer string
		want   string
		cred   authz.Credentials
	}{
		{name: "nothing", want: "not_available"},
		{name: "token", token: jwt.MapClaims{"sub": "7", "exp": 1769864400}, want: "yes", cred: authz.Credentials{User: "7", ExpireAt: 1769864400}},
		{name: "token of another", token: jwt.MapClaims{"sub": "8"}, want: "foreign_token"},
		{name: "expired token", token: jwt.MapClaims{"sub": "7", "exp": 1}, want: "expired"},
		{name: "expired at once", token: jwt.MapClaims{"sub": "7", "expire_at": 1}, want: "expired"},
		{
			name: "hook", hook: true, answer: `{"result":{"expire_at":1769864400,"info":2,"meta":3}}`, want: "yes",
			cred: authz.Credentials{User: "7", ExpireAt: 1769864400, Info: "2", Meta: "3", ServerRefresh: true},
		},
		{
			name: "hook, for ever", hook: true, answer: `{"result":{}}`, want: "yes",
			cred: authz.Credentials{User: "7", Info: `{"i":1}`, Meta: `{"m":1}`, ServerRefresh: true},
		},
		{
			name: "hook is away", hook: true, want: "yes",
			cred: authz.Credentials{User: "7", ExpireAt: now.Unix() + 60, Info: `{"i":1}`, Meta: `{"m":1}`, ServerRefresh: true},
		},
		{
			name: "hook talks nonsense", hook: true, answer: `{"result":{"b64info":"!"}}`, want: "yes",
			cred: authz.Credentials{User: "7", ExpireAt: now.Unix() + 60, Info: `{"i":1}`, Meta: `{"m":1}`, ServerRefresh: true},
		},
		{name: "hook says nothing", hook: true, answer: `{}`, want: "expired"},
		{name: "hook says expired", hook: true, answer: `{"result":{"expired":true}}`, want: "expired"},
		{name: "hook says it was over", hook: true, answer: `{"result":{"expire_at":1}}`, want: "expired"},
		{name: "hook refuses", hook: true, answer: `{"error":{"code":1000}}`, want: "error"},
		{name: "hook disconnects", hook: true, answer: `{"disconnect":{"code":4500}}`, want: "disconnect"},
	} {
		p := &application{answers: map[hook.Kind]string{hook.Refresh: c.answer}}
		apps := centrifugo(t, func(a *app.App) {
			if c.hook {
				a.Centrifugo.RefreshHook = "backend"
			}
		})
		req := authz.Refresh{Client: client("7")}
		if c.token != nil {
			req.Token = sign(t, c.token)
		}
		d := deciderOn(apps, p).Refresh(t.Context(), &req)
		expect(t, c.name, d, c.want)
		if c.want != "yes" {
			continue
		}
		d.Credentials.Subs = nil
		d.Credentials.Claims = "" // see TestClaimsOfConnections
		if !reflect.DeepEqual(*d.Credentials, c.cred) {
			t.Errorf("%s: %+v, want %+v", c.name, *d.Credentials, c.cred)
		}
	}
}

func TestSubscribeClient(t *testing.T) {
	ok := `{"result":{}}`
	for _, c := range []struct {
		name    string
		channel string
		user    string
		token   jwt.MapClaims
		answer  string
		want    string
		asked   bool
	}{
		{name: "open", channel: "news", want: "yes"},
		{name: "open, of a namespace", channel: "ns:news", want: "yes"},
		{name: "empty", channel: "", want: "bad_data"},
		{name: "reserved", channel: "#online-7", user: "7", want: "forbidden"},
		{name: "reserved, as its user", channel: "#online-7", user: "online-7", want: "forbidden"},
		{name: "private mark", channel: "$news", user: "7", want: "forbidden"},
		{name: "private prefix", channel: "private-news", user: "7", want: "forbidden"},
		{name: "private policy", channel: "staff:1", user: "7", want: "forbidden"},
		{name: "presence", channel: "presence-a", user: "7", want: "forbidden"},
		{name: "private with token", channel: "$news", user: "7", token: jwt.MapClaims{"sub": "7", "channel": "$news"}, want: "yes"},
		{name: "private policy with token", channel: "staff:1", user: "7", token: jwt.MapClaims{"sub": "7", "channel": "staff:1"}, want: "yes"},
		{name: "presence with token", channel: "presence-a", user: "7", token: jwt.MapClaims{"sub": "7", "channel": "presence-a"}, want: "yes"},
		{name: "presence of nobody", channel: "presence-a", token: jwt.MapClaims{"channel": "presence-a"}, want: "forbidden"},
		{name: "presence of much", channel: "presence-a", user: "7", token: jwt.MapClaims{"sub": "7", "channel": "presence-a", "info": strings.Repeat("x", 2000)}, want: "too_large"},
		{name: "token of another user", channel: "$news", user: "7", token: jwt.MapClaims{"sub": "8", "channel": "$news"}, want: "foreign_token"},
		{name: "token of another channel", channel: "$news", user: "7", token: jwt.MapClaims{"sub": "7", "channel": "$new"}, want: "foreign_token"},
		{name: "token of another connection", channel: "$news", user: "7", token: jwt.MapClaims{"sub": "7", "channel": "$news", "client": "c2"}, want: "foreign_token"},
		{name: "token of this connection", channel: "$news", user: "7", token: jwt.MapClaims{"sub": "7", "channel": "$news", "client": "c1"}, want: "yes"},
		{name: "expired token", channel: "$news", user: "7", token: jwt.MapClaims{"sub": "7", "channel": "$news", "exp": 1}, want: "token_expired"},
		{name: "token that was over", channel: "$news", user: "7", token: jwt.MapClaims{"sub": "7", "channel": "$news", "expire_at": 1}, want: "token_expired"},
		{name: "bad token for an open channel", channel: "news", user: "7", token: jwt.MapClaims{"sub": "7"}, want: "bad_token"},
		{name: "binary data", channel: "news", user: "7", token: jwt.MapClaims{"sub": "7", "channel": "news", "b64data": "AAE="}, want: "bad_token"},
		{name: "listed", channel: "news#7,8", user: "7", want: "yes"},
		{name: "not listed", channel: "news#7,8", user: "9", want: "forbidden"},
		{name: "nobody listed", channel: "news#7,8", want: "forbidden"},
		{name: "not listed, with a token", channel: "news#7", user: "9", token: jwt.MapClaims{"sub": "9", "channel": "news#7"}, want: "forbidden"},
		{name: "listed and private", channel: "$news#7", user: "7", want: "forbidden"},
		{name: "listed and private, with a token", channel: "$news#7", user: "7", token: jwt.MapClaims{"sub": "7", "channel": "$news#7"}, want: "yes"},
		{name: "listed and hooked", channel: "hooked:#7", user: "7", want: "yes"},
		{name: "not listed and hooked", channel: "hooked:#7", user: "8", answer: ok, want: "forbidden"},
		{name: "own user channel", channel: "#server-to-user-7", user: "7", want: "yes"},
		{name: "user channel of another", channel: "#server-to-user-7", user: "8", want: "forbidden"},
		{name: "hook", channel: "hooked:1", answer: ok, want: "yes", asked: true},
		{name: "hook says nothing", channel: "hooked:1", answer: `{}`, want: "yes", asked: true},
		{name: "hook of a private name", channel: "private-hooked", answer: ok, want: "yes", asked: true},
		{name: "hook of a marked name", channel: "$hooked:1", answer: ok, want: "yes", asked: true},
		{name: "hook is away", channel: "hooked:1", want: "unavailable", asked: true},
		{name: "hook refuses", channel: "hooked:1", answer: `{"error":{"code":1000}}`, want: "error", asked: true},
		{name: "hook disconnects", channel: "hooked:1", answer: `{"disconnect":{}}`, want: "disconnect", asked: true},
		{name: "hook says it was over", channel: "hooked:1", answer: `{"result":{"expire_at":1}}`, want: "error", asked: true},
		{name: "hook gives binary", channel: "hooked:1", answer: `{"result":{"b64data":"AAE="}}`, want: "unavailable", asked: true},
		{name: "hook gives a filter", channel: "hooked:1", answer: `{"result":{"server_tags_filter":{"op":"or"}}}`, want: "unavailable", asked: true},
		{name: "hook of a presence channel", channel: "presence-hooked", user: "7", answer: ok, want: "yes", asked: true},
		{name: "hook of a presence channel, for nobody", channel: "presence-hooked", answer: ok, want: "forbidden", asked: true},
		{name: "a token is not asked about", channel: "hooked:1", user: "7", token: jwt.MapClaims{"sub": "7", "channel": "hooked:1"}, want: "yes"},
		{name: "condition", channel: "if:1", user: "7", want: "yes"},
		{name: "condition fails", channel: "if:1", user: "8", want: "forbidden"},
		{name: "condition on the token", channel: "if:1", user: "8", token: jwt.MapClaims{"sub": "8", "channel": "if:1", "role": "boss"}, want: "yes"},
		{name: "condition fails on the token", channel: "if:1", user: "8", token: jwt.MapClaims{"sub": "8", "channel": "if:1", "role": "x"}, want: "forbidden"},
		{name: "condition that can't be told", channel: "broken:1", user: "7", want: "forbidden"},
		{name: "hook and condition", channel: "both:1", user: "7", answer: ok, want: "yes", asked: true},
		{name: "the hook is not asked for nothing", channel: "both:1", user: "8", answer: ok, want: "forbidden"},
	} {
		p := &application{answers: map[hook.Kind]string{hook.Subscribe: c.answer}}
		who := client(c.user)
		req := authz.Subscribe{Client: &who, Channel: c.channel, Data: []byte(`{"d":1}`)}
		if c.token != nil {
			req.Token = sign(t, c.token)
		}
		d := deciderOn(centrifugo(t, nil), p).Subscribe(t.Context(), &req)
		expect(t, c.name, d, c.want)
		if (len(p.asked) > 0) != c.asked {
			t.Errorf("%s: asked %d times", c.name, len(p.asked))
		}
		if d.Allow && d.Grant == nil {
			t.Errorf("%s: no grant", c.name)
		}
		if member := strings.HasPrefix(c.channel, "presence-") && d.Allow; (d.User != nil) != member || member && (d.User.ID != "7" || d.User.RawID != `"7"` || d.User.Info == "") {
			t.Errorf("%s: the member is %+v", c.name, d.User)
		}
	}
}

func TestSubscribeGrants(t *testing.T) {
	p := &application{answers: map[hook.Kind]string{
		hook.Subscribe: `{"result":{"expire_at":1769864400,"info":{"a": 1},"data":{"b": 2},"override":{"join_leave":{"value":true}},"allow":["pub","hst","prs","x"]}}`,
	}}
	who := client("7")
	d := deciderOn(centrifugo(t, nil), p).Subscribe(t.Context(), &authz.Subscribe{Client: &who, Channel: "hooked:1", Data: []byte(`{"d":1}`)})
	want := authz.Grant{ExpireAt: 1769864400, Info: `{"a":1}`, Data: []byte(`{"b":2}`), JoinLeave: ptr(true), Publish: true, History: true, ReadPresence: true}
	if !d.Allow || !reflect.DeepEqual(*d.Grant, want) {
		t.Errorf("grant %+v, want %+v", d.Grant, want)
	}
	asked := &hook.SubscribeRequest{
		From: hook.From{Client: "c1", Transport: "websocket", Protocol: "json", Encoding: "json"},
		User: "7", Channel: "hooked:1", Meta: json.RawMessage(`{"m":1}`), Data: json.RawMessage(`{"d":1}`),
	}
	if !reflect.DeepEqual(p.asked[0].Request, asked) {
		t.Errorf("asked %+v, want %+v", p.asked[0].Request, asked)
	}
	keyless := centrifugo(t, func(a *app.App) { a.Centrifugo.Token = app.Token{} })
	if d := deciderOn(keyless, p).Subscribe(t.Context(), &authz.Subscribe{Client: &who, Channel: "hooked:1", Token: "of its own"}); !d.Allow || p.asked[1].Request.(*hook.SubscribeRequest).Token != "of its own" {
		t.Errorf("a token that only the hook can read: %+v", d)
	}
	if d := deciderOn(keyless, p).Subscribe(t.Context(), &authz.Subscribe{Client: &who, Channel: "news", Token: "of its own"}); d.Reason != authz.BadToken {
		t.Errorf("a token that nobody can read: %+v", d)
	}
	known := centrifugo(t, func(a *app.App) { a.Centrifugo.KnownNamespaces = true })
	if d := deciderOn(known, p).Subscribe(t.Context(), &authz.Subscribe{Client: &who, Channel: "other:1"}); d.Reason != authz.NoChannel {
		t.Errorf("unknown namespace: %+v", d)
	}
}

// What a name or policy protects is protected from every protocol (P6): here
// from connections that show signatures.
func TestSubscribeSignedSeesHooksAndConditions(t *testing.T) {
	apps := centrifugo(t, nil)
	anna := &authz.User{ID: "7", RawID: "7", Info: `{"n":1}`}
	for _, c := range []struct {
		name, channel string
		user          *authz.User
		auth          string
		answer        string
		want          string
	}{
		{name: "open", channel: "news", want: "yes"},
		{name: "private mark", channel: "$news", user: anna, want: "bad_signature"},
		{name: "list", channel: "news#7", user: anna, want: "yes"},
		{name: "not on the list", channel: "news#8", user: anna, want: "forbidden"},
		{name: "list and nobody", channel: "news#7", want: "forbidden"},
		{name: "hook", channel: "hooked:1", answer: `{}`, want: "yes"},
		{name: "hook refuses", channel: "hooked:1", answer: `{"error":{"code":1}}`, want: "error"},
		{name: "hook is away", channel: "hooked:1", want: "unavailable"},
		{name: "hook of a private channel", channel: "private-hooked", answer: `{}`, want: "yes"},
		{name: "signed", channel: "private-hooked", auth: auth("k", "s", "private-hooked", ""), want: "yes"},
		{name: "signed badly", channel: "private-hooked", auth: "k:x", answer: `{}`, want: "bad_signature"},
		{name: "hook of an open channel, signed badly", channel: "hooked", auth: "k:x", answer: `{}`, want: "yes"}, // matches no policy
		{name: "hook of an open namespace, signed badly", channel: "hooked:1", auth: "k:x", answer: `{}`, want: "forbidden"},
		{name: "presence", channel: "presence-hooked", user: anna, answer: `{}`, want: "yes"},
		{name: "presence of nobody", channel: "presence-hooked", answer: `{}`, want: "bad_data"},
		{name: "condition", channel: "if:1", user: anna, want: "yes"},
		{name: "condition fails", channel: "if:1", want: "forbidden"},
		{name: "hook and condition", channel: "both:1", user: anna, answer: `{}`, want: "yes"},
		{name: "condition fails, before the hook", channel: "both:1", want: "forbidden"}, // who would give no answer
	} {
		p := &application{answers: map[hook.Kind]string{hook.Subscribe: c.answer}}
		d := deciderOn(apps, p).Subscribe(t.Context(), &authz.Subscribe{App: "9", SocketID: "1234.1234", Channel: c.channel, User: c.user, Auth: c.auth, Transport: "xhr_polling"})
		expect(t, c.name, d, c.want)
		for _, call := range p.asked {
			if from := call.Request.(*hook.SubscribeRequest).From; from.Transport != "xhr_polling" || from.Protocol != "pusher" || from.Client != "1234.1234" {
				t.Errorf("%s: the hook is told of %+v", c.name, from)
			}
		}
	}
}

func TestSubRefresh(t *testing.T) {
	for _, c := range []struct {
		name, channel string
		token         jwt.MapClaims
		answer        string
		want          string
		grant         authz.Grant
	}{
		{name: "nothing", channel: "news", want: "not_available"},
		{name: "reserved", channel: "#online-7", want: "forbidden"},
		{name: "token", channel: "$x", token: jwt.MapClaims{"sub": "7", "channel": "$x", "exp": 1769864400}, want: "yes", grant: authz.Grant{ExpireAt: 1769864400}},
		{name: "token of another channel", channel: "$x", token: jwt.MapClaims{"sub": "7", "channel": "$y"}, want: "foreign_token"},
		{name: "expired token", channel: "$x", token: jwt.MapClaims{"sub": "7", "channel": "$x", "exp": 1}, want: "expired"},
		{name: "hook", channel: "hooked:1", answer: `{"result":{"expire_at":1769864400,"info":1}}`, want: "yes", grant: authz.Grant{ExpireAt: 1769864400, Info: "1"}},
		{name: "hook is away", channel: "hooked:1", want: "yes", grant: authz.Grant{ExpireAt: now.Unix() + 60}},
		{name: "hook talks nonsense", channel: "hooked:1", answer: `{"result":{"b64info":"!"}}`, want: "yes", grant: authz.Grant{ExpireAt: now.Unix() + 60}},
		{name: "hook says nothing", channel: "hooked:1", answer: `{}`, want: "expired"},
		{name: "hook says expired", channel: "hooked:1", answer: `{"result":{"expired":true,"expire_at":1769864400}}`, want: "expired"},
		{name: "hook says it was over", channel: "hooked:1", answer: `{"result":{"expire_at":1}}`, want: "expired"},
		{name: "hook refuses", channel: "hooked:1", answer: `{"error":{"code":103}}`, want: "error"},
	} {
		p := &application{answers: map[hook.Kind]string{hook.SubRefresh: c.answer}}
		req := authz.SubRefresh{Client: client("7"), Channel: c.channel}
		if c.token != nil {
			req.Token = sign(t, c.token)
		}
		d := deciderOn(centrifugo(t, nil), p).SubRefresh(t.Context(), &req)
		expect(t, c.name, d, c.want)
		if c.want == "yes" && !reflect.DeepEqual(*d.Grant, c.grant) {
			t.Errorf("%s: %+v, want %+v", c.name, *d.Grant, c.grant)
		}
	}
}

func TestPublish(t *testing.T) {
	for _, c := range []struct {
		name, channel, user string
		data                string
		subscribed, granted bool
		answer              string
		want                string
		edited              authz.Edited
	}{
		{name: "nobody may", channel: "news", user: "7", subscribed: true, want: "forbidden"},
		{name: "granted", channel: "news", granted: true, want: "yes"},
		{name: "subscriber", channel: "staff:1", subscribed: true, want: "yes"},
		{name: "no subscriber", channel: "staff:1", user: "7", want: "forbidden"},
		{name: "user", channel: "users:1", user: "7", want: "yes"},
		{name: "no user", channel: "users:1", subscribed: true, want: "forbidden"},
		{name: "not on the list", channel: "users:#8", user: "7", want: "forbidden"},
		{name: "on the list", channel: "users:#7", user: "7", want: "yes"},
		{name: "reserved", channel: "#online-7", user: "7", granted: true, want: "forbidden"},
		{name: "condition", channel: "if:1", data: `{"ok":true}`, want: "yes"},
		{name: "condition fails", channel: "if:1", data: `{"ok":false}`, want: "forbidden"},
		{name: "condition fails, granted", channel: "if:1", data: `{"ok":false}`, granted: true, want: "forbidden"},
		{name: "condition can't be told", channel: "if:1", data: `{}`, want: "forbidden"},
		{name: "hook", channel: "hooked:1", answer: `{}`, want: "yes"},
		{
			name: "hook edits", channel: "hooked:1", answer: `{"result":{"data":{"x": 1},"tags":{"a":"b"},"skip_history":true,"idempotency_key":"k","delta":true}}`, want: "yes",
			edited: authz.Edited{Data: []byte(`{"x":1}`), Tags: map[string]string{"a": "b"}, SkipHistory: true, IdempotencyKey: "k", Delta: true},
		},
		{name: "hook refuses, granted", channel: "hooked:1", granted: true, answer: `{"error":{"code":103}}`, want: "error"},
		{name: "hook is away, granted", channel: "hooked:1", granted: true, want: "unavailable"},
		{name: "hook gives too much", channel: "hooked:1", answer: `{"result":{"data":"` + strings.Repeat("x", 11<<10) + `"}}`, want: "unavailable"},
		{name: "hook gives binary", channel: "hooked:1", answer: `{"result":{"b64data":"AAE="}}`, want: "unavailable"},
		{name: "hook gives too long a key", channel: "hooked:1", answer: `{"result":{"idempotency_key":"` + strings.Repeat("x", 129) + `"}}`, want: "unavailable"},
		{name: "hook gives too many tags", channel: "hooked:1", answer: `{"result":{"tags":{"0":""` + manyTags(64) + `}}}`, want: "unavailable"},
	} {
		p := &application{answers: map[hook.Kind]string{hook.Publish: c.answer}}
		d := deciderOn(centrifugo(t, nil), p).Publish(t.Context(), &authz.Publish{
			Client: client(c.user), Channel: c.channel, Data: []byte(c.data), Subscribed: c.subscribed, Granted: c.granted,
		})
		expect(t, c.name, d, c.want)
		if c.want == "yes" && !reflect.DeepEqual(*d.Edited, c.edited) {
			t.Errorf("%s: %+v, want %+v", c.name, *d.Edited, c.edited)
		}
	}
}

// manyTags are n members of a JSON object that has some.
func manyTags(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"t%d":""`, i)
	}
	return b.String()
}

func TestRPC(t *testing.T) {
	some := func(a *app.App) { a.Centrifugo.RPC = []app.RPC{{Match: "chat:*", Hook: "backend"}} }
	for _, c := range []struct {
		name, method string
		app          func(*app.App)
		answer       string
		want, reply  string
	}{
		{name: "no calls", method: "x", want: "not_available"},
		{name: "unknown method", method: "x", app: some, want: "no_method"},
		{name: "call", method: "chat:x", app: some, answer: `{"result":{"data":{"a": 1}}}`, want: "yes", reply: `{"a":1}`},
		{name: "no result", method: "chat:x", app: some, answer: `{}`, want: "yes"},
		{name: "no answer", method: "chat:x", app: some, want: "unavailable"},
		{name: "refused", method: "chat:x", app: some, answer: `{"error":{"code":1000,"message":"m","temporary":true}}`, want: "error"},
		{name: "binary", method: "chat:x", app: some, answer: `{"result":{"b64data":"AAE="}}`, want: "unavailable"},
	} {
		p := &application{answers: map[hook.Kind]string{hook.RPC: c.answer}}
		d := deciderOn(centrifugo(t, c.app), p).RPC(t.Context(), &authz.RPC{Client: client("7"), Method: c.method, Data: []byte(`[]`)})
		expect(t, c.name, d, c.want)
		if string(d.Reply) != c.reply {
			t.Errorf("%s: reply %s, want %s", c.name, d.Reply, c.reply)
		}
	}
	p := &application{answers: map[hook.Kind]string{hook.RPC: `{"result":{"b64data":"AAE="}}`}}
	binary := client("7")
	binary.Encoding = "binary"
	d := deciderOn(centrifugo(t, some), p).RPC(t.Context(), &authz.RPC{Client: binary, Method: "chat:x"})
	if !d.Allow || string(d.Reply) != "\x00\x01" {
		t.Errorf("binary client: %+v", d)
	}
}

func TestVerdicts(t *testing.T) {
	for answer, want := range map[string]authz.Verdict{
		`{"error":{"code":1000,"message":"m","temporary":true}}`: {Code: 1000, Text: "m", Temporary: true},
		`{"error":{}}`: {},
		`{"disconnect":{"code":4500,"reason":"r"}}`: {Disconnect: true, Code: 4500, Text: "r"},
		`{"disconnect":{"code":7}}`:                 {Disconnect: true, Code: 3503},
	} {
		p := &application{answers: map[hook.Kind]string{hook.Subscribe: answer}}
		who := client("7")
		d := deciderOn(centrifugo(t, nil), p).Subscribe(t.Context(), &authz.Subscribe{Client: &who, Channel: "hooked:1"})
		if d.Allow || d.Verdict == nil || *d.Verdict != want || d.Temporary != want.Temporary {
			t.Errorf("%s: %+v, want %+v", answer, d.Verdict, want)
		}
	}
}

// Settings that changed count from the next request on.
func TestRevisions(t *testing.T) {
	apps := centrifugo(t, nil)
	d := decider(apps)
	req := authz.Connect{Client: client(""), Token: sign(t, jwt.MapClaims{"sub": "7"})}
	expect(t, "first", d.Connect(t.Context(), &req), "yes")
	next := *apps.ByID("9")
	next.Centrifugo.Token.HMACSecret = "other"
	if err := apps.Replace([]app.App{next}); err != nil {
		t.Fatal(err)
	}
	expect(t, "replaced", d.Connect(t.Context(), &req), "bad_token")
	next.Centrifugo.Token.PublicKeys = []string{"not a key"}
	if err := apps.Replace([]app.App{next}); err != nil {
		t.Fatal(err)
	}
	expect(t, "unusable", d.Connect(t.Context(), &req), "unavailable")
	next.Policies = []app.Policy{{Match: "*", SubscribeIf: "what is this"}}
	if err := apps.Replace([]app.App{next}); err != nil {
		t.Fatal(err)
	}
	who := client("7")
	expect(t, "condition that does not compile", d.Subscribe(t.Context(), &authz.Subscribe{Client: &who, Channel: "x"}), "forbidden")
	if got := decide.Check(&next); len(got) != 2 || got[0].Policy != -1 || got[1].Policy != 0 || got[1].Field != "subscribe_if" {
		t.Errorf("mistakes: %+v", got)
	}
}
