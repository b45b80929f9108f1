// Package decide holds the authorization decisions as pure functions: a
// request and the apps in, a Decision out. It knows no NATS, clock or network.
package decide

import (
	"strings"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/signature"
)

// Apps is where secrets, limits and policies come from; *app.Registry is one.
type Apps interface {
	// ByID gives the app with this id, nil if there is none.
	ByID(id string) *app.App
}

// Subscribe decides whether a connection may subscribe to a channel. What the
// name or a policy protects needs a signature of one of the app's keys; a
// public channel is allowed. Whatever is odd is refused (fail closed).
func Subscribe(apps Apps, req *authz.Subscribe) authz.Decision {
	a, refusal := findApp(apps, req.App)
	if a == nil {
		return refusal
	}
	if err := channel.Validate(req.Channel); err != nil {
		return authz.Refuse(authz.BadData, "channel is not a name: "+err.Error())
	}
	kind := a.Effective(req.Channel)
	switch {
	case kind.User:
		return ownChannel(req)
	case strings.HasPrefix(req.Channel, "#"):
		return authz.Refuse(authz.Forbidden, "channel names that begin with # are reserved")
	case !kind.Private:
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
