// Package signature makes and checks the signatures of the Pusher protocol:
// HMAC-SHA256 in lower-case hex, with the app's secret. (Pusher Channels
// protocol, "auth signatures"; HTTP API, "authentication"; "webhooks".)
package signature

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Sign returns the hex HMAC-SHA256 of text under secret.
func Sign(secret, text string) string {
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return hex.EncodeToString(mac.Sum(nil))
}

// Verify compares a hex signature with that of text, in constant time. Under
// an empty secret, with which everybody can sign, nothing is right.
func Verify(secret, text, signature string) bool {
	return secret != "" && hmac.Equal([]byte(Sign(secret, text)), []byte(signature))
}

// Channel is the string to sign for a channel subscription: the channel data
// takes part whenever the client sends it, on private channels too.
func Channel(socketID, channel, channelData string) string {
	if channelData == "" {
		return socketID + ":" + channel
	}
	return socketID + ":" + channel + ":" + channelData
}

// User is the string to sign for a user's sign-in.
func User(socketID, userData string) string { return socketID + "::user::" + userData }

// Request is the string to sign for an HTTP API request: query is the sorted,
// unescaped "k=v&..." of all parameters but auth_signature.
func Request(method, path, query string) string { return method + "\n" + path + "\n" + query }

// Auth is what a client sends: "key:signature".
func Auth(key, secret, text string) string { return key + ":" + Sign(secret, text) }

// SplitAuth takes "key:signature" apart.
func SplitAuth(auth string) (key, signature string, ok bool) {
	return strings.Cut(auth, ":")
}

// BodyMD5 is the hex MD5 of a request body, as the body_md5 parameter.
func BodyMD5(body []byte) string {
	sum := md5.Sum(body)
	return hex.EncodeToString(sum[:])
}
