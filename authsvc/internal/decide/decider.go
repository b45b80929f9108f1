package decide

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/carillon-rt/carillon/authsvc/internal/hook"
	"github.com/carillon-rt/carillon/authsvc/internal/rules"
	"github.com/carillon-rt/carillon/authsvc/internal/token"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
)

// Hooks asks the application: a *hook.Client.
type Hooks interface {
	// Ask fills in out; an error has been logged and says nothing to clients.
	Ask(ctx context.Context, call *hook.Call, out hook.Answer) error
	// Malformed reports an answer that makes no sense.
	Malformed(call *hook.Call, why error)
}

// Decider makes the decisions that may need tokens, hooks or rules. It may be
// used by many goroutines at once.
type Decider struct {
	// immutable after New
	apps       Apps
	sets       token.KeySets
	hooks      Hooks
	now        func() time.Time
	ruleFailed func(app, policy string, err error)

	mu    sync.Mutex // held to compile
	known atomic.Pointer[map[*app.App]*compiled]
}

// New makes a decider. ruleFailed is told of conditions that could not be
// evaluated.
func New(apps Apps, sets token.KeySets, hooks Hooks, now func() time.Time, ruleFailed func(app, policy string, err error)) *Decider {
	d := &Decider{apps: apps, sets: sets, hooks: hooks, now: now, ruleFailed: ruleFailed}
	d.known.Store(&map[*app.App]*compiled{})
	return d
}

// compiled is what an app's settings make once: a new revision of an app is a
// new *app.App.
type compiled struct {
	connections, subscriptions *token.Verifier
	tokenErr                   error
	rules                      map[*app.Policy]rules.OfPolicy
	claims                     bool // some rule looks at claims
}

// Check compiles an app's settings and says what is wrong with each.
func Check(a *app.App) []Mistake {
	var mistakes []Mistake
	for _, f := range []struct {
		field string
		t     app.Token
	}{{"centrifugo.token", a.Centrifugo.Token}, {"centrifugo.subscription_token", a.Centrifugo.SubToken}} {
		if _, err := token.New(f.t, nil, time.Now); err != nil {
			mistakes = append(mistakes, Mistake{Policy: -1, Field: f.field, Err: err})
		}
	}
	_, wrong := rules.OfApp(a)
	for _, m := range wrong {
		mistakes = append(mistakes, Mistake(m))
	}
	return mistakes
}

// Mistake is a setting that can't be used.
type Mistake struct {
	Policy int // its place in the app's list, -1 if it is not of a policy
	Field  string
	Err    error
}

// of gives the compiled settings of an app that the registry has.
func (d *Decider) of(a *app.App) *compiled {
	if c := (*d.known.Load())[a]; c != nil {
		return c
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	old := *d.known.Load()
	if c := old[a]; c != nil {
		return c
	}
	next := map[*app.App]*compiled{}
	for _, other := range d.apps.All() { // those that were replaced are dropped
		if c := old[other]; c != nil {
			next[other] = c
		}
	}
	c := d.compile(a)
	next[a] = c
	d.known.Store(&next)
	return c
}

func (d *Decider) compile(a *app.App) *compiled {
	c := &compiled{rules: map[*app.Policy]rules.OfPolicy{}}
	var connErr, subErr error
	c.connections, connErr = token.New(a.Centrifugo.Token, d.sets, d.now)
	c.subscriptions, subErr = token.New(*a.Centrifugo.Subscriptions(), d.sets, d.now)
	c.tokenErr = errors.Join(connErr, subErr)
	list, _ := rules.OfApp(a) // one that does not compile is nil, which is a no: see holds
	for i, r := range list {
		c.rules[&a.Policies[i]] = r
		c.claims = c.claims || r.Subscribe.Claims() || r.Publish.Claims()
	}
	return c
}

// centrifugo gives the app of a connection with credentials of its own.
func (d *Decider) centrifugo(id string) (*app.App, authz.Decision) {
	a, refusal := findApp(d.apps, id)
	if a == nil {
		return nil, refusal
	}
	if !a.Centrifugo.Enabled {
		return nil, authz.Refuse(authz.NotAvailable, "app "+quote(id)+" takes no Centrifugo clients: set centrifugo.enabled")
	}
	return a, authz.Decision{}
}

// channel resolves a channel that a client named; ok is false for one that it
// must not even name.
func (d *Decider) channel(a *app.App, name string) (e app.Effective, refusal authz.Decision, ok bool) {
	if err := channel.Validate(name); err != nil {
		return e, authz.Refuse(authz.BadData, "channel is not a name: "+err.Error()), false
	}
	if strings.HasPrefix(name, channel.OnlinePrefix) {
		return e, authz.Refuse(authz.Forbidden, "channel names that begin with "+channel.OnlinePrefix+" are reserved"), false
	}
	e = a.Effective(name)
	if a.UnknownNamespace(name, e) {
		return e, authz.Refuse(authz.NoChannel, "no policy knows channels such as "+quote(name)), false
	}
	return e, authz.Decision{}, true
}

// holds says whether a policy's condition allows it; text is as the policy
// has it, r nil when it does not compile.
func (d *Decider) holds(a *app.App, p *app.Policy, r *rules.Rule, text string, q *rules.Question) bool {
	if text == "" {
		return true
	}
	if r == nil {
		d.ruleFailed(a.ID, p.Match, errBroken)
		return false
	}
	ok, err := r.Holds(q)
	if err != nil {
		d.ruleFailed(a.ID, p.Match, err)
	}
	return ok
}

var errBroken = errors.New("the condition does not compile")

// question is what rules look at.
func question(c *authz.Client, name string) *rules.Question {
	return &rules.Question{Channel: name, User: c.User, Client: c.ID, Meta: c.Meta, Info: c.Info, Claims: []byte(c.Claims)}
}

// byToken turns the error of a token into a refusal.
func byToken(err error) authz.Decision {
	var e *token.Error
	if errors.As(err, &e) {
		return authz.Refuse(e.Reason, e.Message)
	}
	return authz.Refuse(authz.Unavailable, "the token can't be verified now, try again")
}

// call makes a question to a hook of the app.
func call(a *app.App, h *app.Hook, kind hook.Kind, c *authz.Client, req hook.Request) *hook.Call {
	return &hook.Call{App: a.ID, Hook: h, Kind: kind, Client: c, Request: req}
}

// meta is sent along where the hook wants it.
func meta(h *app.Hook, c *authz.Client) json.RawMessage {
	if !h.IncludeMeta || c.Meta == "" {
		return nil
	}
	return json.RawMessage(c.Meta)
}

// noAnswer is "can't tell now", whatever went wrong with the hook.
func noAnswer() authz.Decision {
	return authz.Refuse(authz.Unavailable, "the application could not be asked, try again")
}

// nonsense is the same for an answer that makes no sense.
func (d *Decider) nonsense(c *hook.Call, why error) authz.Decision {
	d.hooks.Malformed(c, why)
	return noAnswer()
}

// Codes of disconnects that clients understand.
const (
	closeMin, closeMax = 3000, 4999
	forceDisconnect    = 3503
	connectionExpired  = 3005
	errorExpired       = 110
)

// byApplication is a refusal in the application's own words.
func byApplication(v *authz.Verdict) authz.Decision {
	if v.Disconnect && (v.Code < closeMin || v.Code > closeMax) {
		v.Code = forceDisconnect // none that WebSocket could carry
	}
	return authz.Decision{Reason: authz.Forbidden, Message: "the application refused it", Temporary: v.Temporary, Verdict: v}
}

// fitting gives data as the client's encoding can carry it: JSON on one line
// for a client that speaks JSON, anything for others.
func fitting(c *authz.Client, data []byte) ([]byte, error) {
	if c.Encoding == "binary" || len(data) == 0 {
		return data, nil
	}
	var out bytes.Buffer
	if json.Compact(&out, data) != nil {
		return nil, errNotForJSON
	}
	return out.Bytes(), nil
}

var errNotForJSON = errors.New("data that is not JSON, for a client that speaks JSON")
