package decide_test

import (
	"encoding/json"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
)

// What a connection's token claims goes to the gateway, which sends it along
// with later questions; of apps whose conditions don't look at it, it does not.
func TestClaimsOfConnections(t *testing.T) {
	claims := jwt.MapClaims{"sub": "7", "role": "boss", "meta": map[string]any{"n": 1}}
	silent := func(a *app.App) {
		for i := range a.Policies {
			a.Policies[i].SubscribeIf, a.Policies[i].PublishIf = `user != "claims"`, ""
		}
	}
	publishing := func(a *app.App) {
		silent(a)
		a.Policies[0].PublishIf = `claims.role == "boss"`
	}
	for name, c := range map[string]struct {
		change func(*app.App)
		want   bool
	}{"subscribe_if": {nil, true}, "publish_if": {publishing, true}, "no condition": {silent, false}} {
		d := decider(centrifugo(t, c.change))
		for how, cred := range map[string]*authz.Credentials{
			"connect": d.Connect(t.Context(), &authz.Connect{Client: client(""), Token: sign(t, claims)}).Credentials,
			"refresh": d.Refresh(t.Context(), &authz.Refresh{Client: client("7"), Token: sign(t, claims)}).Credentials,
		} {
			if cred == nil {
				t.Fatalf("%s: %s was refused", name, how)
			}
			var got jwt.MapClaims
			if cred.Claims != "" {
				if err := json.Unmarshal([]byte(cred.Claims), &got); err != nil {
					t.Fatalf("%s: %s: %v", name, how, err)
				}
			}
			if (got["role"] == "boss" && got["sub"] == "7") != c.want || (cred.Claims != "") != c.want {
				t.Errorf("%s: %s: the claims are %q", name, how, cred.Claims)
			}
		}
	}
}

func TestConditionsOnClaims(t *testing.T) {
	apps := centrifugo(t, func(a *app.App) {
		a.Policies = []app.Policy{{Match: "c:*", SubscribeIf: `claims.role == "boss"`, PublishIf: `claims.role == "boss" && attrs == meta`, Publish: app.Anyone}}
	})
	d := decider(apps)
	for _, c := range []struct {
		name         string
		claims       string
		token        jwt.MapClaims
		sub, publish string
	}{
		{name: "of the connection", claims: `{"role":"boss"}`, sub: "yes", publish: "yes"},
		{name: "of the connection, other ones", claims: `{"role":"x"}`, sub: "forbidden", publish: "forbidden"},
		{name: "none", sub: "forbidden", publish: "forbidden"},
		{name: "of the subscription", token: jwt.MapClaims{"sub": "7", "channel": "c:1", "role": "boss"}, sub: "yes", publish: "forbidden"},
		{
			name: "of the subscription, before those of the connection", claims: `{"role":"boss"}`,
			token: jwt.MapClaims{"sub": "7", "channel": "c:1", "role": "x"}, sub: "forbidden", publish: "yes",
		},
		{
			name: "of the subscription, which has no such claim", claims: `{"role":"boss"}`,
			token: jwt.MapClaims{"sub": "7", "channel": "c:1"}, sub: "forbidden", publish: "yes",
		},
	} {
		who := client("7")
		who.Claims = c.claims
		sub := authz.Subscribe{Client: &who, Channel: "c:1"}
		if c.token != nil {
			sub.Token = sign(t, c.token)
		}
		expect(t, "subscribe, claims "+c.name, d.Subscribe(t.Context(), &sub), c.sub)
		expect(t, "publish, claims "+c.name, d.Publish(t.Context(), &authz.Publish{Client: who, Channel: "c:1"}), c.publish)
	}
}
