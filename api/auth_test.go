package api_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/api"
	"github.com/carillon-rt/carillon/kit/await"
)

type apiConfig = api.Config

const timeoutShort = 200 * time.Millisecond

func TestAuthentication(t *testing.T) {
	f := start(t, func(c *apiConfig) { c.PathPrefix = "/pusher" }).router().presence()
	body := `{"name":"e","channel":"a","data":"1"}`
	now := time.Now().Unix()
	ok := request{method: "POST", path: "/apps/3/events", body: body}
	with := func(change func(*request)) request {
		r := ok
		change(&r)
		return r
	}
	for _, tc := range []struct {
		name   string
		req    request
		status int
		text   string
	}{
		{"right", ok, 200, "{}"},
		{"second key", with(func(r *request) { r.key, r.secret = key2, secret2 }), 200, "{}"},
		{"disabled key", with(func(r *request) { r.key, r.secret = "off-key", "x" }), 401, "not an enabled key"},
		{"key without a secret", with(func(r *request) { r.key, r.secret = "open-key", "" }), 401, "has no secret"},
		{"unknown key", with(func(r *request) { r.key, r.secret = "nobody", "x" }), 401, "not an enabled key"},
		{"key of another app", with(func(r *request) { r.key, r.secret = "key-of-5", "secret-of-5" }), 401, "not an enabled key"},
		{"wrong secret", with(func(r *request) { r.key, r.secret = key, "x" }), 401, `POST\\n/apps/3/events\\nauth_key=278d425bdf160c739803`},
		{"wrong signature", with(func(r *request) { r.signature = strings.Repeat("0", 64) }), 401, "auth_signature is wrong"},
		{"other path", with(func(r *request) { r.signPath = "/apps/3/batch_events" }), 401, "auth_signature is wrong"},
		{"ten minutes old", with(func(r *request) { r.time = now - 590 }), 200, "{}"},
		{"too old", with(func(r *request) { r.time = now - 610 }), 401, "auth_timestamp"},
		{"of the future", with(func(r *request) { r.time = now + 700 }), 401, "auth_timestamp"},
		{"other version", with(func(r *request) { r.version = "2.0" }), 401, "auth_version"},
		{"no digest", with(func(r *request) { r.noMD5 = true }), 401, "body_md5 is missing"},
		{"unknown app", with(func(r *request) { r.path = "/apps/99/events" }), 404, `there is no app \"99\"`},
		{"disabled app", with(func(r *request) { r.path, r.key, r.secret = "/apps/4/events", "key-of-4", "secret-of-4" }), 403, "app 4 is disabled"},
		{"prefix on the wire and signed", with(func(r *request) { r.path = "/pusher/apps/3/events" }), 200, "{}"},
		{"prefix signed, stripped on the way", with(func(r *request) { r.signPath = "/pusher/apps/3/events" }), 200, "{}"},
		{"prefix added on the way", with(func(r *request) { r.path, r.signPath = "/pusher/apps/3/events", "/apps/3/events" }), 200, "{}"},
		{"Python's GET with body_md5", request{method: "GET", path: "/apps/3/channels", signBody: true}, 200, `{"channels":{}}`},
		{"GET without body_md5", request{method: "GET", path: "/apps/3/channels"}, 200, `{"channels":{}}`},
		{"unescaped values", request{method: "GET", path: "/apps/3/channels", query: "filter_by_prefix=presence-a;b=c@d,e+f&info=user_count,subscription_count"}, 200, `{"channels":{}}`},
		{"escaped values", request{
			method: "GET", path: "/apps/3/channels", query: "filter_by_prefix=presence-a%3Bb%2Bc&info=user_count%2Csubscription_count",
			signQuery: "filter_by_prefix=presence-a;b+c&info=user_count,subscription_count",
		}, 200, `{"channels":{}}`},
		{"unescaped channel in the path", request{method: "GET", path: "/apps/3/channels/presence-a;b=c@d,e"}, 200, `{"occupied":false}`},
		{"channel that the HTTP library escaped", request{
			method: "GET", path: "/apps/3/channels/presence-a%3Bb%40c", signPath: "/apps/3/channels/presence-a;b@c",
		}, 200, `{"occupied":false}`},
		{"escaped channel, signed so", request{method: "GET", path: "/apps/3/channels/presence-a%3Bb%40c"}, 200, `{"occupied":false}`},
		{"an escaped slash is none", request{method: "GET", path: "/apps/3/channels%2Fa", signPath: "/apps/3/channels/a"}, 404, "there is no"},
		{"nor does a signature for a slash hold for it", request{
			method: "GET", path: "/apps/3/channels/a%2Fusers", signPath: "/apps/3/channels/a/users",
		}, 401, "auth_signature is wrong"},
		{"keys in upper case", request{method: "GET", path: "/apps/3/channels", query: "Info=subscription_count", signQuery: "info=subscription_count"}, 200, `{"channels":{}}`},
		{"the last of a repeated key", request{
			method: "GET", path: "/apps/3/channels", query: "info=user_count&info=subscription_count", signQuery: "info=subscription_count",
		}, 200, `{"channels":{}}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := f.do(tc.req)
			if tc.status >= 400 {
				checkError(t, got, tc.status, tc.text)
				return
			}
			if got.status != tc.status || got.body != tc.text {
				t.Errorf("answer %d %s, want %d %s", got.status, got.body, tc.status, tc.text)
			}
		})
	}
}

func TestMalformedAuthentication(t *testing.T) {
	f := start(t)
	for name, tc := range map[string]struct{ query, text string }{
		"nothing":         {"", "auth_version"},
		"no key":          {"auth_version=1.0", "auth_key is missing"},
		"no time":         {"auth_version=1.0&auth_key=" + key, "auth_timestamp"},
		"time in words":   {"auth_version=1.0&auth_timestamp=now&auth_key=" + key, `auth_timestamp is \"now\"`},
		"no signature":    {"auth_version=1.0&auth_timestamp=9999999999999999999&auth_key=" + key, "auth_timestamp"},
		"broken escapes":  {"auth_version=1.0%&auth_key=" + key, "auth_version"},
		"only separators": {"&&&=&;", "auth_version"},
	} {
		got := f.raw("GET /apps/3/channels?" + tc.query + " HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
		if got.status != http.StatusUnauthorized || !strings.Contains(got.body, tc.text) {
			t.Errorf("%s: answer %d %s, want 401 with %s", name, got.status, got.body, tc.text)
		}
	}
	many := "GET /apps/3/channels?" + strings.Repeat("a=1&", 10) + manyParams() + " HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"
	checkError(t, f.raw(many), 400, "more than 64 parameters")
}

func manyParams() string {
	var b strings.Builder
	for i := range 70 {
		b.WriteString("&p" + strings.Repeat("x", i) + "=1")
	}
	return b.String()
}

// A wrong digest is refused with every method, also on an empty body.
func TestBodyDigest(t *testing.T) {
	f := start(t).router().presence()
	r := request{method: "GET", path: "/apps/3/channels", query: "body_md5=00000000000000000000000000000000"}
	checkError(t, f.do(r), 401, "body_md5 is")
	r = request{method: "POST", path: "/apps/3/events", body: "{}", noMD5: true, query: "body_md5=00000000000000000000000000000000"}
	checkError(t, f.do(r), 401, "body_md5 is")
	if pubs := f.take(); len(pubs) > 0 {
		t.Errorf("published %d", len(pubs))
	}
}

func TestHealth(t *testing.T) {
	f := start(t)
	plain := func(path string) response {
		return f.raw("GET " + path + " HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
	}
	for _, path := range []string{"/up", "/ready"} {
		if got := plain(path); got.status != 200 || got.body != "{}" {
			t.Errorf("%s: %d %s", path, got.status, got.body)
		}
	}
	f.nats.Stop()
	await.True(t, "readiness to go", func() bool { return plain("/ready").status == 503 })
	if got := plain("/up"); got.status != 200 {
		t.Errorf("/up without NATS: %d %s", got.status, got.body)
	}
	f.nats.Start()
	await.True(t, "readiness to come back", func() bool { return plain("/ready").status == 200 })
}
