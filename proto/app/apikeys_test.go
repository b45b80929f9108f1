package app

import (
	"strings"
	"testing"
)

// An API key says which app a call is for: it is of one app. A process that is
// not told the secrets does not mind.
func TestAPIKeysAreOfOneApp(t *testing.T) {
	of := func(id string, secrets ...string) App {
		a := App{ID: id, Keys: []Key{{Key: "key-of-" + id}}}
		for _, s := range secrets {
			a.Centrifugo.APIKeys = append(a.Centrifugo.APIKeys, APIKey{Name: "n", Secret: s})
		}
		return a
	}
	for _, apps := range [][]App{
		{of("1", "one", "two"), of("2", "three")},
		{of("1", "one", "one"), of("2")},
		{of("1", "", ""), of("2", "")},
	} {
		if _, err := NewRegistry(apps); err != nil {
			t.Errorf("%v", err)
		}
	}
	_, err := NewRegistry([]App{of("1", "secret-one"), of("2", "secret-two", "secret-one")})
	if err == nil || !strings.Contains(err.Error(), "apps 1 and 2") || strings.Contains(err.Error(), "secret-one") {
		t.Errorf("one key of two apps: %v", err)
	}
}
