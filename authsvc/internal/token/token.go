// Package token verifies the JSON web tokens with which clients of the
// Centrifugo protocol connect and subscribe, and says what is in them. It
// knows the app's keys and key sets, and nothing of what tokens allow.
package token

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
)

// methods are the ways of signing that are known. "none" is not.
var methods = []string{
	"HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "EdDSA",
}

// bytesMax is the length of the longest token that is looked at.
const bytesMax = 64 << 10

// Error says why a token does not count. It never repeats what is in a token.
type Error struct {
	Reason  authz.Reason
	Message string
}

func (e *Error) Error() string { return e.Message }

func bad(format string, args ...any) error {
	return &Error{authz.BadToken, fmt.Sprintf(format, args...)}
}

// KeySets gives the public keys that an issuer has published: *Fetcher.
type KeySets interface {
	// Keys gives the keys of the set at url that have this id, or all if the
	// id is "". What can't be told now is an error.
	Keys(ctx context.Context, url, id string) ([]any, error)
}

// Verifier verifies tokens by one app's settings. It may be used by many
// goroutines at once.
type Verifier struct {
	// immutable after New
	settings app.Token
	public   []any
	issuer   *regexp.Regexp // nil for any
	audience *regexp.Regexp // nil for any
	sets     KeySets
	now      func() time.Time
	parser   *jwt.Parser
}

// New prepares the settings; the error says which key can't be read. sets may
// be nil if there is no jwks_url.
func New(settings app.Token, sets KeySets, now func() time.Time) (*Verifier, error) {
	v := &Verifier{settings: settings, sets: sets, now: now}
	for i, text := range settings.PublicKeys {
		key, err := publicKey(text)
		if err != nil {
			return nil, fmt.Errorf("public_keys[%d]: %w", i, err)
		}
		v.public = append(v.public, key)
	}
	var err error
	if v.issuer, err = pattern(settings.IssuerRegex, settings.Issuer); err != nil {
		return nil, fmt.Errorf("issuer_regex: %w", err)
	}
	if v.audience, err = pattern(settings.AudienceRegex, settings.Audience); err != nil {
		return nil, fmt.Errorf("audience_regex: %w", err)
	}
	v.parser = jwt.NewParser(jwt.WithValidMethods(methods), jwt.WithTimeFunc(now))
	return v, nil
}

// pattern compiles a claim's pattern, or that of its exact value.
func pattern(regex, exact string) (*regexp.Regexp, error) {
	switch {
	case exact != "":
		return app.ClaimPattern(regexp.QuoteMeta(exact))
	case regex != "":
		return app.ClaimPattern(regex)
	}
	return nil, nil
}

// verify checks signature, times, issuer and audience, and returns the claims.
func (v *Verifier) verify(ctx context.Context, raw string) (*claims, error) {
	switch {
	case !v.settings.IsSet():
		return nil, bad("the app has no keys to verify tokens with: set centrifugo.token")
	case len(raw) > bytesMax:
		return nil, bad("the token has %d bytes, at most %d are read", len(raw), bytesMax)
	}
	c, all := &claims{}, true
	_, err := v.parser.ParseWithClaims(raw, c, func(t *jwt.Token) (_ any, err error) {
		var set jwt.VerificationKeySet
		if set, all, err = v.keys(ctx, t, c); err == nil && len(set.Keys) == 0 {
			err = errors.New("no key of that kind") // which verifies nothing
		}
		return set, err
	})
	var own *Error
	switch {
	case errors.As(err, &own):
		return nil, own
	case errors.Is(err, jwt.ErrTokenMalformed):
		return nil, bad("the token is not a JSON web token with the claims that it should have")
	case !all && (errors.Is(err, jwt.ErrTokenUnverifiable) || errors.Is(err, jwt.ErrTokenSignatureInvalid)):
		return nil, &Error{authz.Unavailable, "the issuer's keys can't be had now, try again"}
	case errors.Is(err, jwt.ErrTokenUnverifiable), errors.Is(err, jwt.ErrTokenSignatureInvalid):
		return nil, bad("the token is not signed with a key of this app, or not in one of the ways %v", methods)
	}
	// What comes next is said only to who holds a token that was signed.
	if groups, wrong := v.foreign(c); groups == nil {
		return nil, wrong
	}
	switch {
	case errors.Is(err, jwt.ErrTokenExpired):
		return nil, &Error{authz.TokenExpired, "the token has expired: fetch a new one"}
	case errors.Is(err, jwt.ErrTokenNotValidYet): // as Centrifugo does: a later one may be good, whichever clock is wrong
		return nil, &Error{authz.TokenExpired, "the token is not valid yet (nbf): fetch a new one"}
	case err != nil:
		return nil, bad("the token's claims are not good")
	}
	return c, nil
}

// foreign checks issuer and audience and gives the named groups of their
// patterns, never nil, else what is wrong.
func (v *Verifier) foreign(c *claims) (map[string]string, error) {
	groups := map[string]string{}
	if v.issuer != nil && !capture(v.issuer, c.Issuer, groups) {
		return nil, bad("the token's iss is not that of this app")
	}
	if v.audience == nil {
		return groups, nil
	}
	if !slices.ContainsFunc(c.Audience, func(aud string) bool { return capture(v.audience, aud, groups) }) {
		return nil, bad("the token's aud is not that of this app")
	}
	return groups, nil
}

// capture matches and adds the named groups.
func capture(re *regexp.Regexp, text string, groups map[string]string) bool {
	match := re.FindStringSubmatch(text)
	if match == nil {
		return false
	}
	for i, name := range re.SubexpNames() {
		if name != "" {
			groups[name] = match[i]
		}
	}
	return true
}

// Expiry is when what a token allows ends, in Unix seconds; 0 is never.
// expire_at stands in for exp, and 0 or less is never.
func expiry(c *claims) (int64, error) {
	if c.ExpireAt != nil {
		return max(int64(*c.ExpireAt), 0), nil
	}
	exp, err := c.GetExpirationTime()
	if err != nil || exp == nil {
		return 0, err
	}
	return exp.Unix(), nil
}
