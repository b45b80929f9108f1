package decide_test

import (
	"testing"
	"time"

	"github.com/carillon-rt/carillon/authsvc/internal/hook"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
)

func TestCacheEmpty(t *testing.T) {
	policies := func(a *app.App) {
		a.Policies = []app.Policy{
			{Match: "price:*", CacheTTL: time.Minute, CacheEmptyHook: "backend"},
			{Match: "silent:*", CacheTTL: time.Minute},
		}
	}
	for _, c := range []struct {
		name, app, channel, answer, want string
		asked                            bool
	}{
		{name: "populated", channel: "price:1", answer: `{"result":{"populated":true}}`, want: "yes", asked: true},
		{name: "not populated", channel: "price:1", answer: `{"result":{}}`, want: "yes", asked: true},
		{name: "nothing said", channel: "price:1", answer: `{}`, want: "yes", asked: true},
		{name: "refused", channel: "price:1", answer: `{"error":{"code":1000}}`, want: "error", asked: true},
		{name: "no answer", channel: "price:1", want: "unavailable", asked: true},
		{name: "no hook", channel: "silent:1", want: "not_available"},
		{name: "no policy", channel: "cache-x", want: "not_available"},
		{name: "no app", app: "77", channel: "price:1", want: "unavailable"},
	} {
		p := &application{answers: map[hook.Kind]string{hook.CacheEmpty: c.answer}}
		if c.app == "" {
			c.app = "9"
		}
		d := deciderOn(centrifugo(t, policies), p).CacheEmpty(t.Context(), &authz.CacheEmpty{App: c.app, Channel: c.channel})
		expect(t, c.name, d, c.want)
		if (len(p.asked) > 0) != c.asked {
			t.Errorf("%s: asked %d times", c.name, len(p.asked))
		}
		if c.asked && *p.asked[0].Request.(*hook.CacheEmptyRequest) != (hook.CacheEmptyRequest{Channel: c.channel}) {
			t.Errorf("%s: asked %+v", c.name, p.asked[0].Request)
		}
	}
}
