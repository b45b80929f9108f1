package decide

import (
	"context"

	"github.com/carillon-rt/carillon/authsvc/internal/hook"
	"github.com/carillon-rt/carillon/proto/authz"
)

// CacheEmpty tells the application that a channel has no last value. It allows
// when the application has answered: whether there is a value now is for
// gateways to see.
func (d *Decider) CacheEmpty(ctx context.Context, req *authz.CacheEmpty) authz.Decision {
	a, refusal := findApp(d.apps, req.App)
	if a == nil {
		return refusal
	}
	h := a.Hook(a.Effective(req.Channel).CacheEmptyHook())
	if h == nil {
		return authz.Refuse(authz.NotAvailable, "no policy has a cache_empty_hook for channels such as "+quote(req.Channel))
	}
	c := call(a, h, hook.CacheEmpty, &authz.Client{App: a.ID}, &hook.CacheEmptyRequest{Channel: req.Channel})
	var resp hook.Response[hook.CacheEmptyResult]
	if d.hooks.Ask(ctx, c, &resp) != nil {
		return noAnswer()
	}
	if v := resp.Verdict(); v != nil {
		return byApplication(v)
	}
	return authz.Decision{Allow: true}
}
