package centrifugoapi

import (
	"crypto/sha256"
	"sync/atomic"

	"github.com/carillon-rt/carillon/proto/app"
)

// Keys finds the app that an API key belongs to. It may be used by any
// goroutine.
type Keys struct {
	apps  *app.Registry
	index atomic.Pointer[keyIndex]
}

// keyIndex has the keys of one state of the registry by their hash: how long a
// look-up takes tells something of the hash at most, and nothing of any key.
type keyIndex struct {
	of    []*app.App
	byKey map[[sha256.Size]byte]*app.App
}

// NewKeys returns the keys of the apps, which must hold secrets.
func NewKeys(apps *app.Registry) *Keys { return &Keys{apps: apps} }

// App gives the app of a key, nil if the key is nobody's.
func (k *Keys) App(key string) *app.App {
	if key == "" {
		return nil
	}
	return k.current().byKey[sha256.Sum256([]byte(key))]
}

// current is the index of the apps as they are now.
func (k *Keys) current() *keyIndex {
	all := k.apps.All()
	if old := k.index.Load(); old != nil && same(old.of, all) {
		return old
	}
	in := &keyIndex{of: all, byKey: map[[sha256.Size]byte]*app.App{}}
	for _, a := range all {
		for _, key := range a.Centrifugo.APIKeys {
			if key.Secret != "" {
				in.byKey[sha256.Sum256([]byte(key.Secret))] = a
			}
		}
	}
	k.index.Store(in)
	return in
}

// same says whether both are one list: the registry makes a new one for each
// change.
func same(a, b []*app.App) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}
