package app

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/proto/channel"
)

func TestGlob(t *testing.T) {
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"news", "news", true},
		{"news", "newsx", false},
		{"news", "xnews", false},
		{"", "", true},
		{"", "x", false},
		{"*", "", true},
		{"*", "anything", true},
		{"**", "x", true},
		{"news-*", "news-", true},
		{"news-*", "news", false},
		{"*-news", "my-news", true},
		{"*-news", "my-newsy", false},
		{"a*b*c", "a-b-b-c", true},
		{"a*b*c", "acb", false},
		{"*a*", "bab", true},
		{"*ab", "aab", true},
		{"a?c", "abc", false}, // only * is special
		{"[ab]", "a", false},
	} {
		if got := glob(c.pattern, c.name); got != c.want {
			t.Errorf("%q matches %q: %v, want %v", c.pattern, c.name, got, c.want)
		}
	}
}

func FuzzGlob(f *testing.F) {
	f.Add("a*b*c", "axxbyyc")
	f.Add("*", "")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if len(pattern) > 12 || len(name) > 24 {
			return
		}
		if got, want := glob(pattern, name), globSlowly(pattern, name); got != want {
			t.Errorf("%q matches %q: %v, want %v", pattern, name, got, want)
		}
	})
}

func globSlowly(pattern, name string) bool {
	if pattern == "" {
		return name == ""
	}
	if pattern[0] != '*' {
		return name != "" && pattern[0] == name[0] && globSlowly(pattern[1:], name[1:])
	}
	for i := 0; i <= len(name); i++ {
		if globSlowly(pattern[1:], name[i:]) {
			return true
		}
	}
	return false
}

func TestEffective(t *testing.T) {
	hour, minute := History{Size: 10, TTL: time.Hour}, History{Size: 5, TTL: time.Minute}
	a := App{Policies: []Policy{
		{Match: "news-*", History: hour},
		{Match: "*-secret", Private: true},
		{Match: "private-*", History: minute},
		{Match: "cache-*", CacheTTL: time.Minute},
		{Match: "last-*", CacheTTL: time.Second},
		{Match: "news-never", Private: true},
	}}
	for _, c := range []struct {
		name    string
		want    Effective
		durable bool
	}{
		{"other", Effective{}, false},
		{"news-1", Effective{History: hour}, true},
		{"news-secret", Effective{History: hour}, true}, // the first match wins
		{"news-never", Effective{History: hour}, true},
		{"my-secret", Effective{Kind: channel.Kind{Private: true}}, false},
		{"presence-secret", Effective{Kind: channel.Kind{Private: true, Presence: true}}, false},
		{"private-1", Effective{Kind: channel.Kind{Private: true}, History: minute}, true},
		{"private-cache-1", Effective{Kind: channel.Kind{Private: true, Cache: true}, History: minute, CacheTTL: DefaultCacheTTL}, true},
		{"cache-1", Effective{Kind: channel.Kind{Cache: true}, CacheTTL: time.Minute}, true},
		{"last-1", Effective{Kind: channel.Kind{Cache: true}, CacheTTL: time.Second}, true},
		{"presence-cache-1", Effective{Kind: channel.Kind{Private: true, Presence: true, Cache: true}, CacheTTL: DefaultCacheTTL}, true},
		{"#server-to-user-1", Effective{Kind: channel.Kind{User: true}}, false},
	} {
		got := a.Effective(c.name)
		got.Rules = nil
		if got != c.want || got.Durable() != c.durable {
			t.Errorf("%s: %+v, durable %v; want %+v, %v", c.name, got, got.Durable(), c.want, c.durable)
		}
	}
}

// A policy may protect more than a name does, never less (P6).
func TestPoliciesNeverOpen(t *testing.T) {
	open := App{Policies: []Policy{{Match: "*", Private: false}}}
	for _, name := range []string{"private-a", "presence-a", "private-encrypted-a", "private-cache-a", "presence-cache-a", "private-encrypted-cache-a"} {
		if !open.Effective(name).Private {
			t.Errorf("%s is open", name)
		}
	}
}

func TestMatchOrigin(t *testing.T) {
	a := App{AllowedOrigins: []string{"*.example.com", "https://exact.test", "localhost"}}
	for origin, want := range map[string]bool{
		"https://www.example.com":        true,
		"http://www.example.com:8080":    true,
		"https://example.com":            false,
		"https://example.com.evil.test":  false,
		"https://exact.test":             true,
		"http://exact.test":              false,
		"https://exact.test:8443":        false,
		"http://localhost:3000":          true,
		"null":                           false,
		"":                               false,
		"https://evil.test/.example.com": false,
	} {
		if got := a.MatchOrigin(origin); got != want {
			t.Errorf("%q: %v, want %v", origin, got, want)
		}
	}
	for pattern, origin := range map[string]string{"*": "", "null": "null", "[::1]": "http://[::1]:3000", "https://*": "https://a.test:1"} {
		a := App{AllowedOrigins: []string{pattern}}
		if !a.MatchOrigin(origin) {
			t.Errorf("%q does not allow %q", pattern, origin)
		}
	}
	if everyone := (&App{}); !everyone.MatchOrigin("") || !everyone.MatchOrigin("https://a.test") {
		t.Error("an app without allowed origins refuses one")
	}
}

func TestValidate(t *testing.T) {
	good := func() App { return App{ID: "1001", Keys: []Key{{Key: "k", Secret: "s"}}} }
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*App)
		wrong  string
	}{
		"no id":            {func(a *App) { a.ID = "" }, "id is missing"},
		"id of a subject":  {func(a *App) { a.ID = "a.b" }, "must not hold dots"},
		"no keys":          {func(a *App) { a.Keys = nil }, "no keys"},
		"unnamed key":      {func(a *App) { a.Keys[0].Key = "" }, "without a name"},
		"key twice":        {func(a *App) { a.Keys = append(a.Keys, a.Keys[0]) }, "twice"},
		"policy of none":   {func(a *App) { a.Policies = []Policy{{}} }, "no match"},
		"recover nothing":  {func(a *App) { a.Policies = []Policy{{Match: "*", History: History{Recover: true}}} }, "needs history.size"},
		"history no ttl":   {func(a *App) { a.Policies = []Policy{{Match: "*", History: History{Size: 1}}} }, "needs history.ttl"},
		"negative":         {func(a *App) { a.Policies = []Policy{{Match: "*", CacheTTL: -1}} }, "negative"},
		"webhook scheme":   {func(a *App) { a.Webhooks = []Webhook{{URL: "ftp://x"}} }, "http://"},
		"webhook nowhere":  {func(a *App) { a.Webhooks = []Webhook{{URL: "nats:shop.*"}} }, "is not a subject without wildcards"},
		"webhook of moons": {func(a *App) { a.Webhooks = []Webhook{{URL: "http://x", Events: []string{"moon"}}} }, `"moon" is unknown`},
	} {
		a := good()
		c.change(&a)
		if err := a.Validate(); err == nil || !strings.Contains(err.Error(), c.wrong) {
			t.Errorf("%s: %v, want an error with %q", name, err, c.wrong)
		}
	}
}

func TestPublicHasNoSecrets(t *testing.T) {
	r, err := NewRegistry([]App{{
		ID: "1001", Keys: []Key{{Key: "k", Secret: "hidden-1"}, {Key: "old", Secret: "hidden-2", Disabled: true}},
		Webhooks: []Webhook{{URL: "https://hidden-3", Headers: map[string]string{"Authorization": "hidden-4"}, Events: []string{"cache_miss"}}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	pub := r.Public()
	text, err := json.Marshal(pub.All())
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "hidden") {
		t.Errorf("public apps tell a secret: %s", text)
	}
	a := pub.ByKey("k")
	if a == nil || pub.ByID("1001") != a || !a.WantsHook("cache_miss", "cache-a") || a.WantsHook("member_added", "presence-a") {
		t.Errorf("the public app is not the app: %+v", a)
	}
	if _, usable := a.Key("old"); usable {
		t.Error("a disabled key is usable")
	}
	if k, usable := r.ByID("1001").Key("k"); !usable || k.Secret != "hidden-1" {
		t.Error("the registry itself has lost its secret")
	}
}

func TestReplaceKeepsTheOldOnError(t *testing.T) {
	one := App{ID: "1", Keys: []Key{{Key: "a"}}}
	r, err := NewRegistry([]App{one})
	if err != nil {
		t.Fatal(err)
	}
	for name, apps := range map[string][]App{
		"id twice":  {one, {ID: "1", Keys: []Key{{Key: "b"}}}},
		"key twice": {one, {ID: "2", Keys: []Key{{Key: "a"}}}},
		"invalid":   {{ID: "2"}},
	} {
		if r.Replace(apps) == nil {
			t.Errorf("%s: accepted", name)
		}
		if len(r.All()) != 1 || r.ByKey("a") == nil || r.ByID("2") != nil {
			t.Errorf("%s: the apps have changed", name)
		}
	}
	if err := r.Replace(nil); err != nil || r.ByKey("a") != nil {
		t.Errorf("no apps: %v, %v", err, r.ByKey("a"))
	}
}

// Events of single clients are sent to webhooks that list them, whatever the
// channels that they are about.
func TestWantsEventsOfClients(t *testing.T) {
	all := &App{Webhooks: []Webhook{{}}}
	listed := &App{Webhooks: []Webhook{{}, {Events: []string{ClientDisconnected, ClientUnsubscribed}, ChannelPrefix: "a-", ChannelSuffix: "-z"}}}
	for _, c := range []struct {
		app            *App
		event, channel string
		want           bool
	}{
		{all, "member_added", "x", true},
		{all, ClientConnected, "", false},
		{all, ClientUnsubscribed, "x", false},
		{listed, ClientConnected, "", false},
		{listed, ClientDisconnected, "", true},
		{listed, ClientUnsubscribed, "a-z", true},
		{listed, ClientUnsubscribed, "a-y", false},
		{&App{}, ClientDisconnected, "", false},
	} {
		if got := c.app.WantsHook(c.event, c.channel); got != c.want {
			t.Errorf("%s of %q: wanted %v", c.event, c.channel, got)
		}
	}
	if all.TellsOfClients() || !listed.TellsOfClients() || (&App{}).TellsOfClients() {
		t.Error("who wants events of clients is not who lists them")
	}
}
