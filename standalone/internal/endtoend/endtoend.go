// Package endtoend encrypts for private-encrypted-* channels, as an application's backend does: the server never has the key.
package endtoend

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"

	"golang.org/x/crypto/nacl/secretbox"
)

// MasterKey is an application's secret for all its encrypted channels.
type MasterKey [32]byte

// ParseMasterKey reads a key as the SDKs take it: 32 bytes in base64.
func ParseMasterKey(text string) (MasterKey, error) {
	raw, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(raw) != len(MasterKey{}) {
		return MasterKey{}, fmt.Errorf("the master key must be 32 bytes in base64: openssl rand -base64 32 makes one")
	}
	return MasterKey(raw), nil
}

// channelKey is what a channel's subscribers share (Pusher protocol, "encrypted channels").
func (k MasterKey) channelKey(channel string) [32]byte {
	return sha256.Sum256(append([]byte(channel), k[:]...))
}

// SharedSecret is the channel's key as the authorization endpoint hands it to a subscriber.
func (k MasterKey) SharedSecret(channel string) string {
	key := k.channelKey(channel)
	return base64.StdEncoding.EncodeToString(key[:])
}

// Seal encrypts the data of an event into what is published in its place.
func (k MasterKey) Seal(channel, data string) (string, error) {
	var nonce [24]byte
	if _, err := rand.Read(nonce[:]); err != nil {
		return "", fmt.Errorf("encrypt for %s: %w", channel, err)
	}
	key := k.channelKey(channel)
	sealed, err := json.Marshal(struct {
		Nonce      []byte `json:"nonce"`
		Ciphertext []byte `json:"ciphertext"`
	}{nonce[:], secretbox.Seal(nil, []byte(data), &nonce, &key)})
	if err != nil {
		return "", fmt.Errorf("encrypt for %s: %w", channel, err)
	}
	return string(sealed), nil
}
