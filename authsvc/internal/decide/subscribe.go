package decide

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/carillon-rt/carillon/authsvc/internal/grant"
	"github.com/carillon-rt/carillon/authsvc/internal/hook"
	"github.com/carillon-rt/carillon/authsvc/internal/rules"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
)

// Subscribe decides whether a connection may subscribe, in whatever protocol:
//
//  1. Who is not on the name's list of users may not.
//  2. A token, or a signature, decides where there is one. Where the app has no
//     keys for tokens they are for the hook to read.
//  3. Who is on the list may, if the channel is not private.
//  4. The policy's subscribe hook decides.
//  5. A private channel is refused, any other is open.
//
// Whatever allowed it, the policy's condition must hold as well.
func (d *Decider) Subscribe(ctx context.Context, req *authz.Subscribe) authz.Decision {
	if req.Client == nil {
		return d.subscribeSigned(ctx, req)
	}
	a, refusal := d.centrifugo(req.Client.App)
	if a == nil {
		return refusal
	}
	e, refusal, ok := d.channel(a, req.Channel)
	if !ok {
		return refusal
	}
	if !channel.AllowsUser(req.Channel, req.Client.User) {
		return authz.Refuse(authz.Forbidden, "only the users in its name may subscribe to "+quote(req.Channel))
	}
	q := question(req.Client, req.Channel)
	if req.Token == "" && !d.subscribeIf(a, e, q) { // before anybody is asked
		return conditionFails()
	}
	decision, claims := d.subscribeClient(ctx, a, e, req)
	if !decision.Allow {
		return decision
	}
	if claims != nil {
		q.Claims = claims
	}
	if req.Token != "" && !d.subscribeIf(a, e, q) {
		return conditionFails()
	}
	if e.Presence {
		return presenceMember(a, req.Client, decision)
	}
	return decision
}

// subscribeClient is steps 2 to 5 for connections with credentials.
func (d *Decider) subscribeClient(ctx context.Context, a *app.App, e app.Effective, req *authz.Subscribe) (authz.Decision, []byte) {
	h := subscribeHook(a, e)
	switch {
	case e.User: // being that user is enough, whatever policies say
		return allowed(), nil
	case req.Token != "" && (h == nil || a.Centrifugo.Subscriptions().IsSet()): // else it is for the hook to read
		return d.subscribeByToken(ctx, a, req)
	case e.Users && !e.Private:
		return allowed(), nil
	case h != nil:
		return d.subscribeByHook(ctx, a, h, req.Client, req), nil
	case e.Private:
		return authz.Refuse(authz.Forbidden, "channel "+quote(req.Channel)+" is private: subscribe with a token"), nil
	}
	return allowed(), nil
}

func allowed() authz.Decision { return authz.Decision{Allow: true, Grant: &authz.Grant{}} }

func subscribeHook(a *app.App, e app.Effective) *app.Hook {
	if e.Rules == nil {
		return nil
	}
	return a.Hook(e.Rules.SubscribeHook)
}

func conditionFails() authz.Decision {
	return authz.Refuse(authz.Forbidden, "the condition of the channel's policy does not hold")
}

func (d *Decider) subscribeIf(a *app.App, e app.Effective, q *rules.Question) bool {
	if e.Rules == nil || e.User {
		return true
	}
	return d.holds(a, e.Rules, d.of(a).rules[e.Rules].Subscribe, e.Rules.SubscribeIf, q)
}

func (d *Decider) subscribeByToken(ctx context.Context, a *app.App, req *authz.Subscribe) (authz.Decision, []byte) {
	g, claims, refusal := d.subscriptionToken(ctx, a, req.Client, req.Channel, req.Token)
	if g == nil {
		return refusal, nil
	}
	if d.past(g.ExpireAt) {
		return authz.Refuse(authz.TokenExpired, "the token's expire_at has passed: fetch a new one"), nil
	}
	var err error
	if g.Data, err = fitting(req.Client, g.Data); err != nil {
		return authz.Refuse(authz.BadToken, "the token has "+err.Error()), nil
	}
	return authz.Decision{Allow: true, Grant: g}, claims
}

// subscriptionToken reads a token that must be for this channel, user and
// connection.
func (d *Decider) subscriptionToken(ctx context.Context, a *app.App, c *authz.Client, name, raw string) (*authz.Grant, []byte, authz.Decision) {
	settings := d.of(a)
	if settings.tokenErr != nil {
		return nil, nil, authz.Refuse(authz.Unavailable, "the app's token settings can't be used")
	}
	t, err := settings.subscriptions.Subscription(ctx, raw)
	switch {
	case err != nil:
		return nil, nil, byToken(err)
	case t.Channel != name:
		return nil, nil, authz.Refuse(authz.ForeignToken, "the token is for another channel than "+quote(name))
	case t.User != c.User:
		return nil, nil, authz.Refuse(authz.ForeignToken, "the token is of another user than the connection")
	case t.Client != "" && t.Client != c.ID:
		return nil, nil, authz.Refuse(authz.ForeignToken, "the token is of another connection than this")
	}
	return &t.Grant, t.Claims, authz.Decision{}
}

func (d *Decider) subscribeByHook(ctx context.Context, a *app.App, h *app.Hook, client *authz.Client, req *authz.Subscribe) authz.Decision {
	ask := &hook.SubscribeRequest{
		User: client.User, Channel: req.Channel, Token: req.Token, Meta: meta(h, client),
	}
	ask.Data, ask.B64Data = hook.Encode(h, req.Data)
	ask.From = hook.NewFrom(h, client, ask.B64Data)
	c := call(a, h, hook.Subscribe, client, ask)
	var resp hook.Response[hook.SubscribeResult]
	if d.hooks.Ask(ctx, c, &resp) != nil {
		return noAnswer()
	}
	if v := resp.Verdict(); v != nil {
		return byApplication(v)
	}
	if resp.Result == nil {
		return allowed()
	}
	g, err := grantOf(&resp.Result.Granting, resp.Result.ServerTagsFilter)
	if err == nil {
		g.Data, err = fitting(client, g.Data)
	}
	switch {
	case err != nil:
		return d.nonsense(c, err)
	case d.past(g.ExpireAt):
		return byApplication(&authz.Verdict{Code: errorExpired, Text: "expired"})
	}
	g.Publish = slices.Contains(resp.Result.Allow, "pub")
	g.History = slices.Contains(resp.Result.Allow, "hst")
	g.ReadPresence = slices.Contains(resp.Result.Allow, "prs")
	return authz.Decision{Allow: true, Grant: &g}
}

// presenceMember names the member of a channel whose members are users: who is
// nobody can't be one.
func presenceMember(a *app.App, c *authz.Client, decision authz.Decision) authz.Decision {
	if c.User == "" {
		return authz.Refuse(authz.Forbidden, "a presence channel needs a connection that is a user's")
	}
	raw, err := json.Marshal(c.User)
	if err != nil {
		return authz.Refuse(authz.BadData, "the user id is not text")
	}
	user := authz.User{ID: c.User, RawID: string(raw), Info: c.Info}
	if decision.Grant.Info != "" {
		user.Info = decision.Grant.Info
	}
	if refusal := withinLimits(a, &user); !refusal.Allow {
		return refusal
	}
	decision.User = &user
	return decision
}

// SubRefresh decides whether a subscription lives on, in the way of Refresh.
func (d *Decider) SubRefresh(ctx context.Context, req *authz.SubRefresh) authz.Decision {
	a, refusal := d.centrifugo(req.App)
	if a == nil {
		return refusal
	}
	e, refusal, ok := d.channel(a, req.Channel)
	if !ok {
		return refusal
	}
	if req.Token != "" {
		g, _, refusal := d.subscriptionToken(ctx, a, &req.Client, req.Channel, req.Token)
		if g == nil && refusal.Reason != authz.TokenExpired {
			return refusal
		}
		if g == nil {
			g = d.expired()
		}
		return authz.Decision{Allow: true, Grant: g}
	}
	if e.Rules != nil {
		if h := a.Hook(e.Rules.SubRefreshHook); h != nil {
			return d.subRefreshByHook(ctx, a, h, req)
		}
	}
	return authz.Refuse(authz.NotAvailable, "a refresh needs a token: the channel's policy has no sub_refresh hook")
}

// expired is the grant of a subscription that ends.
func (d *Decider) expired() *authz.Grant { return &authz.Grant{ExpireAt: d.now().Unix() - 1} }

func (d *Decider) subRefreshByHook(ctx context.Context, a *app.App, h *app.Hook, req *authz.SubRefresh) authz.Decision {
	c := call(a, h, hook.SubRefresh, &req.Client, &hook.SubRefreshRequest{
		From: hook.NewFrom(h, &req.Client, ""), User: req.User, Channel: req.Channel, Meta: meta(h, &req.Client),
	})
	longer := &authz.Grant{ExpireAt: d.now().Add(extension).Unix()}
	var resp hook.Response[hook.SubRefreshResult]
	if d.hooks.Ask(ctx, c, &resp) != nil {
		return authz.Decision{Allow: true, Grant: longer}
	}
	if v := resp.Verdict(); v != nil {
		return byApplication(v)
	}
	r := resp.Result
	if r == nil || r.Expired {
		return authz.Decision{Allow: true, Grant: d.expired()}
	}
	info, err := grant.Info(r.Info, r.B64Info)
	if err != nil {
		d.hooks.Malformed(c, fmt.Errorf("info: %w", err))
		return authz.Decision{Allow: true, Grant: longer}
	}
	return authz.Decision{Allow: true, Grant: &authz.Grant{ExpireAt: max(r.ExpireAt, 0), Info: info}}
}
