package decide_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/carillon-rt/carillon/authsvc/internal/decide"
	"github.com/carillon-rt/carillon/authsvc/internal/hook"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
)

var now = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

// application answers hooks: by kind, the JSON of a response, or "" for none.
type application struct {
	answers   map[hook.Kind]string
	asked     []*hook.Call
	malformed []error
	ruleErrs  []error
}

func (p *application) Ask(_ context.Context, call *hook.Call, out hook.Answer) error {
	p.asked = append(p.asked, call)
	text := p.answers[call.Kind]
	if text == "" {
		return errors.New("hidden: no answer")
	}
	return json.Unmarshal([]byte(text), out)
}

func (p *application) Malformed(_ *hook.Call, why error) { p.malformed = append(p.malformed, why) }

func decider(apps *app.Registry) *decide.Decider { return deciderOn(apps, &application{}) }

func deciderOn(apps *app.Registry, p *application) *decide.Decider {
	return decide.New(apps, nil, p, func() time.Time { return now }, func(_, _ string, err error) { p.ruleErrs = append(p.ruleErrs, err) })
}

// centrifugo is an app that uses all that there is; change adjusts it.
func centrifugo(t testing.TB, change func(*app.App)) *app.Registry {
	t.Helper()
	a := app.App{
		ID: "9", Keys: []app.Key{{Key: "k", Secret: "s"}},
		Hooks: []app.Hook{{Name: "backend", URL: "http://x", IncludeMeta: true}, {Name: "bare", URL: "http://x"}},
		Policies: []app.Policy{
			{Match: "hooked:*", SubscribeHook: "backend", PublishHook: "backend", SubRefreshHook: "backend"},
			{Match: "private-hooked", SubscribeHook: "bare"},
			{Match: "presence-hooked", SubscribeHook: "bare"},
			{Match: "staff:*", Private: true, Publish: app.Subscribers},
			{Match: "if:*", SubscribeIf: `user == "7" || (has(claims.role) && claims.role == "boss")`, PublishIf: `data.ok`, Publish: app.Anyone},
			{Match: "broken:*", SubscribeIf: `meta.role == "x"`, PublishIf: `meta.role == "x"`, Publish: app.Anyone},
			{Match: "both:*", SubscribeHook: "backend", SubscribeIf: `user == "7"`},
			{Match: "users:*", Publish: app.Users},
			{Match: "presence-*"},
		},
		Centrifugo: app.Centrifugo{Enabled: true, Token: app.Token{HMACSecret: "hidden"}},
	}
	if change != nil {
		change(&a)
	}
	apps, err := app.NewRegistry([]app.App{a, {ID: "8", Keys: []app.Key{{Key: "pusher", Secret: "s"}}}})
	if err != nil {
		t.Fatal(err)
	}
	return apps
}

func sign(t testing.TB, claims jwt.MapClaims) string {
	t.Helper()
	raw, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte("hidden"))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func client(user string) authz.Client {
	return authz.Client{App: "9", ID: "c1", User: user, Transport: "websocket", Protocol: "centrifugo", Encoding: "json", Meta: `{"m":1}`, Info: `{"i":1}`}
}

// outcome is a decision in short.
func outcome(d authz.Decision) string {
	switch {
	case d.Verdict != nil && d.Verdict.Disconnect:
		return "disconnect"
	case d.Verdict != nil:
		return "error"
	case !d.Allow:
		return string(d.Reason)
	case d.Credentials != nil && d.Credentials.Expired, d.Grant != nil && d.Grant.ExpireAt > 0 && d.Grant.ExpireAt < now.Unix():
		return "expired"
	}
	return "yes"
}

// expect checks the outcome and that refusals say something, and no secret.
func expect(t testing.TB, name string, d authz.Decision, want string) {
	t.Helper()
	if got := outcome(d); got != want {
		t.Errorf("%s: %s, want %s (%+v)", name, got, want, d)
	}
	if !d.Allow && d.Message == "" || strings.Contains(d.Message, "hidden") {
		t.Errorf("%s: the message is %q", name, d.Message)
	}
}
