package authsvc_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"
	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/authsvc"
	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/subject"
)

// backend is an application: hooks at /hook, its key set at /keys.
type backend struct {
	*httptest.Server
	asked   atomic.Int32
	private ed25519.PrivateKey
	hold    chan struct{} // nil, or hooks wait for it
}

func newBackend(t testing.TB) *backend {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: "1"}}})
	if err != nil {
		t.Fatal(err)
	}
	b := &backend{private: private}
	b.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/keys" {
			_, _ = w.Write(set)
			return
		}
		b.asked.Add(1)
		if b.hold != nil {
			<-b.hold
		}
		switch kind := r.Header.Get("Carillon-Hook"); kind {
		case "connect":
			_, _ = io.WriteString(w, `{"result":{"user":"`+r.Header.Get("X-User")+`"}}`)
		case "rpc":
			if r.Header.Get("X-User") == "large" {
				_, _ = io.WriteString(w, `{"result":{"data":"`+strings.Repeat("x", 1000<<10)+`"}}`)
				return
			}
			_, _ = io.WriteString(w, `{"result":{"data":`+string(body)+`}}`)
		default:
			_, _ = io.WriteString(w, `{"error":{"code":1000,"message":"`+kind+`"}}`)
		}
	}))
	t.Cleanup(b.Close)
	return b
}

func (b *backend) app() app.App {
	return app.App{
		ID: "1", Keys: []app.Key{{Key: key, Secret: secret}},
		Hooks:    []app.Hook{{Name: "h", URL: b.URL + "/hook", ForwardHeaders: []string{"X-User"}, Timeout: 20 * time.Second, Concurrency: 4}},
		Policies: []app.Policy{{Match: "h-*", SubscribeHook: "h", PublishHook: "h", SubRefreshHook: "h"}},
		Centrifugo: app.Centrifugo{
			Enabled: true, ConnectHook: "h", RefreshHook: "h", Token: app.Token{JWKSURL: b.URL + "/keys"}, RPC: []app.RPC{{Match: "*", Hook: "h"}},
		},
	}
}

func (b *backend) token(t testing.TB, claims jwt.MapClaims) string {
	t.Helper()
	tok := jwt.NewWithClaims(jwt.SigningMethodEdDSA, claims)
	tok.Header["kid"] = "1"
	raw, err := tok.SignedString(b.private)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func of(t testing.TB, apps ...app.App) *app.Registry {
	t.Helper()
	r, err := app.NewRegistry(apps)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCentrifugoEndpoints(t *testing.T) {
	leaktest.Check(t)
	srv, b := natstest.Server(t), newBackend(t)
	start(t, srv, "a", of(t, b.app()))
	nc := srv.Conns(t).Req
	c := authz.Client{App: "1", ID: "c1", User: "7", Encoding: "json", Headers: map[string]string{"x-user": "9"}}

	d := ask(t, nc, subject.AuthConnect, request(t, authz.Connect{Client: c, Token: b.token(t, jwt.MapClaims{"sub": "7"})}))
	if !d.Allow || d.Credentials.User != "7" || !d.Credentials.ServerRefresh {
		t.Errorf("token: %+v", d)
	}
	d = ask(t, nc, subject.AuthConnect, request(t, authz.Connect{Client: c}))
	if !d.Allow || d.Credentials.User != "9" {
		t.Errorf("hook: %+v", d)
	}
	sub := authz.Subscribe{Client: &c, Channel: "$x", Token: b.token(t, jwt.MapClaims{"sub": "7", "channel": "$x", "info": 1})}
	if d := ask(t, nc, subject.AuthSubscribe, request(t, sub)); !d.Allow || d.Grant.Info != "1" {
		t.Errorf("subscription token: %+v", d)
	}
	rpc := ask(t, nc, subject.AuthRPC, request(t, authz.RPC{Client: c, Method: "m", Data: []byte(`"<x>"`)}))
	if want := `{"client":"c1","transport":"","protocol":"","encoding":"json","user":"7","method":"m","data":"<x>"}`; !rpc.Allow || string(rpc.Reply) != want {
		t.Errorf("call: %+v, %s", rpc, rpc.Reply)
	}
	for subj, q := range map[string]struct {
		kind string
		req  any
	}{
		subject.AuthSubscribe:  {"subscribe", authz.Subscribe{Client: &c, Channel: "h-1"}},
		subject.AuthRefresh:    {"refresh", authz.Refresh{Client: c}},
		subject.AuthSubRefresh: {"sub_refresh", authz.SubRefresh{Client: c, Channel: "h-1"}},
		subject.AuthPublish:    {"publish", authz.Publish{Client: c, Channel: "h-1"}},
	} {
		d := ask(t, nc, subj, request(t, q.req))
		if d.Allow || d.Verdict == nil || d.Verdict.Code != 1000 || d.Verdict.Text != q.kind {
			t.Errorf("%s: %+v", subj, d)
		}
		if d := ask(t, nc, subj, []byte("not JSON")); d.Allow || d.Reason != authz.BadData {
			t.Errorf("malformed request to %s: %+v", subj, d)
		}
	}
}

// An answer that a hook may give and NATS can't carry to the gateway is none,
// and that is said at once.
func TestAnswerTooLargeForNATS(t *testing.T) {
	leaktest.Check(t)
	srv, b := natstest.Server(t), newBackend(t)
	start(t, srv, "a", of(t, b.app()))
	c := authz.Client{App: "1", ID: "c1", Encoding: "json", Headers: map[string]string{"x-user": "large"}}
	d := ask(t, srv.Conns(t).Req, subject.AuthRPC, request(t, authz.RPC{Client: c, Method: "m"}))
	if d.Allow || d.Reason != authz.Unavailable || !d.Temporary || len(d.Reply) > 0 {
		t.Errorf("%+v", d)
	}
}

// A hook that hangs holds up neither signatures nor tokens; beyond the limit
// of those who wait the answer is "can't tell now".
func TestHooksHoldUpNobody(t *testing.T) {
	leaktest.Check(t)
	srv, b := natstest.Server(t), newBackend(t)
	b.hold = make(chan struct{})
	cfg := authsvc.DefaultConfig()
	cfg.Workers, cfg.Waiting = 1, 8
	stop := startWith(t, srv, "a", cfg, of(t, b.app()))
	nc := srv.Conns(t).Req
	signed := request(t, subscribeRequest("private-x", ""))
	ask(t, nc, subject.AuthSubscribe, signed) // it is up
	connect := request(t, authz.Connect{Client: authz.Client{App: "1", ID: "c1", Encoding: "json"}})
	answers := make(chan *nats.Msg, 100)
	inbox := nc.NewInbox()
	sub, err := nc.ChanSubscribe(inbox, answers)
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Unsubscribe()
	for range 8 {
		if err := nc.PublishRequest(subject.AuthConnect, inbox, connect); err != nil {
			t.Fatal(err)
		}
	}
	await.True(t, "the hook to be asked", func() bool { return b.asked.Load() == 4 })
	if d := ask(t, nc, subject.AuthSubscribe, signed); !d.Allow {
		t.Errorf("a signature, while the hook hangs: %+v", d)
	}
	if d := ask(t, nc, subject.AuthConnect, connect); d.Allow || !d.Temporary || !strings.Contains(d.Message, "too many") {
		t.Errorf("one more: %+v", d)
	}
	// Those that wait are answered when the service stops.
	done := make(chan error, 1)
	go func() { done <- stop() }()
	close(b.hold)
	for range 8 {
		select {
		case msg := <-answers:
			var d authz.Decision
			if err := json.Unmarshal(msg.Data, &d); err != nil || !d.Allow {
				t.Errorf("%s, %v", msg.Data, err)
			}
		case <-time.After(wait):
			t.Fatal("not all were answered")
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestNewRefusesUnusableApps(t *testing.T) {
	srv := natstest.Server(t)
	for name, c := range map[string]struct {
		change func(*app.App)
		wrong  string
	}{
		"condition": {func(a *app.App) { a.Policies = []app.Policy{{Match: "*", PublishIf: "x"}} }, "apps[0].policies[0].publish_if: column 1"},
		"key":       {func(a *app.App) { a.Centrifugo.SubToken.PublicKeys = []string{"x"} }, "apps[0].centrifugo.subscription_token: public_keys[0]"},
	} {
		a := app.App{ID: "1", Keys: []app.Key{{Key: key, Secret: secret}}}
		c.change(&a)
		if _, err := authsvc.New(authsvc.DefaultConfig(), srv.Deps(t, name, "authsvc"), of(t, a)); err == nil || !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.wrong)
		}
	}
}
