// Package decide makes the authorization decisions: a request and the apps in,
// a Decision out. It knows no NATS, clock or network; the application is asked
// through Hooks.
package decide

import (
	"context"
	"strings"

	"github.com/carillon-rt/carillon/authsvc/internal/rules"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/signature"
)

// Apps is where secrets, limits and policies come from; *app.Registry is one.
type Apps interface {
	// ByID gives the app with this id, nil if there is none.
	ByID(id string) *app.App
	// All lists the apps that there are now.
	All() []*app.App
}

// MayWait says whether the decision about a subscription may have to wait for
// somebody else.
func (d *Decider) MayWait(req *authz.Subscribe) bool {
	if req.Client != nil {
		return true
	}
	a := d.apps.ByID(req.App)
	return a != nil && req.Auth == "" && subscribeHook(a, a.Effective(req.Channel)) != nil
}

// subscribeSigned decides about a connection that shows signatures. What the
// name or a policy protects needs one of one of the app's keys, or the hook's
// yes; a public channel is allowed. Whatever is odd is refused (fail closed).
func (d *Decider) subscribeSigned(ctx context.Context, req *authz.Subscribe) authz.Decision {
	a, refusal := findApp(d.apps, req.App)
	if a == nil {
		return refusal
	}
	if err := channel.Validate(req.Channel); err != nil {
		return authz.Refuse(authz.BadData, "channel is not a name: "+err.Error())
	}
	kind := a.Effective(req.Channel)
	decision := d.bySignature(ctx, a, kind, req)
	if !decision.Allow || kind.User {
		return decision
	}
	user := decision.User
	if user == nil {
		user = req.User
	}
	if !d.subscribeIf(a, kind, signedQuestion(req, user)) {
		return conditionFails()
	}
	return decision
}

// signedQuestion is what rules look at; user may be nil.
func signedQuestion(req *authz.Subscribe, user *authz.User) *rules.Question {
	q := &rules.Question{Channel: req.Channel, Client: req.SocketID}
	if user != nil {
		q.User, q.Info = user.ID, user.Info
	}
	return q
}

func (d *Decider) bySignature(ctx context.Context, a *app.App, kind app.Effective, req *authz.Subscribe) authz.Decision {
	h := subscribeHook(a, kind)
	switch {
	case kind.User:
		return ownChannel(req)
	case strings.HasPrefix(req.Channel, "#"):
		return authz.Refuse(authz.Forbidden, "channel names that begin with # are reserved")
	case !onList(req):
		return authz.Refuse(authz.Forbidden, "only the signed-in users in its name may subscribe to "+quote(req.Channel))
	case kind.Users && !kind.Private:
		return authz.Decision{Allow: true}
	case h != nil && req.Auth == "":
		if !d.subscribeIf(a, kind, signedQuestion(req, req.User)) { // before anybody is asked
			return conditionFails()
		}
		return d.signedByHook(ctx, a, h, kind, req)
	case h == nil && !kind.Private:
		return authz.Decision{Allow: true}
	case strings.Contains(req.Channel, ":"):
		// "a:b" with no data and "a" with data "b" have the same string to sign.
		return authz.Refuse(authz.Forbidden, "a channel whose name holds a colon can't be authorized by a signature")
	case kind.Presence:
		return joinPresence(a, req)
	}
	if refusal := verify(a, req.Auth, signature.Channel(req.SocketID, req.Channel, req.ChannelData)); !refusal.Allow {
		return refusal
	}
	return authz.Decision{Allow: true}
}

// onList says whether the name lets the signed-in user in.
func onList(req *authz.Subscribe) bool {
	user := ""
	if req.User != nil {
		user = req.User.ID
	}
	return channel.AllowsUser(req.Channel, user)
}

// signedByHook asks the subscribe hook about a connection that showed no
// signature. A member of a presence channel is the signed-in user.
func (d *Decider) signedByHook(ctx context.Context, a *app.App, h *app.Hook, kind app.Effective, req *authz.Subscribe) authz.Decision {
	if kind.Presence && req.User == nil {
		return authz.Refuse(authz.BadData, "a presence channel needs a connection that has signed in, or a signature with channel_data")
	}
	client := &authz.Client{App: a.ID, ID: req.SocketID, Transport: req.Transport, Protocol: "pusher", Encoding: "json"}
	if req.User != nil {
		client.User, client.Info = req.User.ID, req.User.Info
	}
	decision := d.subscribeByHook(ctx, a, h, client, req)
	if !decision.Allow {
		return decision
	}
	given := decision.Grant
	if !kind.Presence {
		return authz.Decision{Allow: true}
	}
	user := *req.User
	if given.Info != "" {
		user.Info = given.Info
	}
	return member(a, user)
}

// joinPresence decides about a presence channel and names the member.
func joinPresence(a *app.App, req *authz.Subscribe) authz.Decision {
	if req.ChannelData == "" && req.User == nil {
		return authz.Refuse(authz.BadData, `channel_data is missing: a presence channel needs channel_data such as `+
			`{"user_id":"1","user_info":{}} in the subscribe message, or a connection that has signed in`)
	}
	if refusal := verify(a, req.Auth, signature.Channel(req.SocketID, req.Channel, req.ChannelData)); !refusal.Allow {
		return refusal
	}
	if req.ChannelData == "" {
		return member(a, *req.User)
	}
	doc, err := parseObject("channel_data", req.ChannelData)
	if err != nil {
		return authz.Refuse(authz.BadData, err.Error())
	}
	user, err := doc.user("user_id")
	if err != nil {
		return authz.Refuse(authz.BadData, err.Error())
	}
	return member(a, user)
}

// member allows a presence subscription as user, within the app's limits.
func member(a *app.App, user authz.User) authz.Decision {
	user.Watchlist = nil
	if refusal := withinLimits(a, &user); !refusal.Allow {
		return refusal
	}
	return authz.Decision{Allow: true, User: &user}
}

// ownChannel: "#server-to-user-<id>" belongs to the signed-in user <id> alone.
func ownChannel(req *authz.Subscribe) authz.Decision {
	if id := channel.UserOf(req.Channel); id != "" && req.User != nil && req.User.ID == id {
		return authz.Decision{Allow: true}
	}
	return authz.Refuse(authz.Forbidden, "only the signed-in user may subscribe to "+quote(req.Channel)+": sign in as that user first")
}

// SignIn decides whether a connection may act as the user in user_data.
func SignIn(apps Apps, req *authz.SignIn) authz.Decision {
	a, refusal := findApp(apps, req.App)
	if a == nil {
		return refusal
	}
	if refusal := verify(a, req.Auth, signature.User(req.SocketID, req.UserData)); !refusal.Allow {
		return refusal
	}
	doc, err := parseObject("user_data", req.UserData)
	if err != nil {
		return authz.Refuse(authz.BadData, err.Error())
	}
	user, err := doc.user("id")
	if err != nil {
		return authz.Refuse(authz.BadData, err.Error())
	}
	if user.Watchlist, err = doc.watchlist(); err != nil {
		return authz.Refuse(authz.BadData, err.Error())
	}
	if refusal := withinLimits(a, &user); !refusal.Allow {
		return refusal
	}
	return authz.Decision{Allow: true, User: &user}
}

// findApp gives the app, or nil and the refusal. An app that this process does
// not know (yet) is "can't tell", because the gateway knew it.
func findApp(apps Apps, id string) (*app.App, authz.Decision) {
	a := apps.ByID(id)
	if a == nil {
		return nil, authz.Refuse(authz.Unavailable, "app "+quote(id)+" is not known here")
	}
	if a.Disabled {
		return nil, authz.Refuse(authz.Forbidden, "app "+quote(id)+" is disabled")
	}
	return a, authz.Decision{}
}
