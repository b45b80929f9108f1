package token

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"github.com/carillon-rt/carillon/proto/app"
)

// What a connection costs when all clients come back at once.
func BenchmarkConnection(b *testing.B) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	claims := jwt.MapClaims{"sub": "7", "exp": now.Unix() + 60, "info": map[string]string{"name": "x"}, "channels": []string{"news"}}
	v := verifier(b, app.Token{HMACSecret: "s", PublicKeys: []string{pemOf(b, key.Public())}}, nil)
	for name, raw := range map[string]string{"HS256": sign(b, "HS256", []byte("s"), claims, ""), "ES256": sign(b, "ES256", key, claims, "")} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Connection(b.Context(), raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
