package decide

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/signature"
)

// quotedMax is how many bytes of a client's own text a message repeats.
const quotedMax = 4 << 10

// verify checks "key:signature" over text. The key in auth decides which
// secret counts, whatever key the connection came with: that is how an app
// rotates its keys. It allows or says what is wrong; never a secret.
func verify(a *app.App, auth, text string) authz.Decision {
	if auth == "" {
		return badSignature("auth is missing: send \"<key>:<signature>\" with the HMAC-SHA256 hex digest of " + quote(text))
	}
	name, sig, ok := signature.SplitAuth(auth)
	if !ok {
		return badSignature("auth is " + quote(auth) + ", want \"<key>:<signature>\"")
	}
	key, ok := a.Key(name)
	switch {
	case !ok && key.Key != "":
		return badSignature("key " + quote(name) + " is disabled")
	case !ok:
		return badSignature("key " + quote(name) + " is not a key of this app")
	case key.Secret == "":
		// Everybody can sign with an empty secret.
		return authz.Refuse(authz.Unavailable, "key "+quote(name)+" has no secret here")
	case !signature.Verify(key.Secret, text, sig):
		return badSignature("Invalid signature: expected the HMAC-SHA256 hex digest of " + quote(text) + ", got " + quote(sig))
	}
	return authz.Decision{Allow: true}
}

func badSignature(message string) authz.Decision { return authz.Refuse(authz.BadSignature, message) }

// withinLimits checks the sizes that the app allows: the id in string form and
// the user info as the application wrote it.
func withinLimits(a *app.App, user *authz.User) authz.Decision {
	if n, limit := len(user.ID), a.Limits.UserIDBytes; n > limit {
		return authz.Refuse(authz.TooLarge, fmt.Sprintf("the user id has %d bytes, at most %d are allowed", n, limit))
	}
	if n, limit := len(user.Info), a.Limits.PresenceUserBytes; n > limit {
		return authz.Refuse(authz.TooLarge, fmt.Sprintf("user_info has %d bytes, at most %d are allowed", n, limit))
	}
	return authz.Decision{Allow: true}
}

// quote repeats s exactly between quotes when that is readable, else escaped;
// what is very long is cut.
func quote(s string) string {
	cut := ""
	if len(s) > quotedMax {
		s, cut = s[:quotedMax], "..."
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) || r == '\uFFFD' }) {
		return strconv.Quote(s) + cut
	}
	return `"` + s + `"` + cut
}
