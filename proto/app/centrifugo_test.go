package app

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/proto/channel"
)

// full is an app that uses every setting of hooks and of Centrifugo; what must
// stay secret says so.
func full() App {
	token := Token{
		HMACSecret: "hidden-1", PreviousHMACSecret: "hidden-2", PreviousUntil: "2026-01-31T12:00:00Z",
		PublicKeys: []string{"hidden-pem"}, JWKSURL: "https://hidden-issuer/{{realm}}/keys", IssuerRegex: "https://x/(?P<realm>[a-z]+)", UserClaim: "uid",
	}
	return App{
		ID: "1001", Keys: []Key{{Key: "k", Secret: "hidden-0"}},
		Hooks: []Hook{
			{Name: "backend", URL: "https://hidden-3/h", Headers: map[string]string{"X-Auth": "hidden-4"}, ForwardHeaders: []string{"Cookie", "Origin"}},
			{Name: "chat", URL: "grpc://hidden-5:1", ForwardHeaders: []string{"cookie"}, EmulatedHeaders: []string{"Authorization"}},
		},
		Policies: []Policy{{Match: "chat:*", SubscribeHook: "chat", PublishHook: "chat", SubRefreshHook: "chat", SubscribeIf: `user != ""`}},
		Centrifugo: Centrifugo{
			Enabled: true, KnownNamespaces: true, ConnectHook: "backend", RefreshHook: "backend",
			APIKeys: []APIKey{{Secret: "hidden-6"}}, Token: token, SubToken: token,
			RPC: []RPC{{Match: "chat:*", Hook: "chat"}, {Match: "*", Hook: "backend"}},
		},
	}
}

func TestPublicKeepsHooksWithoutSecrets(t *testing.T) {
	r, err := NewRegistry([]App{full()})
	if err != nil {
		t.Fatal(err)
	}
	a := r.Public().ByID("1001")
	text, err := json.Marshal(a)
	if err != nil || strings.Contains(string(text), "hidden") {
		t.Errorf("the public app tells a secret: %s, %v", text, err)
	}
	if got, want := a.ForwardedHeaders(), []string{"cookie", "origin"}; !slices.Equal(got, want) {
		t.Errorf("forwarded headers %q, want %q", got, want)
	}
	if got, want := a.EmulatedHeaders(), []string{"authorization"}; !slices.Equal(got, want) {
		t.Errorf("emulated headers %q, want %q", got, want)
	}
	if c := a.Centrifugo; c.ConnectHook != "backend" || c.HookOf("chat:send") != "chat" || c.HookOf("other") != "backend" || !a.Effective("chat:1").MustAsk() {
		t.Errorf("the public app does not tell its hooks: %+v", c)
	}
	own := r.ByID("1001")
	if h := own.Hook("chat"); h == nil || h.URL != "grpc://hidden-5:1" || h.Timeout != DefaultHookTimeout || h.Concurrency != DefaultHookConcurrency {
		t.Errorf("the registry's own hook is %+v", h)
	}
	if own.Hook("other") != nil || own.Centrifugo.Token.HMACSecret != "hidden-1" {
		t.Error("the registry itself has changed")
	}
}

func TestValidateCentrifugo(t *testing.T) {
	if err := full().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*App)
		wrong  string
	}{
		"hook without a name":   {func(a *App) { a.Hooks[0].Name = "" }, "has no name"},
		"ping of half a second": {func(a *App) { a.Centrifugo.PingInterval = 500 * time.Millisecond }, "ping_interval is 500ms, want whole seconds"},
		"ping for ever":         {func(a *App) { a.Centrifugo.PingInterval = 2 * time.Hour }, "from 1s to 1h"},
		"slow pong":             {func(a *App) { a.Centrifugo.PongTimeout = 25 * time.Second }, "less than ping_interval, which is 25s"},
		"negative pong":         {func(a *App) { a.Centrifugo.PongTimeout = -1 }, "pong_timeout is -1ns"},
		"hook twice":            {func(a *App) { a.Hooks[0].Name = "chat" }, "listed twice"},
		"slow hook":             {func(a *App) { a.Hooks[0].Timeout = time.Hour }, "timeout is 1h0m0s, want up to 30s"},
		"negative timeout":      {func(a *App) { a.Hooks[0].Timeout = -1 }, "timeout"},
		"concurrency":           {func(a *App) { a.Hooks[0].Concurrency = -1 }, "concurrency is -1"},
		"cache":                 {func(a *App) { a.Hooks[0].Cache = -1 }, "cache is"},
		"hook of ftp":           {func(a *App) { a.Hooks[0].URL = "ftp://hidden" }, `begins with "ftp"`},
		"hook of nowhere":       {func(a *App) { a.Hooks[0].URL = "https:///x" }, "no host"},
		"hook of nothing":       {func(a *App) { a.Hooks[0].URL = "hidden%zz" }, "can't be read"},
		"grpc without port":     {func(a *App) { a.Hooks[0].URL = "grpc://hidden" }, "host and a port"},
		"grpc with path":        {func(a *App) { a.Hooks[0].URL = "grpc://hidden:1/x" }, "nothing behind"},
		"nats wildcard":         {func(a *App) { a.Hooks[0].URL = "nats:a.*" }, "not a subject"},
		"nats empty token":      {func(a *App) { a.Hooks[0].URL = "nats:a..b" }, "not a subject"},
		"nats nothing":          {func(a *App) { a.Hooks[0].URL = "nats:" }, "not a subject"},
		"forwarded nonsense":    {func(a *App) { a.Hooks[0].ForwardHeaders = []string{"a b"} }, `"a b" is not the name`},
		"emulated nothing":      {func(a *App) { a.Hooks[0].EmulatedHeaders = []string{""} }, "not the name"},
		"split header":          {func(a *App) { a.Hooks[0].Headers = map[string]string{"X": "hidden\r\nY: z"} }, "line breaks"},
		"forwarded host":        {func(a *App) { a.Hooks[0].ForwardHeaders = []string{"Host"} }, `header "Host" can't be passed on`},
		"static length":         {func(a *App) { a.Hooks[0].Headers = map[string]string{"Content-Length": "1"} }, "can't be passed on"},
		"emulated grpc":         {func(a *App) { a.Hooks[0].EmulatedHeaders = []string{"grpc-timeout"} }, "can't be passed on"},
		"status of success":     {func(a *App) { a.Hooks[0].Statuses = []StatusAnswer{{Status: 200, Code: 1}} }, "want 201 to 599"},
		"status without code":   {func(a *App) { a.Hooks[0].Statuses = []StatusAnswer{{Status: 403}} }, "status 403 has no code"},
		"status of the end":     {func(a *App) { a.Hooks[0].Statuses = []StatusAnswer{{Status: 403, Code: 103, Disconnect: true}} }, "want 3000 to 4999"},
		"no hooks at all":       {func(a *App) { a.Hooks = nil }, "the app has none"},
		"unknown connect":       {func(a *App) { a.Centrifugo.ConnectHook = "x" }, `centrifugo.connect_hook: there is no hook "x"; there are backend, chat`},
		"unknown refresh":       {func(a *App) { a.Centrifugo.RefreshHook = "x" }, "refresh_hook"},
		"unknown rpc":           {func(a *App) { a.Centrifugo.RPC[0].Hook = "x" }, `rpc of "chat:*"`},
		"empty rpc":             {func(a *App) { a.Centrifugo.RPC[0].Match = "" }, "match and hook"},
		"unknown cache":         {func(a *App) { a.Policies[0].CacheTTL, a.Policies[0].CacheEmptyHook = time.Minute, "x" }, `policy "chat:*": cache_empty_hook`},
		"nothing to fill":       {func(a *App) { a.Policies[0].CacheEmptyHook = "chat" }, "needs cache_ttl"},
		"unknown subscribe":     {func(a *App) { a.Policies[0].SubscribeHook = "x" }, `policy "chat:*": subscribe_hook`},
		"unknown publish":       {func(a *App) { a.Policies[0].PublishHook = "x" }, "publish_hook"},
		"unknown sub refresh":   {func(a *App) { a.Policies[0].SubRefreshHook = "x" }, "sub_refresh_hook"},
		"namespace":             {func(a *App) { a.Centrifugo.Personal.Namespace = "a:b" }, "namespace"},
		"until when":            {func(a *App) { a.Centrifugo.Token.PreviousUntil = "soon" }, "token: previous_until"},
		"jwks scheme":           {func(a *App) { a.Centrifugo.SubToken.JWKSURL = "file:///x" }, "subscription_token: jwks_url"},
		"two issuers":           {func(a *App) { a.Centrifugo.Token.Issuer = "x" }, "issuer and issuer_regex"},
		"bad pattern":           {func(a *App) { a.Centrifugo.Token.AudienceRegex = "(" }, "audience_regex"},
		"place of no group":     {func(a *App) { a.Centrifugo.Token.JWKSURL = "https://{{host}}/" }, "{{host}}"},
	} {
		a := full()
		c.change(&a)
		err := a.Validate()
		if err == nil || !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.wrong)
		}
		if err != nil && strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: the error tells a secret: %v", name, err)
		}
	}
}

func TestForCentrifugo(t *testing.T) {
	r, err := NewRegistry([]App{
		{ID: "0", Keys: []Key{{Key: "k0"}}},
		{ID: "1", Keys: []Key{{Key: "k1"}}, Centrifugo: Centrifugo{Enabled: true, Hosts: []string{"one.test", "*.One.test"}}},
		{ID: "2", Keys: []Key{{Key: "k2"}}, Disabled: true, Centrifugo: Centrifugo{Enabled: true}},
		{ID: "3", Keys: []Key{{Key: "k3"}}, Centrifugo: Centrifugo{Enabled: true}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ named, host, want string }{
		{"", "one.test", "1"},
		{"", "ONE.test:8000", "1"},
		{"", "a.one.test", "1"},
		{"", "other.test", "3"},
		{"", "[::1]:80", "3"},
		{"", "", "3"},
		{"k1", "other.test", "1"},
		{"1", "other.test", "1"},
		{"0", "one.test", ""},
		{"k0", "one.test", ""},
		{"2", "one.test", ""},
		{"nobody", "one.test", ""},
	} {
		got := ""
		if a := r.ForCentrifugo(c.named, c.host); a != nil {
			got = a.ID
		}
		if got != c.want {
			t.Errorf("app %q at %q is %q, want %q", c.named, c.host, got, c.want)
		}
	}
}

func TestNamespacesAndAsking(t *testing.T) {
	a := App{
		Policies: []Policy{
			{Match: "chat:*", History: History{Size: 1, TTL: time.Minute}},
			{Match: "asks:*", SubscribeHook: "x"},
			{Match: "if:*", SubscribeIf: "true"},
			{Match: "protected", Private: true},
		},
		Centrifugo: Centrifugo{KnownNamespaces: true},
	}
	for _, c := range []struct {
		name          string
		asks, unknown bool
	}{
		{"news", false, false},
		{"chat:1", false, false},
		{"$chat:1", true, false}, // the namespace of chat:1
		{"chat:#7", true, false},
		{"other:1", false, true},
		{"$other:1", true, true},
		{"asks:1", true, false},
		{"if:1", true, false},
		{"protected", true, false},
		{"private-x", true, false},
		{"news#7", true, false},
		{"#server-to-user-7", true, false},
	} {
		e := a.Effective(c.name)
		if e.MustAsk() != c.asks || a.UnknownNamespace(c.name, e) != c.unknown {
			t.Errorf("%s: asks %v, unknown %v; want %v, %v", c.name, e.MustAsk(), a.UnknownNamespace(c.name, e), c.asks, c.unknown)
		}
	}
	if e := a.Effective("$chat:1"); e.History.Size != 1 {
		t.Errorf("$chat:1 has not the history of its namespace: %+v", e)
	}
}

func TestTokenSettings(t *testing.T) {
	now := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	for until, want := range map[string]string{"": "old", "2026-01-31T12:00:00Z": "", "2026-01-31T14:00:00+01:00": "old", "2026-01-31T12:30:00+01:00": ""} {
		if got := (Token{PreviousHMACSecret: "old", PreviousUntil: until}).Previous(now); got != want {
			t.Errorf("until %q the previous secret is %q, want %q", until, got, want)
		}
	}
	tok := Token{JWKSURL: "https://x/{{realm}}/{{ realm }}/keys"}
	if got, want := tok.KeySetURL(map[string]string{"realm": "a"}), "https://x/a/a/keys"; got != want {
		t.Errorf("address %q, want %q", got, want)
	}
	c := Centrifugo{Token: Token{HMACSecret: "a"}}
	if c.Subscriptions() != &c.Token {
		t.Error("subscription tokens are not verified as connection tokens are")
	}
	c.SubToken.JWKSURL = "https://x"
	if c.Subscriptions() != &c.SubToken {
		t.Error("subscription tokens have settings of their own")
	}
	for _, c := range []struct {
		p          PersonalChannel
		user, want string
	}{
		{PersonalChannel{}, "7", ""},
		{PersonalChannel{Enabled: true}, "", ""},
		{PersonalChannel{Enabled: true}, "7", "#7"},
		{PersonalChannel{Enabled: true, Namespace: "me"}, "7", "me:#7"},
	} {
		got := c.p.Of(c.user)
		if got != c.want || got != "" && !channel.AllowsUser(got, c.user) {
			t.Errorf("%+v of %q is %q, want %q", c.p, c.user, got, c.want)
		}
	}
}
