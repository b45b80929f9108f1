package decide

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/authsvc/internal/grant"
	"github.com/carillon-rt/carillon/authsvc/internal/hook"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
)

// extension is how long what was to be refreshed lives on when the refresh
// hook gives no answer.
const extension = 60 * time.Second

// Connect decides who a connection is: by its token; without one by the
// connect hook; without one, or when that knows nobody, as nobody where the
// app allows it.
func (d *Decider) Connect(ctx context.Context, req *authz.Connect) authz.Decision {
	a, refusal := d.centrifugo(req.App)
	if a == nil {
		return refusal
	}
	if req.Token != "" {
		return d.connectByToken(ctx, a, req)
	}
	if h := a.Hook(a.Centrifugo.ConnectHook); h != nil {
		if decision, known := d.connectByHook(ctx, a, h, req); known {
			return decision
		}
	}
	if !a.Centrifugo.Anonymous {
		return authz.Refuse(authz.Forbidden, "the connection has no token, and the app takes nobody without one: "+
			"send one, or set centrifugo.anonymous or centrifugo.connect_hook")
	}
	return d.welcome(a, authz.Credentials{})
}

func (d *Decider) connectByToken(ctx context.Context, a *app.App, req *authz.Connect) authz.Decision {
	cred, refusal := d.tokenOf(ctx, a, &req.Client, req.Token)
	if cred == nil {
		return refusal
	}
	if d.past(cred.ExpireAt) {
		return authz.Refuse(authz.TokenExpired, "the token's expire_at has passed: fetch a new one")
	}
	return d.welcome(a, *cred)
}

// tokenOf reads a connection token.
func (d *Decider) tokenOf(ctx context.Context, a *app.App, c *authz.Client, raw string) (*authz.Credentials, authz.Decision) {
	settings := d.of(a)
	if settings.tokenErr != nil {
		return nil, authz.Refuse(authz.Unavailable, "the app's token settings can't be used")
	}
	t, err := settings.connections.Connection(ctx, raw)
	if err != nil {
		return nil, byToken(err)
	}
	cred := authz.Credentials{User: t.User, ExpireAt: t.ExpireAt, Info: t.Info, Meta: t.Meta, Subs: t.Subs}
	if settings.claims {
		cred.Claims = string(t.Claims)
	}
	if err := checkCredentials(a, c, &cred); err != nil {
		return nil, authz.Refuse(authz.BadToken, "the token has "+err.Error())
	}
	return &cred, authz.Decision{}
}

// connectByHook asks who connects; known is false if the application says that
// it does not know.
func (d *Decider) connectByHook(ctx context.Context, a *app.App, h *app.Hook, req *authz.Connect) (decision authz.Decision, known bool) {
	question := &hook.ConnectRequest{Name: req.Name, Version: req.Version, Channels: req.Channels}
	question.Data, question.B64Data = hook.Encode(h, req.Data)
	question.From = hook.NewFrom(h, &req.Client, question.B64Data)
	c := call(a, h, hook.Connect, &req.Client, question)
	var resp hook.Response[hook.ConnectResult]
	if d.hooks.Ask(ctx, c, &resp) != nil {
		return noAnswer(), true
	}
	if v := resp.Verdict(); v != nil {
		return byApplication(v), true
	}
	if resp.Result == nil {
		return authz.Decision{}, false
	}
	cred, err := credentialsOf(resp.Result)
	if err == nil {
		err = checkCredentials(a, &req.Client, &cred)
	}
	if err != nil {
		return d.nonsense(c, err), true
	}
	if d.past(cred.ExpireAt) {
		return byApplication(&authz.Verdict{Disconnect: true, Code: connectionExpired, Text: "connection expired"}), true
	}
	return d.welcome(a, cred), true
}

func credentialsOf(r *hook.ConnectResult) (cred authz.Credentials, err error) {
	cred = authz.Credentials{User: r.User, ExpireAt: max(r.ExpireAt, 0), Subs: map[string]authz.Grant{}}
	if cred.Info, err = grant.Info(r.Info, r.B64Info); err != nil {
		return cred, fmt.Errorf("info: %w", err)
	}
	if cred.Meta, err = grant.Info(r.Meta, ""); err != nil {
		return cred, fmt.Errorf("meta: %w", err)
	}
	if cred.Data, err = grant.Data(r.Data, r.B64Data); err != nil {
		return cred, fmt.Errorf("data: %w", err)
	}
	for _, name := range r.Channels {
		cred.Subs[name] = authz.Grant{}
	}
	for name, g := range r.Subs {
		if g == nil {
			g = &hook.SubOptions{}
		}
		if cred.Subs[name], err = grantOf(&g.Granting, g.ServerTagsFilter); err != nil {
			return cred, fmt.Errorf("subs: %w", err)
		}
	}
	return cred, nil
}

// grantOf reads what a subscription is given.
func grantOf(g *hook.Granting, tagsFilter json.RawMessage) (out authz.Grant, err error) {
	if len(tagsFilter) > 0 && string(tagsFilter) != "null" {
		return out, errors.New("server_tags_filter, which is not supported")
	}
	out.ExpireAt = max(g.ExpireAt, 0)
	if out.Info, err = grant.Info(g.Info, g.B64Info); err != nil {
		return out, fmt.Errorf("info: %w", err)
	}
	if out.Data, err = grant.Data(g.Data, g.B64Data); err != nil {
		return out, fmt.Errorf("data: %w", err)
	}
	g.Override.Apply(&out)
	return out, nil
}

// checkCredentials says what is wrong with what the application vouches for,
// and makes its data fit the client.
func checkCredentials(a *app.App, c *authz.Client, cred *authz.Credentials) error {
	if n, limit := len(cred.User), a.Limits.UserIDBytes; n > limit {
		return fmt.Errorf("a user id of %d bytes, at most %d are allowed", n, limit)
	}
	if n, limit := len(cred.Subs), a.Limits.Subscriptions; n > limit {
		return fmt.Errorf("%d channels, at most %d are allowed", n, limit)
	}
	var err error
	if cred.Data, err = fitting(c, cred.Data); err != nil {
		return err
	}
	for name, g := range cred.Subs {
		if err := channel.Validate(name); err != nil {
			return fmt.Errorf("a channel that is none: %w", err)
		}
		if strings.HasPrefix(name, channel.OnlinePrefix) || a.UnknownNamespace(name, a.Effective(name)) {
			return errors.New("a channel that is reserved, or of a namespace that no policy has")
		}
		if g.Data, err = fitting(c, g.Data); err != nil {
			return err
		}
		cred.Subs[name] = g
	}
	return nil
}

// welcome allows a connection, with what the app's settings add.
func (d *Decider) welcome(a *app.App, cred authz.Credentials) authz.Decision {
	if own := a.Centrifugo.Personal.Of(cred.User); own != "" && channel.Validate(own) == nil {
		if cred.Subs == nil {
			cred.Subs = map[string]authz.Grant{}
		}
		if _, there := cred.Subs[own]; !there {
			cred.Subs[own] = authz.Grant{}
		}
	}
	cred.ServerRefresh = a.Centrifugo.RefreshHook != ""
	return authz.Decision{Allow: true, Credentials: &cred}
}

// past says whether a time in Unix seconds has come; 0 never does.
func (d *Decider) past(at int64) bool { return at > 0 && at <= d.now().Unix() }

// Refresh decides whether a connection lives on. A token must be the same
// user's; the hook is asked if there is none, and if it gives no answer the
// connection lives a minute longer.
func (d *Decider) Refresh(ctx context.Context, req *authz.Refresh) authz.Decision {
	a, refusal := d.centrifugo(req.App)
	if a == nil {
		return refusal
	}
	h := a.Hook(a.Centrifugo.RefreshHook)
	switch {
	case req.Token != "":
		return d.refreshByToken(ctx, a, req)
	case h != nil:
		return d.refreshByHook(ctx, a, h, req)
	}
	return authz.Refuse(authz.NotAvailable, "a refresh needs a token: the app has no refresh hook")
}

func (d *Decider) refreshByToken(ctx context.Context, a *app.App, req *authz.Refresh) authz.Decision {
	cred, refusal := d.tokenOf(ctx, a, &req.Client, req.Token)
	switch {
	case cred == nil && refusal.Reason == authz.TokenExpired, cred != nil && d.past(cred.ExpireAt):
		return authz.Decision{Allow: true, Credentials: &authz.Credentials{User: req.User, Expired: true}}
	case cred == nil:
		return refusal
	case cred.User != req.User:
		return authz.Refuse(authz.ForeignToken, "the token is of another user than the connection")
	}
	return d.welcome(a, *cred)
}

func (d *Decider) refreshByHook(ctx context.Context, a *app.App, h *app.Hook, req *authz.Refresh) authz.Decision {
	c := call(a, h, hook.Refresh, &req.Client, &hook.RefreshRequest{From: hook.NewFrom(h, &req.Client, ""), User: req.User, Meta: meta(h, &req.Client)})
	lives := authz.Credentials{User: req.User, Info: req.Info, Meta: req.Meta, ServerRefresh: true}
	var resp hook.Response[hook.RefreshResult]
	if d.hooks.Ask(ctx, c, &resp) != nil {
		lives.ExpireAt = d.now().Add(extension).Unix()
		return authz.Decision{Allow: true, Credentials: &lives}
	}
	if v := resp.Verdict(); v != nil {
		return byApplication(v)
	}
	r := resp.Result
	if r == nil || r.Expired || d.past(r.ExpireAt) {
		lives.Expired = true
		return authz.Decision{Allow: true, Credentials: &lives}
	}
	lives.ExpireAt = max(r.ExpireAt, 0)
	info, err := grant.Info(r.Info, r.B64Info)
	if err == nil && info != "" {
		lives.Info = info
	}
	said, metaErr := grant.Info(r.Meta, "")
	if metaErr == nil && said != "" {
		lives.Meta = said
	}
	if err = errors.Join(err, metaErr); err != nil { // as if it had not answered
		d.hooks.Malformed(c, err)
		lives.ExpireAt = d.now().Add(extension).Unix()
	}
	return authz.Decision{Allow: true, Credentials: &lives}
}
