// Package app describes a tenant: its keys, settings, limits, channel
// policies and webhooks. It holds no secrets but those in Key and Webhook,
// and Public leaves these out for gateways and routers.
package app

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/proto/channel"
)

// App is a tenant.
type App struct {
	ID       string `yaml:"id" json:"id" doc:"app id as in /apps/<id>; digits only is what every Pusher SDK takes"`
	Name     string `yaml:"name" json:"name,omitempty" doc:"name for people"`
	Disabled bool   `yaml:"disabled" json:"disabled,omitempty" doc:"refuse connections (4003) and API calls (403)"`
	// Keys are tried by key name; more than one allows rotation.
	Keys []Key `yaml:"keys" json:"keys" doc:"key and secret pairs, all valid at once"`

	AllowedOrigins       []string      `yaml:"allowed_origins" json:"allowed_origins,omitempty" doc:"globs of the Origin header's host; empty allows all"`
	ClientEvents         bool          `yaml:"client_events" json:"client_events,omitempty" doc:"clients may publish client-* events on private and presence channels"`
	SubscriptionCount    bool          `yaml:"subscription_count" json:"subscription_count,omitempty" doc:"send pusher_internal:subscription_count to subscribers"`
	AlwaysCount          bool          `yaml:"always_count" json:"always_count,omitempty" doc:"return subscription_count from the HTTP API unasked"`
	Watchlist            bool          `yaml:"watchlist" json:"watchlist,omitempty" doc:"send online and offline events of watched users"`
	AuthorizationTimeout time.Duration `yaml:"authorization_timeout" json:"authorization_timeout,omitempty" doc:"close connections (4009) that did not sign in or join a protected channel by then; 0 is off"`
	ActivityTimeout      time.Duration `yaml:"activity_timeout" json:"activity_timeout,omitempty" doc:"silence after which either side pings"`

	Limits   Limits    `yaml:"limits" json:"limits"`
	Policies []Policy  `yaml:"policies" json:"policies,omitempty" doc:"channel policies, first match wins"`
	Webhooks []Webhook `yaml:"webhooks" json:"webhooks,omitempty"`

	Centrifugo Centrifugo `yaml:"centrifugo" json:"centrifugo"`
	Hooks      []Hook     `yaml:"hooks" json:"hooks,omitempty" doc:"endpoints of the application that are asked before something happens"`
}

// Key is a key with its secret.
type Key struct {
	Key      string `yaml:"key" json:"key" doc:"public key that clients put into the URL"`
	Secret   string `yaml:"secret" json:"secret,omitempty" secret:"true" doc:"secret that signs; only authsvc and api read it"`
	Disabled bool   `yaml:"disabled" json:"disabled,omitempty" doc:"refuse this key"`
}

// Limits of an app. Zero means the default (see Default).
type Limits struct {
	Connections           int `yaml:"connections" json:"connections,omitempty" doc:"connections per gateway, 0 is no limit (4004)"`
	ConnectionsPerUser    int `yaml:"connections_per_user" json:"connections_per_user,omitempty" doc:"signed-in connections of one user per gateway, 0 is no limit; one more is closed (4004) when it signs in"`
	ChannelNameBytes      int `yaml:"channel_name_bytes" json:"channel_name_bytes,omitempty" doc:"length of a channel name (200)"`
	EventNameBytes        int `yaml:"event_name_bytes" json:"event_name_bytes,omitempty" doc:"length of an event name (200)"`
	EventBytes            int `yaml:"event_bytes" json:"event_bytes,omitempty" doc:"data of one event (10240)"`
	ChannelsPerTrigger    int `yaml:"channels_per_trigger" json:"channels_per_trigger,omitempty" doc:"channels of one trigger (100)"`
	BatchEvents           int `yaml:"batch_events" json:"batch_events,omitempty" doc:"events of one batch trigger (10)"`
	PresenceMembers       int `yaml:"presence_members" json:"presence_members,omitempty" doc:"members of a presence channel (100)"`
	PresenceUserBytes     int `yaml:"presence_user_bytes" json:"presence_user_bytes,omitempty" doc:"user object of a presence member (1024)"`
	UserIDBytes           int `yaml:"user_id_bytes" json:"user_id_bytes,omitempty" doc:"length of a user id (128)"`
	WatchlistUsers        int `yaml:"watchlist_users" json:"watchlist_users,omitempty" doc:"watched users of a connection (100)"`
	ClientEventsPerSecond int `yaml:"client_events_per_second" json:"client_events_per_second,omitempty" doc:"client events of one connection per second (10)"`
	Subscriptions         int `yaml:"subscriptions" json:"subscriptions,omitempty" doc:"subscriptions of one connection (1000)"`
	PublishesPerSecond    int `yaml:"publishes_per_second" json:"publishes_per_second,omitempty" doc:"messages published per second, one for each channel of an event, a second's worth at once: over HTTP and api node, more are answered 429; in NATS requests and router, more are refused for now; as plain NATS messages, more wait in their queue; 0 is no limit"`
	MessagesPerSecond     int `yaml:"messages_per_second" json:"messages_per_second,omitempty" doc:"frames of one connection per second, averaged over 10 s; over it the connection is closed (200)"`
}

// DefaultLimits are those of the hosted Pusher service where it has one.
func DefaultLimits() Limits {
	return Limits{
		ChannelNameBytes: 200, EventNameBytes: 200, EventBytes: 10 << 10, ChannelsPerTrigger: 100,
		BatchEvents: 10, PresenceMembers: 100, PresenceUserBytes: 1 << 10, UserIDBytes: 128,
		WatchlistUsers: 100, ClientEventsPerSecond: 10, Subscriptions: 1000, MessagesPerSecond: 200,
	}
}

// DefaultActivityTimeout is what hosted Pusher tells its clients.
const DefaultActivityTimeout = 120 * time.Second

// Policy is what applies to the channels that match a pattern. Prefixes such
// as "private-" keep their meaning whatever a policy says: a policy can
// protect more, never less.
type Policy struct {
	Match   string  `yaml:"match" json:"match" doc:"glob of channel names: * is any run of characters"`
	Private bool    `yaml:"private" json:"private,omitempty" doc:"subscription needs authorization whatever the prefix"`
	History History `yaml:"history" json:"history" doc:"kept publications; with a size > 0 the channel is durable"`
	// CacheTTL > 0 keeps the last value.
	CacheTTL time.Duration `yaml:"cache_ttl" json:"cache_ttl,omitempty" doc:"keep the last event for new subscribers this long; cache channels have 30m unless said otherwise"`
	// Presence tracks the connections of clients that have credentials of
	// their own; members of channels with the prefix "presence-" are users.
	Presence  bool `yaml:"presence" json:"presence,omitempty" doc:"Centrifugo: know who is subscribed"`
	JoinLeave bool `yaml:"join_leave" json:"join_leave,omitempty" doc:"Centrifugo: tell subscribers that ask for it who comes and goes; needs presence"`
	// What Centrifugo's clients may do, besides what a hook or token allows.
	Publish      Access `yaml:"publish" json:"publish,omitempty" doc:"Centrifugo: who may publish from a client: nobody (default), subscribers, users, anyone"`
	ReadPresence Access `yaml:"read_presence" json:"read_presence,omitempty" doc:"Centrifugo: who may read who is there: nobody (default), subscribers, users, anyone"`
	ReadHistory  Access `yaml:"read_history" json:"read_history,omitempty" doc:"Centrifugo: who may read what was published: nobody (default), subscribers, users, anyone"`
	Delta        bool   `yaml:"delta" json:"delta,omitempty" doc:"Centrifugo: clients may ask for differences (fossil) instead of whole messages"`
	TagsFilter   bool   `yaml:"tags_filter" json:"tags_filter,omitempty" doc:"Centrifugo: clients may ask for publications with certain tags only"`
	// Hooks by name.
	SubscribeHook  string `yaml:"subscribe_hook" json:"subscribe_hook,omitempty" doc:"name of the hook that says whether a client without a token or signature may subscribe"`
	PublishHook    string `yaml:"publish_hook" json:"publish_hook,omitempty" doc:"Centrifugo: name of the hook that says whether a client may publish, and what"`
	SubRefreshHook string `yaml:"sub_refresh_hook" json:"sub_refresh_hook,omitempty" doc:"Centrifugo: name of the hook that is asked whether a subscription that expires may go on"`
	CacheEmptyHook string `yaml:"cache_empty_hook" json:"cache_empty_hook,omitempty" doc:"name of the hook that is told when somebody subscribes and there is no last event, so that the application can publish one first; needs cache_ttl"`
	// Conditions besides all else: they forbid, and never allow by themselves.
	SubscribeIf string `yaml:"subscribe_if" json:"subscribe_if,omitempty" doc:"expression (CEL) that must hold for a client to subscribe, such as user != \"\""`
	PublishIf   string `yaml:"publish_if" json:"publish_if,omitempty" doc:"Centrifugo: expression (CEL) that must hold for a client to publish"`
}

// Access is who may do something on a channel.
type Access string

// Who may do it. Users are connections that are not anonymous.
const (
	Nobody      Access = "nobody"
	Subscribers Access = "subscribers"
	Users       Access = "users"
	Anyone      Access = "anyone"
)

// Allows says whether someone of the given standing may do it.
func (a Access) Allows(user string, subscribed bool) bool {
	switch a {
	case Subscribers:
		return subscribed
	case Users:
		return user != ""
	case Anyone:
		return true
	}
	return false
}

// History is how much of a channel is kept.
type History struct {
	Size int           `yaml:"size" json:"size,omitempty" doc:"publications kept per channel"`
	TTL  time.Duration `yaml:"ttl" json:"ttl,omitempty" doc:"age at which they are forgotten"`
	// Recover lets clients read it: whoever may subscribe.
	Recover bool `yaml:"recover" json:"recover,omitempty" doc:"clients that ask for it get what they missed while they were away, or the last so many events"`
}

// Webhook is an endpoint of the application that is told about events.
type Webhook struct {
	URL string `yaml:"url" json:"url" doc:"http(s) address that takes the POST, or nats: and a subject that is asked"`
	// Events lists the kinds sent, empty sends all but those of single clients.
	Events []string `yaml:"events" json:"events,omitempty" doc:"channel_occupied, channel_vacated, member_added, member_removed, client_event, cache_miss, subscription_count; empty is all of these; connected, disconnected and unsubscribed, of each client, are sent to webhooks that list them"`
	// ChannelPrefix and ChannelSuffix filter by channel name; events of no
	// channel pass.
	ChannelPrefix string            `yaml:"channel_prefix" json:"channel_prefix,omitempty" doc:"only channels that begin with this; connected and disconnected are of none and are sent all the same"`
	ChannelSuffix string            `yaml:"channel_suffix" json:"channel_suffix,omitempty" doc:"only channels that end with this; the same"`
	Headers       map[string]string `yaml:"headers" json:"headers,omitempty" doc:"extra request headers"`
	Batch         bool              `yaml:"batch" json:"batch,omitempty" doc:"several events in one request"`
}

// webhookEvents are the kinds that a webhook can ask for.
var webhookEvents = []string{
	"channel_occupied", "channel_vacated", "member_added", "member_removed",
	"client_event", "cache_miss", "subscription_count",
	ClientConnected, ClientDisconnected, ClientUnsubscribed,
}

// Kinds of webhook events of single clients. There may be very many of them, so
// a webhook gets those that it lists, and an app whose webhooks list none does
// not pay for them.
const (
	ClientConnected    = "connected"
	ClientDisconnected = "disconnected"
	ClientUnsubscribed = "unsubscribed"
)

// WithDefaults returns the app with zero limits and timeouts filled in.
func (a App) WithDefaults() App {
	def, l := DefaultLimits(), &a.Limits
	for _, f := range []struct{ have, def *int }{
		{&l.ChannelNameBytes, &def.ChannelNameBytes},
		{&l.EventNameBytes, &def.EventNameBytes},
		{&l.EventBytes, &def.EventBytes},
		{&l.ChannelsPerTrigger, &def.ChannelsPerTrigger},
		{&l.BatchEvents, &def.BatchEvents},
		{&l.PresenceMembers, &def.PresenceMembers},
		{&l.PresenceUserBytes, &def.PresenceUserBytes},
		{&l.UserIDBytes, &def.UserIDBytes},
		{&l.WatchlistUsers, &def.WatchlistUsers},
		{&l.ClientEventsPerSecond, &def.ClientEventsPerSecond},
		{&l.Subscriptions, &def.Subscriptions},
		{&l.MessagesPerSecond, &def.MessagesPerSecond},
	} {
		if *f.have == 0 {
			*f.have = *f.def
		}
	}
	if a.ActivityTimeout == 0 {
		a.ActivityTimeout = DefaultActivityTimeout
	}
	a.Centrifugo = a.Centrifugo.withDefaults()
	hooks := make([]Hook, len(a.Hooks))
	for i, h := range a.Hooks {
		hooks[i] = h.withDefaults()
	}
	a.Hooks = hooks
	return a
}

// Public returns the app without its secrets: keys have no Secret, webhooks
// neither URL nor headers, only what they want to be told, hooks neither too,
// only their names and which headers of a client they get. How tokens are
// verified is left out as well.
func (a App) Public() App {
	keys := make([]Key, len(a.Keys))
	for i, k := range a.Keys {
		k.Secret = ""
		keys[i] = k
	}
	webhooks := make([]Webhook, len(a.Webhooks))
	for i, w := range a.Webhooks {
		w.URL, w.Headers = "", nil
		webhooks[i] = w
	}
	hooks := make([]Hook, len(a.Hooks))
	for i, h := range a.Hooks {
		hooks[i] = h.public()
	}
	a.Keys, a.Webhooks, a.Hooks, a.Centrifugo = keys, webhooks, hooks, a.Centrifugo.public()
	return a
}

// WantsHook says whether any webhook of the app wants this kind of event of
// this channel. Who sees an event asks before it publishes the event.
func (a *App) WantsHook(event, channel string) bool {
	for i := range a.Webhooks {
		if a.Webhooks[i].Wants(event, channel) {
			return true
		}
	}
	return false
}

// TellsOfClients says whether any webhook of the app wants events of single
// clients.
func (a *App) TellsOfClients() bool {
	for i := range a.Webhooks {
		if slices.ContainsFunc(a.Webhooks[i].Events, ofClient) {
			return true
		}
	}
	return false
}

func ofClient(event string) bool {
	return event == ClientConnected || event == ClientDisconnected || event == ClientUnsubscribed
}

// Wants says whether the webhook asks for this kind of event of this channel,
// "" if it is of none.
func (w *Webhook) Wants(event, channel string) bool {
	if len(w.Events) == 0 && ofClient(event) || len(w.Events) > 0 && !slices.Contains(w.Events, event) {
		return false
	}
	return channel == "" || strings.HasPrefix(channel, w.ChannelPrefix) && strings.HasSuffix(channel, w.ChannelSuffix)
}

// Key gives the named key, false if the app has none of that name or it is
// disabled.
func (a *App) Key(name string) (Key, bool) {
	for _, k := range a.Keys {
		if k.Key == name {
			return k, !k.Disabled
		}
	}
	return Key{}, false
}

// Validate says what is wrong with the app's settings and what would be right.
func (a App) Validate() error {
	if a.ID == "" {
		return errors.New("id is missing: give the app an id such as \"1001\"")
	}
	if strings.ContainsAny(a.ID, ". *>\t\r\n/") {
		return fmt.Errorf("id %q must not hold dots, spaces, slashes, * or >", a.ID)
	}
	if len(a.Keys) == 0 {
		return fmt.Errorf("app %s has no keys: add keys: [{key: ..., secret: ...}]", a.ID)
	}
	seen := map[string]bool{}
	for _, k := range a.Keys {
		if k.Key == "" {
			return fmt.Errorf("app %s has a key without a name", a.ID)
		}
		if seen[k.Key] {
			return fmt.Errorf("app %s lists key %q twice", a.ID, k.Key)
		}
		seen[k.Key] = true
	}
	if err := a.checkNumbers(); err != nil {
		return fmt.Errorf("app %s: %w", a.ID, err)
	}
	for _, p := range a.Policies {
		if err := p.validate(); err != nil {
			return fmt.Errorf("app %s: %w", a.ID, err)
		}
	}
	for _, w := range a.Webhooks {
		if err := w.validate(); err != nil {
			return fmt.Errorf("app %s: %w", a.ID, err)
		}
	}
	if err := a.validateHooks(); err != nil {
		return fmt.Errorf("app %s: %w", a.ID, err)
	}
	return nil
}

// validateHooks checks the hooks and all that refers to them.
func (a App) validateHooks() error {
	seen := map[string]bool{}
	for _, h := range a.Hooks {
		if err := h.validate(); err != nil {
			return err
		}
		if seen[h.Name] {
			return fmt.Errorf("hook %q is listed twice", h.Name)
		}
		seen[h.Name] = true
	}
	for _, p := range a.Policies {
		for _, f := range []struct{ key, hook string }{
			{"subscribe_hook", p.SubscribeHook},
			{"publish_hook", p.PublishHook},
			{"sub_refresh_hook", p.SubRefreshHook},
			{"cache_empty_hook", p.CacheEmptyHook},
		} {
			if err := knownHook(a.Hooks, f.hook); err != nil {
				return fmt.Errorf("policy %q: %s: %w", p.Match, f.key, err)
			}
		}
	}
	return a.Centrifugo.validate(a.Hooks)
}

// checkNumbers refuses what is negative: some checks would take it for no
// limit, others would let nothing through.
func (a App) checkNumbers() error {
	l := &a.Limits
	for _, f := range []struct {
		name  string
		value int
	}{
		{"connections", l.Connections},
		{"connections_per_user", l.ConnectionsPerUser},
		{"channel_name_bytes", l.ChannelNameBytes},
		{"event_name_bytes", l.EventNameBytes},
		{"event_bytes", l.EventBytes},
		{"channels_per_trigger", l.ChannelsPerTrigger},
		{"batch_events", l.BatchEvents},
		{"presence_members", l.PresenceMembers},
		{"presence_user_bytes", l.PresenceUserBytes},
		{"user_id_bytes", l.UserIDBytes},
		{"watchlist_users", l.WatchlistUsers},
		{"client_events_per_second", l.ClientEventsPerSecond},
		{"subscriptions", l.Subscriptions},
		{"publishes_per_second", l.PublishesPerSecond},
		{"messages_per_second", l.MessagesPerSecond},
	} {
		if f.value < 0 {
			return fmt.Errorf("limits.%s is %d, want more than 0, or 0 for the default", f.name, f.value)
		}
	}
	if a.ActivityTimeout < 0 {
		return fmt.Errorf("activity_timeout is %s, want more than 0s, or 0s for the default", a.ActivityTimeout)
	}
	if a.AuthorizationTimeout < 0 {
		return fmt.Errorf("authorization_timeout is %s, want more than 0s, or 0s for none", a.AuthorizationTimeout)
	}
	return nil
}

func (p Policy) validate() error {
	switch {
	case p.Match == "":
		return errors.New("a policy has no match: give a pattern such as \"news-*\"")
	case p.History.Size < 0 || p.History.TTL < 0 || p.CacheTTL < 0:
		return fmt.Errorf("policy %q: history size, ttl and cache_ttl must not be negative", p.Match)
	case p.History.Recover && p.History.Size == 0:
		return fmt.Errorf("policy %q: history.recover needs history.size and history.ttl: there is nothing to recover from", p.Match)
	case p.History.Size > 0 && p.History.TTL == 0:
		return fmt.Errorf("policy %q: history.size needs history.ttl, such as 5m", p.Match)
	case p.CacheEmptyHook != "" && p.CacheTTL == 0 && !channel.KindOf(p.Match).Cache:
		return fmt.Errorf("policy %q: cache_empty_hook needs cache_ttl, such as 30m: without it channels have no last event", p.Match)
	case p.JoinLeave && !p.Presence:
		return fmt.Errorf("policy %q: join_leave needs presence: true", p.Match)
	}
	for _, a := range []Access{p.Publish, p.ReadPresence, p.ReadHistory} {
		switch a {
		case "", Nobody, Subscribers, Users, Anyone:
		default:
			return fmt.Errorf("policy %q: %q is nobody who may do something; want nobody, subscribers, users or anyone", p.Match, a)
		}
	}
	return nil
}

// Subject is the NATS subject that a webhook is told on, false if it is told
// over HTTP.
func (w Webhook) Subject() (string, bool) { return strings.CutPrefix(w.URL, natsScheme) }

func (w Webhook) validate() error {
	if subject, ok := w.Subject(); ok {
		if err := validateSubject(subject); err != nil {
			return fmt.Errorf("webhook %w", err)
		}
	} else if !strings.HasPrefix(w.URL, "http://") && !strings.HasPrefix(w.URL, "https://") {
		return fmt.Errorf("webhook url %q must begin with nats:, http:// or https://", w.URL)
	}
	for _, e := range w.Events {
		if !slices.Contains(webhookEvents, e) {
			return fmt.Errorf("webhook event %q is unknown; known are %s", e, strings.Join(webhookEvents, ", "))
		}
	}
	return nil
}
