package token

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
)

// issuer is a server that publishes what it is told to.
type issuer struct {
	*httptest.Server
	body   atomic.Pointer[string]
	status atomic.Int32
	asked  atomic.Int32
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	i := &issuer{}
	i.status.Store(http.StatusOK)
	i.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		i.asked.Add(1)
		w.WriteHeader(int(i.status.Load()))
		_, _ = w.Write([]byte(*i.body.Load()))
	}))
	t.Cleanup(i.Close)
	return i
}

func (i *issuer) publish(t testing.TB, keys ...jose.JSONWebKey) {
	t.Helper()
	data, err := json.Marshal(jose.JSONWebKeySet{Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	i.body.Store(&text)
}

// times is a clock that tests move.
type times struct{ unix atomic.Int64 }

func (c *times) now() time.Time       { return time.Unix(c.unix.Load(), 0) }
func (c *times) pass(d time.Duration) { c.unix.Add(int64(d / time.Second)) }

func fetcher(t testing.TB) (*Fetcher, *times) {
	t.Helper()
	c := &times{}
	c.unix.Store(now.Unix())
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	return NewFetcher(client, c.now, func(bool) {}), c
}

func edKey(t testing.TB) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return public, private
}

func TestKeysRotate(t *testing.T) {
	leaktest.Check(t)
	from := newIssuer(t)
	f, clock := fetcher(t)
	v := verifier(t, app.Token{JWKSURL: from.URL}, f)
	onePublic, one := edKey(t)
	twoPublic, two := edKey(t)
	keyOf := func(public ed25519.PublicKey, id string) jose.JSONWebKey {
		return jose.JSONWebKey{Key: public, KeyID: id, Use: "sig"}
	}
	check := func(step string, private ed25519.PrivateKey, id string, want authz.Reason, asked int32) {
		t.Helper()
		_, err := v.Connection(t.Context(), sign(t, "EdDSA", private, jwt.MapClaims{"sub": "7"}, id))
		var e *Error
		if want == "" && err != nil || want != "" && (!errors.As(err, &e) || e.Reason != want) {
			t.Errorf("%s: %v, want %q", step, err, want)
		}
		if got := from.asked.Load(); got != asked {
			t.Errorf("%s: the issuer was asked %d times, want %d", step, got, asked)
		}
	}
	from.publish(t, keyOf(onePublic, "1"))
	check("first", one, "1", "", 1)
	check("again", one, "1", "", 1)
	check("no key id", one, "", "", 1)
	check("right id, wrong key", two, "1", authz.BadToken, 1)
	from.publish(t, keyOf(onePublic, "1"), keyOf(twoPublic, "2"))
	check("new key, too soon", two, "2", authz.Unavailable, 1)
	clock.pass(retryAfter)
	check("new key", two, "2", "", 2)
	clock.pass(retryAfter)
	check("unknown id", two, "3", authz.BadToken, 3)
	from.status.Store(http.StatusInternalServerError)
	clock.pass(freshFor + time.Second)
	check("issuer away", two, "2", "", 4)
	check("issuer away, no hammering", two, "2", "", 4)
	clock.pass(staleFor)
	check("issuer away for long", two, "2", authz.Unavailable, 5)
	from.status.Store(http.StatusOK)
	from.publish(t, keyOf(twoPublic, "2"))
	clock.pass(retryAfter)
	check("issuer is back", two, "2", "", 6)
	check("old key is gone, perhaps", one, "1", authz.Unavailable, 6)
	clock.pass(retryAfter)
	check("old key is gone", one, "1", authz.BadToken, 7)
}

// Keys that are in the settings say nothing of a token that another may have
// signed, which can't be had now.
func TestIssuerAwayBesideOwnKeys(t *testing.T) {
	leaktest.Check(t)
	from := newIssuer(t)
	f, clock := fetcher(t)
	ownPublic, own := edKey(t)
	public, private := edKey(t)
	v := verifier(t, app.Token{JWKSURL: from.URL, PublicKeys: []string{pemOf(t, ownPublic)}}, f)
	from.publish(t, jose.JSONWebKey{Key: public, KeyID: "1"})
	from.status.Store(http.StatusInternalServerError)
	claims := jwt.MapClaims{"sub": "7"}
	good := func(name string, key ed25519.PrivateKey, id string) {
		t.Helper()
		if _, err := v.Connection(t.Context(), sign(t, "EdDSA", key, claims, id)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	good("own key", own, "")
	expect(t, "key of the issuer that is away", v, sign(t, "EdDSA", private, claims, "1"), authz.Unavailable)
	from.status.Store(http.StatusOK)
	clock.pass(retryAfter)
	good("key of the issuer", private, "1")
	_, nobody := edKey(t)
	expect(t, "nobody's key", v, sign(t, "EdDSA", nobody, claims, "1"), authz.BadToken)
}

// underWay counts the requests that are made at a time.
type underWay struct {
	next http.RoundTripper

	mu        sync.Mutex
	now, most int
}

func (u *underWay) RoundTrip(r *http.Request) (*http.Response, error) {
	u.mu.Lock()
	u.now++
	u.most = max(u.most, u.now)
	u.mu.Unlock()
	defer func() {
		u.mu.Lock()
		u.now--
		u.mu.Unlock()
	}()
	return u.next.RoundTrip(r)
}

// Tokens that name issuers that are none cost real ones neither their keys nor
// more than some requests at a time.
func TestManyIssuers(t *testing.T) {
	leaktest.Check(t)
	var asked atomic.Int32
	public, _ := edKey(t)
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: "1"}}})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/real" {
			asked.Add(1)
			_, _ = w.Write(set)
			return
		}
		http.NotFound(w, r)
	}))
	defer srv.Close()
	f, _ := fetcher(t)
	under := &underWay{next: f.http.Transport}
	f.http.Transport = under
	if _, err := f.Keys(t.Context(), srv.URL+"/real", "1"); err != nil {
		t.Fatal(err)
	}
	var wait sync.WaitGroup
	for i := range 3 * setsMax {
		wait.Go(func() { _, _ = f.Keys(t.Context(), fmt.Sprint(srv.URL, "/", i), "1") })
	}
	wait.Wait()
	if n := under.most; n > fetchesMax {
		t.Errorf("%d requests at a time, want up to %d", n, fetchesMax)
	}
	if keys, err := f.Keys(t.Context(), srv.URL+"/real", "1"); err != nil || len(keys) != 1 || asked.Load() != 1 {
		t.Errorf("the real issuer's keys: %d, %v, fetched %d times", len(keys), err, asked.Load())
	}
	if n := len(f.sets); n > setsMax {
		t.Errorf("%d sets are kept, want up to %d", n, setsMax)
	}
}

// An issuer that hangs holds up nobody whose key is known.
func TestIssuerHangs(t *testing.T) {
	leaktest.Check(t)
	public, _ := edKey(t)
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: public, KeyID: "1"}}})
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int32
	hang := make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) > 1 {
			<-hang
		}
		_, _ = w.Write(set)
	}))
	defer srv.Close()
	defer close(hang)
	f, clock := fetcher(t)
	for range 3 {
		if keys, err := f.Keys(t.Context(), srv.URL, "1"); err != nil || len(keys) != 1 {
			t.Fatalf("%d keys, %v", len(keys), err)
		}
		clock.pass(freshFor + time.Second)
	}
	if tried := f.known(srv.URL).tried; !tried.Equal(now) || asked.Load() != 2 {
		t.Errorf("it waited until %s, the issuer was asked %d times", tried, asked.Load())
	}
}

// One fetch serves all who wait for it.
func TestFetchOnce(t *testing.T) {
	leaktest.Check(t)
	from := newIssuer(t)
	f, _ := fetcher(t)
	public, _ := edKey(t)
	from.publish(t, jose.JSONWebKey{Key: public, KeyID: "1"})
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			if keys, err := f.Keys(t.Context(), from.URL, "1"); err != nil || len(keys) != 1 {
				t.Errorf("%v, %v", keys, err)
			}
		})
	}
	wait.Wait()
	if n := from.asked.Load(); n != 1 {
		t.Errorf("the issuer was asked %d times, want once", n)
	}
}

func TestBadSets(t *testing.T) {
	leaktest.Check(t)
	from := newIssuer(t)
	for name, body := range map[string]string{
		"nothing": "", "text": "hello", "list": "[]", "object": "{}", "wrong type": `{"keys":{}}`, "huge": `{"keys":[` + strings.Repeat(" ", setBytesMax) + `]}`,
	} {
		f, _ := fetcher(t)
		from.body.Store(&body)
		if keys, err := f.Keys(t.Context(), from.URL, ""); err == nil {
			t.Errorf("%s: accepted, %v", name, keys)
		}
	}
	f, _ := fetcher(t)
	if _, err := f.Keys(t.Context(), "http://127.0.0.1:1/", ""); err == nil {
		t.Error("a set of nobody is there")
	}
}

// Keys of other kinds, for encryption and secret ones are left out.
func TestOtherKeysInSet(t *testing.T) {
	public, private := edKey(t)
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{
		{Key: public, KeyID: "a"},
		{Key: private, KeyID: "secret"},
		{Key: []byte("0123456789abcdef"), KeyID: "symmetric"},
		{Key: &rsaKey.PublicKey, KeyID: "enc", Use: "enc"},
		{Key: &rsaKey.PublicKey},
	}})
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(set), `{"keys":[`, `{"keys":[{"kty":"quantum","kid":"q"},7,null,{"kty":"RSA","n":"!"},`, 1)
	keys, err := parseSet([]byte(text))
	if err != nil || len(keys) != 3 {
		t.Fatalf("%d keys, %v; want 3", len(keys), err)
	}
	s := &keySet{keys: keys}
	for id, want := range map[string]int{"": 2, "a": 2, "enc": 1, "secret": 1, "q": 1} {
		if got := len(s.named(id)); got != want {
			t.Errorf("%d keys fit %q, want %d", got, id, want)
		}
	}
}
