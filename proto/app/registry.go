package app

import (
	"fmt"
	"sync/atomic"
)

// Registry is the set of apps that a process knows. Reading takes no lock: it
// is an immutable snapshot that Replace swaps.
type Registry struct {
	snap atomic.Pointer[snapshot]
}

type snapshot struct {
	byID  map[string]*App
	byKey map[string]*App
	all   []*App
}

// NewRegistry validates the apps and returns a registry of them, defaults
// filled in.
func NewRegistry(apps []App) (*Registry, error) {
	r := &Registry{}
	if err := r.Replace(apps); err != nil {
		return nil, err
	}
	return r, nil
}

// Public returns a registry of the same apps without their secrets.
func (r *Registry) Public() *Registry {
	s := r.snap.Load()
	apps := make([]App, len(s.all))
	for i, a := range s.all {
		apps[i] = a.Public()
	}
	pub := &Registry{}
	pub.snap.Store(index(apps))
	return pub
}

// Replace swaps in another set of apps, or returns why it can't and keeps the
// old one.
func (r *Registry) Replace(apps []App) error {
	full := make([]App, len(apps))
	keys, apiKeys, ids := map[string]string{}, map[string]string{}, map[string]bool{}
	for i, a := range apps {
		if err := a.Validate(); err != nil {
			return err
		}
		if ids[a.ID] {
			return fmt.Errorf("app id %s is listed twice", a.ID)
		}
		ids[a.ID] = true
		for _, k := range a.Keys {
			if other, ok := keys[k.Key]; ok {
				return fmt.Errorf("key %q belongs to app %s and to app %s", k.Key, other, a.ID)
			}
			keys[k.Key] = a.ID
		}
		for _, k := range a.Centrifugo.APIKeys {
			if other, ok := apiKeys[k.Secret]; ok && other != a.ID {
				return fmt.Errorf("apps %s and %s have the same secret among their centrifugo.api_keys: it has to say which app a call is for", other, a.ID)
			}
			if k.Secret != "" { // not known to this process
				apiKeys[k.Secret] = a.ID
			}
		}
		full[i] = a.WithDefaults()
	}
	r.snap.Store(index(full))
	return nil
}

func index(apps []App) *snapshot {
	s := &snapshot{byID: map[string]*App{}, byKey: map[string]*App{}}
	for i := range apps {
		a := &apps[i]
		s.all = append(s.all, a)
		s.byID[a.ID] = a
		for _, k := range a.Keys {
			s.byKey[k.Key] = a
		}
	}
	return s
}

// ByID gives the app with this id, nil if there is none. The app is shared
// and must not be changed.
func (r *Registry) ByID(id string) *App { return r.snap.Load().byID[id] }

// ByKey gives the app that owns the key, nil if there is none. The key may be
// disabled: see App.Key.
func (r *Registry) ByKey(key string) *App { return r.snap.Load().byKey[key] }

// ForCentrifugo gives the app of a Centrifugo client: the one that named (the
// query's "app": an id or a key, may be "") says, else the first whose hosts
// match; nil if there is none that is enabled.
func (r *Registry) ForCentrifugo(named, host string) *App {
	if named != "" {
		a := r.ByID(named)
		if a == nil {
			a = r.ByKey(named)
		}
		if a == nil || !a.Centrifugo.Enabled || a.Disabled {
			return nil
		}
		return a
	}
	for _, a := range r.All() {
		if !a.Disabled && a.Centrifugo.MatchHost(host) {
			return a
		}
	}
	return nil
}

// All lists the apps.
func (r *Registry) All() []*App { return r.snap.Load().all }
