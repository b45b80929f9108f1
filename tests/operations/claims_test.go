package operations

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// claimedApp is an app whose conditions look at what tokens claim.
const claimedApp = `  - id: "2001"
    keys: [{key: claimed-key, secret: claimed-secret}]
    policies:
      - {match: "staff:*", subscribe_if: '"staff" in claims.groups', publish: anyone, publish_if: 'claims.level >= 2 && attrs.tenant == "acme"'}
    centrifugo: {enabled: true, token: {hmac_secret: claimed-token}}
`

// signedToken is a JSON web token (HS256).
func signedToken(secret, claims string) string {
	encode := base64.RawURLEncoding.EncodeToString
	text := encode([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + encode([]byte(claims))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(text))
	return text + "." + encode(mac.Sum(nil))
}

// Conditions see the claims of the connection's token, of a subscription's
// before them, and of a new token after a refresh.
func TestConditionsOnClaims(t *testing.T) {
	c := env.Start(t, env.Apart(1), env.Config(claimedApp))
	expires := time.Now().Unix() + 5
	token := func(level int, exp int64) string {
		return signedToken("claimed-token", fmt.Sprintf(`{"sub":"42","groups":["staff"],"level":%d,"meta":{"tenant":"acme"},"exp":%d}`, level, exp))
	}
	seen := make(chan struct{}) // what the first token claims
	cl := centrifuge.NewJsonClient("ws://"+c.Gateways[0].Public()+"/connection/websocket?app=2001", centrifuge.Config{
		Token: token(2, expires),
		GetToken: func(centrifuge.ConnectionTokenEvent) (string, error) {
			<-seen
			return token(1, expires+3600), nil
		},
	})
	defer cl.Close()
	if err := cl.Connect(); err != nil {
		t.Fatal(err)
	}
	refused := func(err error) bool {
		var e *centrifuge.Error
		return errors.As(err, &e) && e.Code == 103
	}
	subscribe := func(name, token string) (ended uint32) {
		t.Helper()
		sub, err := cl.NewSubscription(name, centrifuge.SubscriptionConfig{Token: token})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan uint32, 1)
		sub.OnSubscribed(func(centrifuge.SubscribedEvent) { done <- 0 })
		sub.OnUnsubscribed(func(e centrifuge.UnsubscribedEvent) { done <- e.Code })
		if err := sub.Subscribe(); err != nil {
			t.Fatal(err)
		}
		select {
		case ended = <-done:
		case <-time.After(client.Patience):
			t.Fatalf("%s: neither subscribed nor refused", name)
		}
		return ended
	}
	if code := subscribe("staff:1", ""); code != 0 {
		t.Errorf("subscribed by the connection's claims: %d", code)
	}
	if _, err := cl.Publish(t.Context(), "staff:1", []byte(`1`)); err != nil {
		t.Errorf("published by the connection's claims: %v", err)
	}
	if code := subscribe("staff:2", signedToken("claimed-token", `{"sub":"42","channel":"staff:2","groups":[]}`)); code != 103 {
		t.Errorf("a subscription's token without the claim: %d, want 103", code)
	}
	if code := subscribe("staff:3", signedToken("claimed-token", `{"sub":"42","channel":"staff:3","groups":["staff"]}`)); code != 0 {
		t.Errorf("a subscription's token with the claim: %d", code)
	}

	close(seen)
	await.True(t, "the new token counts", func() bool {
		_, err := cl.Publish(t.Context(), "staff:1", []byte(`2`))
		if err != nil && !refused(err) {
			t.Errorf("published while the token is changed: %v", err)
		}
		return err != nil
	})
}
