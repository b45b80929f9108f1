package token

import (
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"regexp"

	"github.com/golang-jwt/jwt/v5"
)

// rsaBitsMin is the shortest RSA key that counts.
const rsaBitsMin = 1024

// keys lists the keys that may have signed t; all is false if there may be
// more, which can't be had now. Each way of signing has keys of its own kind: a
// public key is never a secret of HS256.
func (v *Verifier) keys(ctx context.Context, t *jwt.Token, c *claims) (set jwt.VerificationKeySet, all bool, err error) {
	if _, ok := t.Method.(*jwt.SigningMethodHMAC); ok {
		for _, secret := range []string{v.settings.HMACSecret, v.settings.Previous(v.now())} {
			if secret != "" {
				set.Keys = append(set.Keys, []byte(secret))
			}
		}
		return set, true, nil
	}
	set.Keys = appendFitting(set.Keys, t.Method, v.public)
	if v.settings.JWKSURL == "" {
		return set, true, nil
	}
	url, err := v.setURL(c)
	if err != nil {
		return set, true, err
	}
	id, _ := t.Header["kid"].(string)
	published, err := v.sets.Keys(ctx, url, id)
	set.Keys = appendFitting(set.Keys, t.Method, published)
	return set, err == nil, nil
}

func appendFitting(to []jwt.VerificationKey, method jwt.SigningMethod, keys []any) []jwt.VerificationKey {
	for _, key := range keys {
		if fits(method, key) {
			to = append(to, key)
		}
	}
	return to
}

func fits(method jwt.SigningMethod, key any) bool {
	switch m := method.(type) {
	case *jwt.SigningMethodRSA:
		k, ok := key.(*rsa.PublicKey)
		return ok && k.N.BitLen() >= rsaBitsMin
	case *jwt.SigningMethodECDSA:
		k, ok := key.(*ecdsa.PublicKey)
		return ok && k.Curve.Params().BitSize == m.CurveBits
	case *jwt.SigningMethodEd25519:
		_, ok := key.(ed25519.PublicKey)
		return ok
	}
	return false
}

// placeable is what a group may put into the address of a key set: nothing
// that leads to another host, or out of the path.
var placeable = regexp.MustCompile(`^[A-Za-z0-9_-][A-Za-z0-9._-]*$`)

// setURL is the address of the key set for these claims, which nobody has
// verified yet: issuer and audience must be those of the app first.
func (v *Verifier) setURL(c *claims) (string, error) {
	groups, err := v.foreign(c)
	if err != nil {
		return "", err
	}
	for name, value := range groups {
		if !placeable.MatchString(value) {
			return "", bad("the token's iss or aud has a %q that can't be part of an address", name)
		}
	}
	return v.settings.KeySetURL(groups), nil
}

// publicKey reads a PEM public key or certificate.
func publicKey(text string) (any, error) {
	block, _ := pem.Decode([]byte(text))
	if block == nil {
		return nil, errors.New("is not PEM, want a block such as -----BEGIN PUBLIC KEY-----")
	}
	var key any
	var err error
	switch block.Type {
	case "PUBLIC KEY":
		key, err = x509.ParsePKIXPublicKey(block.Bytes)
	case "RSA PUBLIC KEY":
		key, err = x509.ParsePKCS1PublicKey(block.Bytes)
	case "CERTIFICATE":
		var cert *x509.Certificate
		if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
			key = cert.PublicKey
		}
	default:
		return nil, fmt.Errorf("is a PEM block %q, want PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE", block.Type)
	}
	if err != nil {
		return nil, errors.New("is damaged: it holds no public key")
	}
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < rsaBitsMin {
			return nil, fmt.Errorf("is an RSA key of %d bits, want at least %d", k.N.BitLen(), rsaBitsMin)
		}
	case *ecdsa.PublicKey, ed25519.PublicKey:
	default:
		return nil, fmt.Errorf("is a key of type %T, want RSA, ECDSA or Ed25519", key)
	}
	return key, nil
}
