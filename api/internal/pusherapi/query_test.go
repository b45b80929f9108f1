package pusherapi

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/proto/app"
)

func TestParseQuery(t *testing.T) {
	for _, tc := range []struct{ name, raw, canonical string }{
		{"empty", "", ""},
		{"sorted", "b=2&a=1", "a=1&b=2"},
		{"signature left out", "b=2&auth_signature=x&a=1", "a=1&b=2"},
		{"semicolon", "filter_by_prefix=a;b&a=1", "a=1&filter_by_prefix=a;b"},
		{"plus", "a=1+2", "a=1+2"},
		{"escaped once", "a=%2525", "a=%25"},
		{"equals in a value", "a=b=c", "a=b=c"},
		{"no value", "a&b=", "a=&b="},
		{"no pair", "&&a=1&", "a=1"},
		{"lower case", "Auth_Key=X", "auth_key=X"},
		{"the last one counts", "a=1&b=2&A=3", "a=3&b=2"},
		{"broken escapes", "a=100%&b=%zz&c=%4", "a=100%&b=%zz&c=%4"},
		{"escaped name", "%61=1", "a=1"},
		{"hash and question mark", "a=#server-to-user-1?", "a=#server-to-user-1?"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ps, ok := parseQuery(tc.raw)
			if got := ps.canonical(); !ok || got != tc.canonical {
				t.Errorf("canonical form of %q is %q, want %q", tc.raw, got, tc.canonical)
			}
		})
	}
	if _, ok := parseQuery(strings.Repeat("a=1&", 1000)); !ok {
		t.Error("one parameter repeated is refused")
	}
}

// FuzzParseQuery checks the parser against net/url where that one is right: without ';', '+' and broken escapes.
func FuzzParseQuery(f *testing.F) {
	f.Add("auth_key=k&auth_timestamp=1&info=a%2Cb;c+d")
	f.Add("a=%&b=%4&=&&c")
	f.Add("A=1&a=2")
	f.Fuzz(func(t *testing.T, raw string) {
		ps, ok := parseQuery(raw)
		if !ok {
			if strings.Count(raw, "&") < paramsMax {
				t.Fatalf("%q has no more than %d parameters", raw, paramsMax)
			}
			return
		}
		for i := 1; i < len(ps); i++ {
			if ps[i-1].name >= ps[i].name {
				t.Fatalf("names %q and %q are out of order", ps[i-1].name, ps[i].name)
			}
		}
		if strings.ContainsAny(raw, ";+") {
			return
		}
		values, err := url.ParseQuery(raw)
		if err != nil {
			return
		}
		for name, all := range values {
			lower := strings.ToLower(name)
			if got := ps.get(lower); lower == name && !slices.Contains(all, got) && got != lastOf(raw, lower) {
				t.Fatalf("%s = %q, net/url has %q", name, got, all)
			}
		}
	})
}

// lastOf is the last value of any spelling of a name.
func lastOf(raw, lower string) string {
	last := ""
	for pair := range strings.SplitSeq(raw, "&") {
		name, value, _ := strings.Cut(pair, "=")
		if strings.ToLower(unescape(name)) == lower {
			last = unescape(value)
		}
	}
	return last
}

// The vector of the protocol's documentation, at its own time.
func TestGoldenRequest(t *testing.T) {
	const (
		key, secret = "278d425bdf160c739803", "7ad3773142a6692b25b8"
		body        = `{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}`
		query       = "auth_key=" + key + "&auth_timestamp=1353088179&auth_version=1.0&body_md5=ec365a775a4cd0599faeb73354201b6f" +
			"&auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c"
	)
	apps, err := app.NewRegistry([]app.App{{ID: "3", Keys: []app.Key{{Key: key, Secret: secret}}}})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Unix(1353088179, 0)
	au := authenticator{apps: apps, now: func() time.Time { return now }}
	q, _ := parseQuery(query)
	if err := au.check(apps.ByID("3"), http.MethodPost, "/apps/3/events", q); err != nil {
		t.Error(err)
	}
	if err := checkBody(q, []byte(body)); err != nil {
		t.Error(err)
	}
	for _, skew := range []time.Duration{-600 * time.Second, 600 * time.Second} {
		now = time.Unix(1353088179, 0).Add(skew)
		if err := au.check(apps.ByID("3"), http.MethodPost, "/apps/3/events", q); err != nil {
			t.Errorf("at the limit of %s: %v", skew, err)
		}
		now = now.Add(skew / 600)
		if err := au.check(apps.ByID("3"), http.MethodPost, "/apps/3/events", q); err == nil {
			t.Errorf("a second behind the limit of %s it is accepted", skew)
		}
	}
	now = time.Unix(1353088179, 0)
	if err := au.check(apps.ByID("3"), http.MethodGet, "/apps/3/events", q); err == nil {
		t.Error("another method is accepted")
	}
	if err := checkBody(q, []byte(body+" ")); err == nil {
		t.Error("another body is accepted")
	}
}
