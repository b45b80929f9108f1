package token

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/golang-jwt/jwt/v5"

	"github.com/carillon-rt/carillon/authsvc/internal/grant"
	"github.com/carillon-rt/carillon/proto/authz"
)

// claims are those of both kinds of tokens (Centrifugo, "Client JWT" and
// "Channel JWT").
type claims struct {
	Subject   json.RawMessage  `json:"sub"`
	Issuer    string           `json:"iss"`
	Audience  jwt.ClaimStrings `json:"aud"`
	Expires   *jwt.NumericDate `json:"exp"`
	NotBefore *jwt.NumericDate `json:"nbf"`
	IssuedAt  *jwt.NumericDate `json:"iat"`

	Info     json.RawMessage    `json:"info"`
	B64Info  string             `json:"b64info"`
	Data     json.RawMessage    `json:"data"`
	B64Data  string             `json:"b64data"`
	Meta     json.RawMessage    `json:"meta"`
	ExpireAt *float64           `json:"expire_at"`
	Channel  string             `json:"channel"`
	Client   string             `json:"client"`
	Override *grant.Override    `json:"override"`
	Channels []string           `json:"channels"`
	Subs     map[string]subject `json:"subs"`

	text []byte // all of them
}

// subject is what a connection token says of one subscription.
type subject struct {
	Info     json.RawMessage `json:"info"`
	B64Info  string          `json:"b64info"`
	Data     json.RawMessage `json:"data"`
	B64Data  string          `json:"b64data"`
	Override *grant.Override `json:"override"`
}

// UnmarshalJSON keeps the text as well, for settings and conditions that name
// other claims.
func (c *claims) UnmarshalJSON(data []byte) error {
	type plain claims
	c.text = bytes.Clone(data)
	return json.Unmarshal(data, (*plain)(c))
}

// The claims that the library verifies.
func (c *claims) GetExpirationTime() (*jwt.NumericDate, error) { return c.Expires, nil }
func (c *claims) GetIssuedAt() (*jwt.NumericDate, error)       { return c.IssuedAt, nil }
func (c *claims) GetNotBefore() (*jwt.NumericDate, error)      { return c.NotBefore, nil }
func (c *claims) GetIssuer() (string, error)                   { return c.Issuer, nil }
func (c *claims) GetSubject() (string, error)                  { return "", nil }
func (c *claims) GetAudience() (jwt.ClaimStrings, error)       { return c.Audience, nil }

// user reads the claim that holds the user: a string, or a number as it is
// written. A claim that is not there is nobody.
func (c *claims) user(claim string) (string, error) {
	raw := c.Subject
	if claim != "" && claim != "sub" {
		var all map[string]json.RawMessage
		if err := json.Unmarshal(c.text, &all); err != nil {
			return "", bad("the token's claims can't be read")
		}
		raw = all[claim]
	}
	switch {
	case len(raw) == 0 || string(raw) == "null":
		return "", nil
	case raw[0] == '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return "", bad("the token's user can't be read")
		}
		return s, nil
	case raw[0] == '-' || raw[0] >= '0' && raw[0] <= '9':
		return string(raw), nil
	}
	return "", bad("the token's user is neither a string nor a number")
}

// Connection is what a connection token says.
type Connection struct {
	User     string
	ExpireAt int64  // Unix seconds, 0 is never
	Info     string // JSON or ""
	Meta     string // JSON or ""
	Subs     map[string]authz.Grant
	// Claims are all claims of the token, a JSON object.
	Claims []byte
}

// Connection verifies the token of a connection. Errors are *Error.
func (v *Verifier) Connection(ctx context.Context, raw string) (Connection, error) {
	c, err := v.verify(ctx, raw)
	if err != nil {
		return Connection{}, err
	}
	if c.Channel != "" {
		return Connection{}, bad("the token is for a subscription (it has channel), want one for the connection")
	}
	conn := Connection{Subs: map[string]authz.Grant{}, Claims: c.text}
	if conn.User, err = c.user(v.settings.UserClaim); err != nil {
		return Connection{}, err
	}
	if conn.ExpireAt, err = expiry(c); err != nil {
		return Connection{}, bad("the token's exp is not a number")
	}
	if conn.Info, err = grant.Info(c.Info, c.B64Info); err != nil {
		return Connection{}, bad("the token's info: %v", err)
	}
	if conn.Meta, err = grant.Info(c.Meta, ""); err != nil {
		return Connection{}, bad("the token's meta: %v", err)
	}
	for _, name := range c.Channels {
		conn.Subs[name] = authz.Grant{}
	}
	for name, sub := range c.Subs {
		if conn.Subs[name], err = sub.grant(); err != nil {
			return Connection{}, bad("the token's subs: %v", err)
		}
	}
	return conn, nil
}

func (s *subject) grant() (g authz.Grant, err error) {
	if g.Info, err = grant.Info(s.Info, s.B64Info); err != nil {
		return g, fmt.Errorf("info: %w", err)
	}
	if g.Data, err = grant.Data(s.Data, s.B64Data); err != nil {
		return g, fmt.Errorf("data: %w", err)
	}
	s.Override.Apply(&g)
	return g, nil
}

// Subscription is what a subscription token says.
type Subscription struct {
	User    string
	Channel string
	Client  string // "" for any connection of the user
	Grant   authz.Grant
	// Claims are all claims of the token, a JSON object.
	Claims []byte
}

// Subscription verifies the token of a subscription. Errors are *Error.
func (v *Verifier) Subscription(ctx context.Context, raw string) (Subscription, error) {
	c, err := v.verify(ctx, raw)
	if err != nil {
		return Subscription{}, err
	}
	if c.Channel == "" {
		return Subscription{}, bad("the token has no channel: it is not one for a subscription")
	}
	of := subject{Info: c.Info, B64Info: c.B64Info, Data: c.Data, B64Data: c.B64Data, Override: c.Override}
	sub := Subscription{Channel: c.Channel, Client: c.Client, Claims: c.text}
	if sub.Grant, err = of.grant(); err != nil {
		return Subscription{}, bad("the token's %v", err)
	}
	if sub.User, err = c.user(v.settings.UserClaim); err != nil {
		return Subscription{}, err
	}
	if sub.Grant.ExpireAt, err = expiry(c); err != nil {
		return Subscription{}, bad("the token's exp is not a number")
	}
	return sub, nil
}
