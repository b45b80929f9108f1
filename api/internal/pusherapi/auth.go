package pusherapi

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/signature"
)

const (
	authVersion = "1.0"
	// clockSkew is how far auth_timestamp may be from our clock, in seconds.
	clockSkew = 600
)

// authenticator checks who makes a request. (Pusher HTTP API, "authentication".)
type authenticator struct {
	// immutable
	apps   *app.Registry
	prefix string // path prefix that a proxy may add or strip, "" or "/x"
	now    func() time.Time
}

// app finds the app of a request: by the id in the path, or by the key where the path has none.
func (au *authenticator) app(t target, q params) (*app.App, error) {
	var a *app.App
	if t.app != "" {
		if a = au.apps.ByID(t.app); a == nil {
			return nil, refuse(http.StatusNotFound, "there is no app %q", t.app)
		}
	} else if a = au.apps.ByKey(q.get("auth_key")); a == nil {
		return nil, refuse(http.StatusUnauthorized, "auth_key %q is unknown", q.get("auth_key"))
	}
	if a.Disabled {
		return nil, refuse(http.StatusForbidden, "app %s is disabled", a.ID)
	}
	return a, nil
}

// check verifies all of the authentication parameters but the body's digest.
func (au *authenticator) check(a *app.App, method, path string, q params) error {
	if v := q.get("auth_version"); v != authVersion {
		return refuse(http.StatusUnauthorized, "auth_version is %q, want %s", v, authVersion)
	}
	name := q.get("auth_key")
	if name == "" {
		return refuse(http.StatusUnauthorized, "auth_key is missing")
	}
	key, ok := a.Key(name)
	if !ok {
		return refuse(http.StatusUnauthorized, "auth_key %q is not an enabled key of app %s", name, a.ID)
	}
	if key.Secret == "" {
		return refuse(http.StatusUnauthorized, "auth_key %q has no secret here, so nobody can sign with it", name)
	}
	if err := au.fresh(q.get("auth_timestamp")); err != nil {
		return err
	}
	sig := q.get("auth_signature")
	if sig == "" {
		return refuse(http.StatusUnauthorized, "auth_signature is missing")
	}
	query := q.canonical()
	for _, p := range au.paths(path) {
		if p != "" && signature.Verify(key.Secret, signature.Request(method, p, query), sig) {
			return nil
		}
	}
	return refuse(http.StatusUnauthorized,
		"auth_signature is wrong: want the hex HMAC-SHA256, with the secret of key %q, of %q", name, signature.Request(method, path, query))
}

// fresh refuses a request of another hour, which may be a recorded one.
func (au *authenticator) fresh(timestamp string) error {
	at, err := strconv.ParseInt(timestamp, 10, 64)
	if err != nil {
		return refuse(http.StatusUnauthorized, "auth_timestamp is %q, want Unix seconds", timestamp)
	}
	now := au.now().Unix()
	if at < now-clockSkew || at > now+clockSkew {
		return refuse(http.StatusUnauthorized, "auth_timestamp is %d, more than %d s away from the server's time %d", at, clockSkew, now)
	}
	return nil
}

// paths are those that the client may have signed: the one on the wire; the one that it knows when a proxy added or stripped the
// prefix; and each without escapes, for SDKs whose HTTP library escapes what they have signed. An escaped slash would make
// another path of it, so that is not unescaped.
func (au *authenticator) paths(path string) [4]string {
	out := [4]string{path}
	if au.prefix != "" {
		if rest, ok := strings.CutPrefix(path, au.prefix); ok && strings.HasPrefix(rest, "/") {
			out[1] = rest
		} else {
			out[1] = au.prefix + path
		}
	}
	if strings.IndexByte(path, '%') < 0 {
		return out
	}
	for i, p := range out[:2] {
		if plain := unescape(p); strings.Count(plain, "/") == strings.Count(p, "/") {
			out[i+2] = plain
		}
	}
	return out
}

// checkBody compares body_md5 with the body: it is required with a body and must be right when it is there, whatever the method.
func checkBody(q params, body []byte) error {
	want := q.get("body_md5")
	if want == "" {
		if len(body) == 0 {
			return nil
		}
		return refuse(http.StatusUnauthorized, "body_md5 is missing, it is required with a body")
	}
	if have := signature.BodyMD5(body); !strings.EqualFold(have, want) {
		return refuse(http.StatusUnauthorized, "body_md5 is %q, but the MD5 of the %d bytes of the body is %s", want, len(body), have)
	}
	return nil
}

// refusal is an error with the HTTP status that it is answered with.
type refusal struct {
	status     int
	retryAfter int // seconds, 0 for what is usual
	text       string
}

func (r *refusal) Error() string { return r.text }

func refuse(status int, format string, args ...any) error {
	return &refusal{status: status, text: fmt.Sprintf(format, args...)}
}
