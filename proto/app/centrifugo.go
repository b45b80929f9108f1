package app

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
)

// Centrifugo is what an app's clients of the Centrifugo protocol, and the
// server API of that protocol, are told and allowed.
type Centrifugo struct {
	Enabled bool     `yaml:"enabled" json:"enabled,omitempty" doc:"take connections of Centrifugo's clients"`
	Hosts   []string `yaml:"hosts" json:"hosts,omitempty" doc:"globs of the Host header (without its port) by which such a connection finds this app; empty matches every host"`
	// KnownNamespaces: a name "ns:rest" must match a policy.
	KnownNamespaces bool `yaml:"known_namespaces" json:"known_namespaces,omitempty" doc:"refuse (102) channels such as ns:rest that no policy matches, as Centrifugo does"`
	Anonymous       bool `yaml:"anonymous" json:"anonymous,omitempty" doc:"take connections without a token, as nobody, unless the connect hook says who they are"`
	// PingInterval and PongTimeout are whole seconds to clients.
	PingInterval time.Duration   `yaml:"ping_interval" json:"ping_interval,omitempty" doc:"how often the server pings a client; whole seconds"`
	PongTimeout  time.Duration   `yaml:"pong_timeout" json:"pong_timeout,omitempty" doc:"how long a client may take to answer that, less than ping_interval"`
	Personal     PersonalChannel `yaml:"personal_channel" json:"personal_channel"`
	APIKeys      []APIKey        `yaml:"api_keys" json:"api_keys,omitempty" doc:"keys of the server API, all valid at once"`
	Token        Token           `yaml:"token" json:"token"`
	SubToken     Token           `yaml:"subscription_token" json:"subscription_token"`
	ConnectHook  string          `yaml:"connect_hook" json:"connect_hook,omitempty" doc:"name of the hook that says who connects without a token"`
	RefreshHook  string          `yaml:"refresh_hook" json:"refresh_hook,omitempty" doc:"name of the hook that is asked whether a connection may live on; all connections of the app are then refreshed by the server"`
	RPC          []RPC           `yaml:"rpc" json:"rpc,omitempty" doc:"which hook answers which calls of clients, first match wins"`
}

// PersonalChannel subscribes each user's connections to a channel of that
// user's own, "#<user>" or "<namespace>:#<user>".
type PersonalChannel struct {
	Enabled   bool   `yaml:"enabled" json:"enabled,omitempty" doc:"subscribe each connection of a user to the channel #<user>"`
	Namespace string `yaml:"namespace" json:"namespace,omitempty" doc:"make that <namespace>:#<user>"`
}

// Of names the personal channel of user, "" if there is none.
func (p PersonalChannel) Of(user string) string {
	switch {
	case !p.Enabled || user == "":
		return ""
	case p.Namespace == "":
		return "#" + user
	}
	return p.Namespace + ":#" + user
}

// APIKey lets a backend use the server API.
type APIKey struct {
	Name   string `yaml:"name" json:"name,omitempty" doc:"name for people and metrics"`
	Secret string `yaml:"secret" json:"secret,omitempty" secret:"true" doc:"the key itself, as sent in X-API-Key; only api reads it"`
}

// RPC sends the calls of clients whose method matches to a hook.
type RPC struct {
	Match string `yaml:"match" json:"match" doc:"glob of method names"`
	Hook  string `yaml:"hook" json:"hook" doc:"name of the hook that answers"`
}

// Token is how JSON web tokens of clients are verified. Any of the keys may
// have signed a token.
type Token struct {
	HMACSecret         string `yaml:"hmac_secret" json:"hmac_secret,omitempty" secret:"true" doc:"secret of HS256, HS384 and HS512; only authsvc reads it"`
	PreviousHMACSecret string `yaml:"previous_hmac_secret" json:"previous_hmac_secret,omitempty" secret:"true" doc:"secret that was replaced and is still good until previous_until"`
	// PreviousUntil is RFC 3339.
	PreviousUntil string `yaml:"previous_until" json:"previous_until,omitempty" doc:"when the replaced secret ends to be good, such as 2026-01-31T12:00:00Z; empty is never"`
	// PublicKeys are PEM. They are no secrets, yet only authsvc needs them.
	PublicKeys []string `yaml:"public_keys" json:"public_keys,omitempty" doc:"PEM public keys or certificates of RS256-512, ES256-512 and EdDSA"`
	JWKSURL    string   `yaml:"jwks_url" json:"jwks_url,omitempty" doc:"http(s) address of the issuer's key set; {{name}} stands for a group of issuer_regex or audience_regex"`
	Issuer     string   `yaml:"issuer" json:"issuer,omitempty" doc:"iss that tokens must have"`
	Audience   string   `yaml:"audience" json:"audience,omitempty" doc:"aud that tokens must have among theirs"`
	// IssuerRegex and AudienceRegex are RE2 and match the whole claim.
	IssuerRegex   string `yaml:"issuer_regex" json:"issuer_regex,omitempty" doc:"pattern (RE2) that the whole iss must match"`
	AudienceRegex string `yaml:"audience_regex" json:"audience_regex,omitempty" doc:"pattern (RE2) that one whole aud must match"`
	UserClaim     string `yaml:"user_claim" json:"user_claim,omitempty" doc:"claim that holds the user id; sub unless said otherwise"`
}

// IsSet says whether there is a key to verify with.
func (t Token) IsSet() bool {
	return t.HMACSecret != "" || t.PreviousHMACSecret != "" || len(t.PublicKeys) > 0 || t.JWKSURL != ""
}

// Previous gives the replaced secret as long as it is good, else "".
func (t Token) Previous(now time.Time) string {
	if t.PreviousUntil == "" {
		return t.PreviousHMACSecret
	}
	until, err := time.Parse(time.RFC3339, t.PreviousUntil)
	if err != nil || !now.Before(until) {
		return ""
	}
	return t.PreviousHMACSecret
}

// Subscriptions gives what verifies subscription tokens: the settings of
// connection tokens unless there are some of their own.
func (c *Centrifugo) Subscriptions() *Token {
	if c.SubToken.IsSet() {
		return &c.SubToken
	}
	return &c.Token
}

// MatchHost says whether a connection with this Host header belongs to the
// app, its port aside.
func (c *Centrifugo) MatchHost(host string) bool {
	if !c.Enabled {
		return false
	}
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(host)
	return len(c.Hosts) == 0 || slices.ContainsFunc(c.Hosts, func(p string) bool { return glob(strings.ToLower(p), host) })
}

// HookOf gives the name of the hook that answers calls of the method, "" if
// there is none.
func (c *Centrifugo) HookOf(method string) string {
	for _, r := range c.RPC {
		if glob(r.Match, method) {
			return r.Hook
		}
	}
	return ""
}

// What Centrifugo has unless it is told otherwise.
const (
	DefaultPingInterval = 25 * time.Second
	DefaultPongTimeout  = 8 * time.Second
)

// withDefaults fills in what is not set. A short ping interval shortens the
// time for the pong.
func (c Centrifugo) withDefaults() Centrifugo {
	if c.PingInterval == 0 {
		c.PingInterval = DefaultPingInterval
	}
	if c.PongTimeout == 0 {
		c.PongTimeout = min(DefaultPongTimeout, c.PingInterval/2)
	}
	return c
}

// pingMax keeps browsers' timers, and clients that wait for a ping, within
// reason.
const pingMax = time.Hour

func (c *Centrifugo) validatePings() error {
	switch ping := c.PingInterval; {
	case ping < 0 || ping > pingMax || ping%time.Second != 0:
		return fmt.Errorf("centrifugo.ping_interval is %s, want whole seconds from 1s to %s, or 0s for the default", ping, pingMax)
	case c.PongTimeout < 0:
		return fmt.Errorf("centrifugo.pong_timeout is %s, want more than 0s, or 0s for the default", c.PongTimeout)
	}
	if full := c.withDefaults(); full.PongTimeout >= full.PingInterval {
		return fmt.Errorf("centrifugo.pong_timeout is %s, want less than ping_interval, which is %s", full.PongTimeout, full.PingInterval)
	}
	return nil
}

// public leaves out the secrets and how tokens are verified.
func (c Centrifugo) public() Centrifugo {
	c.APIKeys, c.Token, c.SubToken = nil, Token{}, Token{}
	return c
}

func (c *Centrifugo) validate(hooks []Hook) error {
	for _, f := range []struct{ key, hook string }{
		{"connect_hook", c.ConnectHook}, {"refresh_hook", c.RefreshHook},
	} {
		if err := knownHook(hooks, f.hook); err != nil {
			return fmt.Errorf("centrifugo.%s: %w", f.key, err)
		}
	}
	for _, r := range c.RPC {
		if r.Match == "" || r.Hook == "" {
			return fmt.Errorf("centrifugo.rpc needs match and hook in each entry, such as {match: \"chat:*\", hook: backend}")
		}
		if err := knownHook(hooks, r.Hook); err != nil {
			return fmt.Errorf("centrifugo.rpc of %q: %w", r.Match, err)
		}
	}
	if err := c.validatePings(); err != nil {
		return err
	}
	if strings.ContainsAny(c.Personal.Namespace, ":#$ ") {
		return fmt.Errorf("centrifugo.personal_channel.namespace %q must not hold spaces or any of : # $", c.Personal.Namespace)
	}
	if err := c.Token.validate(); err != nil {
		return fmt.Errorf("centrifugo.token: %w", err)
	}
	if err := c.SubToken.validate(); err != nil {
		return fmt.Errorf("centrifugo.subscription_token: %w", err)
	}
	return nil
}

func (t *Token) validate() error {
	if t.PreviousUntil != "" {
		if _, err := time.Parse(time.RFC3339, t.PreviousUntil); err != nil {
			return fmt.Errorf("previous_until %q is not a time such as 2026-01-31T12:00:00Z", t.PreviousUntil)
		}
	}
	if t.JWKSURL != "" && !strings.HasPrefix(t.JWKSURL, "http://") && !strings.HasPrefix(t.JWKSURL, "https://") {
		return fmt.Errorf("jwks_url %q must begin with http:// or https://", t.JWKSURL)
	}
	for _, f := range []struct{ key, exact, regex string }{
		{"issuer", t.Issuer, t.IssuerRegex}, {"audience", t.Audience, t.AudienceRegex},
	} {
		if f.exact != "" && f.regex != "" {
			return fmt.Errorf("%s and %s_regex are both there, want one of them", f.key, f.key)
		}
		if _, err := ClaimPattern(f.regex); err != nil {
			return fmt.Errorf("%s_regex: %w", f.key, err)
		}
	}
	return t.validateTemplate()
}
