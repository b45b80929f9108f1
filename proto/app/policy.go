package app

import (
	"slices"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/proto/channel"
)

// DefaultCacheTTL is how long the last event of a cache channel is kept.
const DefaultCacheTTL = 30 * time.Minute

// Effective is what applies to one channel: its prefix and the first policy
// that matches it, taken together.
type Effective struct {
	channel.Kind
	History  History
	CacheTTL time.Duration
	// Rules is the policy that matched, nil if none did.
	Rules *Policy
}

// Durable says whether publications go through the journal.
func (e Effective) Durable() bool { return e.History.Size > 0 || e.CacheTTL > 0 }

// Recovers says whether clients may be given what was published before they
// subscribed.
func (e Effective) Recovers() bool { return e.History.Recover && e.History.Size > 0 }

// Recovers says whether that is so in any channel of the app.
func (a *App) Recovers() bool {
	return slices.ContainsFunc(a.Policies, func(p Policy) bool { return p.History.Recover })
}

// Effective resolves the policy of a channel.
func (a *App) Effective(name string) Effective {
	e := Effective{Kind: channel.KindOf(name)}
	for i := range a.Policies {
		p := &a.Policies[i]
		if !matches(p.Match, name) {
			continue
		}
		e.Private = e.Private || p.Private
		e.History = p.History
		e.CacheTTL, e.Rules = p.CacheTTL, p
		break
	}
	if e.Cache && e.CacheTTL == 0 {
		e.CacheTTL = DefaultCacheTTL
	}
	e.Cache = e.CacheTTL > 0
	return e
}

// matches says whether a policy for pattern applies to the channel. "$ns:x" is
// a private channel of the namespace of "ns:x".
func matches(pattern, name string) bool {
	if glob(pattern, name) {
		return true
	}
	rest, private := strings.CutPrefix(name, channel.PrivateMark)
	return private && glob(pattern, rest)
}

// MustAsk says whether the authorization service decides who subscribes to the
// channel, in every dialect. All others may be subscribed to by whoever knows
// their names.
func (e Effective) MustAsk() bool {
	return e.Private || e.User || e.Users || e.Rules != nil && (e.Rules.SubscribeHook != "" || e.Rules.SubscribeIf != "")
}

// CacheEmptyHook is the name of the hook that is told when the channel has no
// last value, "" if none is.
func (e Effective) CacheEmptyHook() string {
	if e.Rules == nil || !e.Cache {
		return ""
	}
	return e.Rules.CacheEmptyHook
}

// UnknownNamespace says whether the channel is of a namespace that no policy
// has, in an app that wants its namespaces known. Namespaces are a notion of
// Centrifugo's; other dialects have none.
func (a *App) UnknownNamespace(name string, e Effective) bool {
	return a.Centrifugo.KnownNamespaces && e.Rules == nil && strings.Contains(name, ":")
}

// HasMembers says whether it is known who is subscribed to the channel: by its
// name, or by its policy where the app has clients that are members by that.
func (a *App) HasMembers(name string) bool {
	if channel.KindOf(name).Presence {
		return true
	}
	if !a.Centrifugo.Enabled {
		return false
	}
	rules := a.Effective(name).Rules
	return rules != nil && rules.Presence
}

// glob matches name against pattern, in which * stands for any run of
// characters, the empty one included.
func glob(pattern, name string) bool { return channel.Glob(pattern, name, false) }

// MatchOrigin says whether an Origin header is allowed by the app. A pattern
// with a scheme ("https://*.example.com") is matched with the whole origin,
// any other ("*.example.com") with its host. "*" alone allows clients without
// an Origin too, which are all but browsers.
func (a *App) MatchOrigin(origin string) bool {
	if len(a.AllowedOrigins) == 0 {
		return true
	}
	host := originHost(origin)
	for _, p := range a.AllowedOrigins {
		with := host
		if strings.Contains(p, "://") {
			with = origin
		}
		if glob(p, with) {
			return true
		}
	}
	return false
}

// originHost gives the host of an origin without its port; what has no
// scheme, such as "null", is given back as it is.
func originHost(origin string) string {
	_, host, ok := strings.Cut(origin, "://")
	if !ok {
		return origin
	}
	host, _, _ = strings.Cut(host, "/")
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		host = host[:i]
	}
	return host
}
