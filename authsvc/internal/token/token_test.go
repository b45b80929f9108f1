package token

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

var now = time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return now }

func sign(t testing.TB, method string, key any, claims jwt.MapClaims, kid string) string {
	t.Helper()
	tok := jwt.NewWithClaims(jwt.GetSigningMethod(method), claims)
	if kid != "" {
		tok.Header["kid"] = kid
	}
	raw, err := tok.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func verifier(t testing.TB, settings app.Token, sets KeySets) *Verifier {
	t.Helper()
	v, err := New(settings, sets, clock)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func pemOf(t testing.TB, public crypto.PublicKey) string {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

type keyPair struct {
	private crypto.Signer
	method  string
}

func keyPairs(t testing.TB) []keyPair {
	t.Helper()
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pairs := []keyPair{{rsaKey, "RS256"}, {rsaKey, "RS384"}, {rsaKey, "RS512"}}
	for method, curve := range map[string]elliptic.Curve{"ES256": elliptic.P256(), "ES384": elliptic.P384(), "ES512": elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		pairs = append(pairs, keyPair{key, method})
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return append(pairs, keyPair{edKey, "EdDSA"})
}

func TestWaysOfSigning(t *testing.T) {
	pairs := keyPairs(t)
	var all []string
	for _, p := range pairs {
		all = append(all, pemOf(t, p.private.Public()))
	}
	claims := jwt.MapClaims{"sub": "7"}
	for _, p := range pairs {
		raw := sign(t, p.method, p.private, claims, "")
		own := verifier(t, app.Token{PublicKeys: []string{pemOf(t, p.private.Public())}}, nil)
		one := verifier(t, app.Token{PublicKeys: all}, nil)
		for name, v := range map[string]*Verifier{"its key": own, "one of many": one} {
			if c, err := v.Connection(t.Context(), raw); err != nil || c.User != "7" {
				t.Errorf("%s by %s: %+v, %v", p.method, name, c, err)
			}
		}
		// A public key is known to all and must not sign anything.
		confused := sign(t, "HS256", []byte(pemOf(t, p.private.Public())), claims, "")
		expect(t, p.method+" key as a secret", own, confused, authz.BadToken)
	}
	for _, method := range []string{"HS256", "HS384", "HS512"} {
		v := verifier(t, app.Token{HMACSecret: "s"}, nil)
		if c, err := v.Connection(t.Context(), sign(t, method, []byte("s"), claims, "")); err != nil || c.User != "7" {
			t.Errorf("%s: %+v, %v", method, c, err)
		}
		expect(t, method+" of another secret", v, sign(t, method, []byte("x"), claims, ""), authz.BadToken)
	}
	rsaKey := pairs[0].private
	v := verifier(t, app.Token{HMACSecret: "s", PublicKeys: []string{pemOf(t, rsaKey.Public())}}, nil)
	expect(t, "PSS", v, sign(t, "PS256", rsaKey, claims, ""), authz.BadToken)
	expect(t, "none", v, sign(t, "none", jwt.UnsafeAllowNoneSignatureType, claims, ""), authz.BadToken)
	expect(t, "empty secret", verifier(t, app.Token{PublicKeys: all}, nil), sign(t, "HS256", []byte(""), claims, ""), authz.BadToken)
}

// expect verifies raw as both kinds of tokens and wants a refusal.
func expect(t testing.TB, name string, v *Verifier, raw string, want authz.Reason) {
	t.Helper()
	_, connErr := v.Connection(t.Context(), raw)
	_, subErr := v.Subscription(t.Context(), raw)
	for _, err := range []error{connErr, subErr} {
		var e *Error
		if !errors.As(err, &e) || e.Reason != want || e.Message == "" {
			t.Errorf("%s: %v, want %s", name, err, want)
		}
		if e != nil && strings.Contains(e.Message, "hidden") {
			t.Errorf("%s: the message tells a secret: %s", name, e.Message)
		}
	}
}

func TestRefusals(t *testing.T) {
	settings := app.Token{HMACSecret: "hidden", PreviousHMACSecret: "hidden-old", PreviousUntil: "2026-01-31T12:30:00Z", Issuer: "i.test", Audience: "me"}
	good := jwt.MapClaims{"sub": "7", "iss": "i.test", "aud": []string{"you", "me"}, "exp": now.Unix() + 60, "channel": "news"}
	v := verifier(t, settings, nil)
	for name, c := range map[string]struct {
		change jwt.MapClaims
		want   authz.Reason
	}{
		"expired":             {jwt.MapClaims{"exp": now.Unix() - 1}, authz.TokenExpired},
		"expired now":         {jwt.MapClaims{"exp": now.Unix()}, authz.TokenExpired},
		"early":               {jwt.MapClaims{"nbf": now.Unix() + 60}, authz.TokenExpired},
		"early and expired":   {jwt.MapClaims{"nbf": now.Unix() + 60, "exp": 1}, authz.TokenExpired},
		"another issuer":      {jwt.MapClaims{"iss": "i-test"}, authz.BadToken}, // a dot is no pattern
		"issuer with more":    {jwt.MapClaims{"iss": "i.test/x"}, authz.BadToken},
		"no issuer":           {jwt.MapClaims{"iss": nil}, authz.BadToken},
		"another audience":    {jwt.MapClaims{"aud": "you"}, authz.BadToken},
		"no audience":         {jwt.MapClaims{"aud": nil}, authz.BadToken},
		"expired and foreign": {jwt.MapClaims{"exp": 1, "aud": "you"}, authz.BadToken},
		"exp of text":         {jwt.MapClaims{"exp": "soon"}, authz.BadToken},
		"exp of a list":       {jwt.MapClaims{"exp": []int{1}}, authz.BadToken},
		"info not base64":     {jwt.MapClaims{"b64info": "*"}, authz.BadToken},
		"info not JSON":       {jwt.MapClaims{"b64info": "AAAA"}, authz.BadToken},
		"user of a list":      {jwt.MapClaims{"sub": []int{7}}, authz.BadToken},
		"override of text":    {jwt.MapClaims{"override": "on"}, authz.BadToken},
		"channel of numbers":  {jwt.MapClaims{"channel": 7, "channels": "x"}, authz.BadToken},
	} {
		claims := jwt.MapClaims{}
		for _, from := range []jwt.MapClaims{good, c.change} {
			for k, val := range from {
				claims[k] = val
			}
		}
		expectSub(t, name, v, sign(t, "HS256", []byte("hidden"), claims, ""), c.want)
	}
	for name, raw := range map[string]string{
		"nothing": "", "text": "hello", "dots": "..", "three words": "a.b.c", "long": strings.Repeat("x", bytesMax+1),
		"not claims": base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256"}`)) + ".W10.AAAA",
	} {
		expect(t, name, v, raw, authz.BadToken)
	}
	if _, err := v.Subscription(t.Context(), sign(t, "HS384", []byte("hidden-old"), good, "")); err != nil {
		t.Errorf("the replaced secret is not good any more: %v", err)
	}
	v.now = func() time.Time { return now.Add(time.Hour) }
	expect(t, "replaced secret", v, sign(t, "HS384", []byte("hidden-old"), jwt.MapClaims{}, ""), authz.BadToken)
	expect(t, "no keys", verifier(t, app.Token{}, nil), sign(t, "HS256", []byte("x"), good, ""), authz.BadToken)

	if _, err := v.Connection(t.Context(), sign(t, "HS256", []byte("hidden"), jwt.MapClaims{"iss": "i.test", "aud": "me", "channel": "x"}, "")); err == nil {
		t.Error("a subscription token connects")
	}
	if _, err := v.Subscription(t.Context(), sign(t, "HS256", []byte("hidden"), jwt.MapClaims{"iss": "i.test", "aud": "me"}, "")); err == nil {
		t.Error("a connection token subscribes")
	}
}

func expectSub(t testing.TB, name string, v *Verifier, raw string, want authz.Reason) {
	t.Helper()
	_, err := v.Subscription(t.Context(), raw)
	var e *Error
	if !errors.As(err, &e) || e.Reason != want || strings.Contains(e.Message, "hidden") {
		t.Errorf("%s: %v, want %s", name, err, want)
	}
}

func TestConnectionClaims(t *testing.T) {
	off, on := false, true
	for name, c := range map[string]struct {
		settings app.Token
		claims   string
		want     Connection
	}{
		"nobody":            {claims: `{}`, want: Connection{}},
		"null":              {claims: `{"sub":null,"info":null,"meta":null}`, want: Connection{}},
		"user and times":    {claims: `{"sub":"7","exp":1769864400,"iat":1,"nbf":1,"jti":"x"}`, want: Connection{User: "7", ExpireAt: 1769864400}},
		"number":            {claims: `{"sub":7}`, want: Connection{User: "7"}},
		"other claim":       {settings: app.Token{UserClaim: "uid"}, claims: `{"sub":"7","uid":"8"}`, want: Connection{User: "8"}},
		"expire_at":         {claims: `{"exp":1769864400,"expire_at":1769864500}`, want: Connection{ExpireAt: 1769864500}},
		"never expires":     {claims: `{"exp":1769864400,"expire_at":0}`, want: Connection{}},
		"never ever":        {claims: `{"exp":1769864400.5,"expire_at":-1}`, want: Connection{}},
		"info":              {claims: `{"info": {"name" : "<A>"}, "meta": [1, 2]}`, want: Connection{Info: `{"name":"<A>"}`, Meta: `[1,2]`}},
		"info in base64":    {claims: `{"info":1,"b64info":"eyJhIjoxfQ=="}`, want: Connection{Info: `{"a":1}`}},
		"channels":          {claims: `{"channels":["a","$b"]}`, want: Connection{Subs: map[string]authz.Grant{"a": {}, "$b": {}}}},
		"subs and channels": {claims: `{"channels":["a"],"subs":{"a":{"info":1},"b":{}}}`, want: Connection{Subs: map[string]authz.Grant{"a": {Info: "1"}, "b": {}}}},
		"all of subs": {
			claims: `{"subs":{"a":{"b64info":"W10=","b64data":"AAE=","override":{"presence":{"value":false},"join_leave":{"value":true},"force_push_join_leave":{"value":true},"force_positioning":{},"force_recovery":{"value":true}}}}}`,
			want:   Connection{Subs: map[string]authz.Grant{"a": {Info: "[]", Data: []byte{0, 1}, Presence: &off, JoinLeave: &on, ForceJoinLeave: &on, ForcePosition: &off, ForceRecovery: &on}}},
		},
	} {
		c.settings.HMACSecret = "s"
		got, err := verifier(t, c.settings, nil).Connection(t.Context(), signText(t, "s", c.claims))
		if c.want.Subs == nil {
			c.want.Subs = map[string]authz.Grant{}
		}
		c.want.Claims = []byte(c.claims)
		if err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
}

// signText signs claims whose text is given.
func signText(t testing.TB, secret, claims string) string {
	t.Helper()
	text := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims))
	sig, err := jwt.SigningMethodHS256.Sign(text, []byte(secret))
	if err != nil {
		t.Fatal(err)
	}
	return text + "." + base64.RawURLEncoding.EncodeToString(sig)
}

func TestSubscriptionClaims(t *testing.T) {
	on := true
	v := verifier(t, app.Token{HMACSecret: "s"}, nil)
	text := `{"sub":"7","channel":"$news","client":"c1","exp":1769864400,"info":{"a": 1},"data":{"b": 2},"override":{"force_recovery":{"value":true}},"role":"boss"}`
	got, err := v.Subscription(t.Context(), signText(t, "s", text))
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Claims) != text {
		t.Errorf("the claims are %s", got.Claims)
	}
	got.Claims = nil
	want := Subscription{User: "7", Channel: "$news", Client: "c1", Grant: authz.Grant{ExpireAt: 1769864400, Info: `{"a":1}`, Data: []byte(`{"b":2}`), ForceRecovery: &on}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, want %+v", got, want)
	}
}

func TestNewRefuses(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(small)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, data []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}))
	}
	for name, c := range map[string]struct{ key, wrong string }{
		"text":    {"hidden", "is not PEM"},
		"private": {block("PRIVATE KEY", private), "want PUBLIC KEY"},
		"damaged": {block("PUBLIC KEY", []byte("hidden")), "damaged"},
	} {
		_, err := New(app.Token{PublicKeys: []string{c.key}}, nil, clock)
		if err == nil || !strings.Contains(err.Error(), c.wrong) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%s: %v, want an error with %q", name, err, c.wrong)
		}
	}
	if _, err := New(app.Token{IssuerRegex: "("}, nil, clock); err == nil {
		t.Error("a pattern that is none is taken")
	}
}

type fixedSets map[string][]any

func (f fixedSets) Keys(_ context.Context, url, _ string) ([]any, error) {
	keys, ok := f[url]
	if !ok {
		return nil, errors.New("no set at " + url)
	}
	return keys, nil
}

func TestAddressOfKeySet(t *testing.T) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	settings := app.Token{JWKSURL: "https://keys.test/{{realm}}/certs", IssuerRegex: `https://login\.test/(?P<realm>.*)`}
	v := verifier(t, settings, fixedSets{"https://keys.test/one/certs": {public}})
	for iss, want := range map[string]authz.Reason{
		"https://login.test/one": "", "https://login.test/two": authz.Unavailable, "https://evil.test/one": authz.BadToken,
		"https://login.test/../x": authz.BadToken, "https://login.test/a/b": authz.BadToken, "https://login.test/": authz.BadToken,
		"https://login.test/one?x": authz.BadToken, "https://login.test/..": authz.BadToken,
	} {
		_, err := v.Connection(t.Context(), sign(t, "EdDSA", private, jwt.MapClaims{"iss": iss}, ""))
		var e *Error
		if want == "" && err != nil || want != "" && (!errors.As(err, &e) || e.Reason != want) {
			t.Errorf("%s: %v, want %q", iss, err, want)
		}
	}
}

// FuzzClaims: whatever a signed token holds, what comes out is JSON on one line.
func FuzzClaims(f *testing.F) {
	f.Add(`{"sub":"7","info":{"a": 1}}`)
	f.Add(`{"sub":7,"b64info":"W10=","exp":1e300,"expire_at":1e300,"aud":[1]}`)
	f.Add(`{"channel":"x","override":{"presence":null},"subs":{"":null}}`)
	f.Fuzz(func(t *testing.T, claims string) {
		v := verifier(t, app.Token{HMACSecret: "s"}, nil)
		raw := signText(t, "s", claims)
		c, err := v.Connection(t.Context(), raw)
		if err == nil && (c.Info != "" && !json.Valid([]byte(c.Info)) || strings.ContainsAny(c.Info+c.Meta, "\r\n") || c.ExpireAt < 0) {
			t.Errorf("%q gives %+v", claims, c)
		}
		if _, err := v.Subscription(t.Context(), raw); err != nil && err.Error() == "" {
			t.Error("a refusal says nothing")
		}
	})
}
