package decide

import (
	"context"
	"fmt"

	"github.com/carillon-rt/carillon/authsvc/internal/grant"
	"github.com/carillon-rt/carillon/authsvc/internal/hook"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// Publish decides whether a connection may publish, and what: the policy's
// hook if it has one, else whom the policy, or the subscription's grant,
// allows. The policy's condition must hold as well. Into a channel for listed
// users only they may publish.
func (d *Decider) Publish(ctx context.Context, req *authz.Publish) authz.Decision {
	a, refusal := d.centrifugo(req.App)
	if a == nil {
		return refusal
	}
	e, refusal, ok := d.channel(a, req.Channel)
	if !ok {
		return refusal
	}
	if !channel.AllowsUser(req.Channel, req.User) {
		return authz.Refuse(authz.Forbidden, "only the users in its name may publish to "+quote(req.Channel))
	}
	p := e.Rules
	if p == nil {
		p = &app.Policy{}
	}
	q := question(&req.Client, req.Channel)
	q.Data = req.Data
	if !d.holds(a, p, d.of(a).rules[p].Publish, p.PublishIf, q) {
		return conditionFails()
	}
	if h := a.Hook(p.PublishHook); h != nil {
		return d.publishByHook(ctx, a, h, req)
	}
	if !req.Granted && !p.Publish.Allows(req.User, req.Subscribed) {
		return authz.Refuse(authz.Forbidden, "clients like this one may not publish to "+quote(req.Channel)+": its policy's publish says who may")
	}
	return authz.Decision{Allow: true, Edited: &authz.Edited{}}
}

func (d *Decider) publishByHook(ctx context.Context, a *app.App, h *app.Hook, req *authz.Publish) authz.Decision {
	ask := &hook.PublishRequest{User: req.User, Channel: req.Channel, Meta: meta(h, &req.Client)}
	ask.Data, ask.B64Data = hook.Encode(h, req.Data)
	ask.From = hook.NewFrom(h, &req.Client, ask.B64Data)
	c := call(a, h, hook.Publish, &req.Client, ask)
	var resp hook.Response[hook.PublishResult]
	if d.hooks.Ask(ctx, c, &resp) != nil {
		return noAnswer()
	}
	if v := resp.Verdict(); v != nil {
		return byApplication(v)
	}
	r := resp.Result
	if r == nil {
		return authz.Decision{Allow: true, Edited: &authz.Edited{}}
	}
	data, err := grant.Data(r.Data, r.B64Data)
	if err == nil {
		data, err = fitting(&req.Client, data)
	}
	switch limit := a.Limits.EventBytes; {
	case err != nil:
		return d.nonsense(c, fmt.Errorf("data: %w", err))
	case len(data) > limit:
		return d.nonsense(c, fmt.Errorf("data of %d bytes, at most %d are allowed", len(data), limit))
	case len(r.Tags) > message.TagsMax:
		return d.nonsense(c, fmt.Errorf("%d tags, at most %d are allowed", len(r.Tags), message.TagsMax))
	case len(r.IdempotencyKey) > message.IdempotencyKeyMax:
		return d.nonsense(c, fmt.Errorf("an idempotency_key of %d bytes, at most %d are allowed", len(r.IdempotencyKey), message.IdempotencyKeyMax))
	}
	return authz.Decision{Allow: true, Edited: &authz.Edited{
		Data: data, Tags: r.Tags, SkipHistory: r.SkipHistory, IdempotencyKey: r.IdempotencyKey, Delta: r.Delta,
	}}
}

// RPC carries a call to the hook that answers its method.
func (d *Decider) RPC(ctx context.Context, req *authz.RPC) authz.Decision {
	a, refusal := d.centrifugo(req.App)
	if a == nil {
		return refusal
	}
	if len(a.Centrifugo.RPC) == 0 {
		return authz.Refuse(authz.NotAvailable, "the app answers no calls: set centrifugo.rpc")
	}
	h := a.Hook(a.Centrifugo.HookOf(req.Method))
	if h == nil {
		return authz.Refuse(authz.NoMethod, "no hook answers calls of "+quote(req.Method))
	}
	ask := &hook.RPCRequest{User: req.User, Method: req.Method, Meta: meta(h, &req.Client)}
	ask.Data, ask.B64Data = hook.Encode(h, req.Data)
	ask.From = hook.NewFrom(h, &req.Client, ask.B64Data)
	c := call(a, h, hook.RPC, &req.Client, ask)
	var resp hook.Response[hook.RPCResult]
	if d.hooks.Ask(ctx, c, &resp) != nil {
		return noAnswer()
	}
	if v := resp.Verdict(); v != nil {
		return byApplication(v)
	}
	if resp.Result == nil {
		return authz.Decision{Allow: true}
	}
	data, err := grant.Data(resp.Result.Data, resp.Result.B64Data)
	if err == nil {
		data, err = fitting(&req.Client, data)
	}
	if err != nil {
		return d.nonsense(c, err)
	}
	return authz.Decision{Allow: true, Reply: data}
}
