package token

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"
)

// Of key sets.
const (
	// freshFor is how long a set is used without a look at the issuer.
	freshFor = time.Hour
	// retryAfter is the time between two looks at one issuer, so that tokens
	// with key ids that nobody knows can't make us a nuisance.
	retryAfter = 10 * time.Second
	// staleFor is how long an issuer may be away while its last set counts.
	staleFor = 24 * time.Hour

	fetchTimeout = 3 * time.Second
	// patience is how long a token waits for a fetch that it may not need.
	patience    = 250 * time.Millisecond
	setBytesMax = 1 << 20
	setsMax     = 1000 // of templated addresses
	// fetchesMax is how many sets are fetched at a time: whoever writes a token
	// chooses what stands in a templated address.
	fetchesMax = 32
	// inLine is how many fetches may wait for their turn.
	inLine = 16 * fetchesMax
)

// Fetcher fetches key sets (RFC 7517) and keeps them. A key id that is not in
// a set has it fetched anew, which is how an issuer rotates its keys.
type Fetcher struct {
	// immutable after NewFetcher
	http    *http.Client
	now     func() time.Time
	fetched func(ok bool)

	slots chan struct{} // one for each fetch under way

	waiting atomic.Int64 // for a slot

	flights singleflight.Group

	mu sync.Mutex
	// guarded by mu
	sets map[string]*keySet
}

// keySet is immutable but for the times, which are guarded by Fetcher.mu.
type keySet struct {
	keys   []jose.JSONWebKey
	loaded time.Time // when keys came; zero if they never did
	tried  time.Time
	err    error // of the last try
}

// NewFetcher makes a fetcher; fetched is told of each try.
func NewFetcher(client *http.Client, now func() time.Time, fetched func(ok bool)) *Fetcher {
	return &Fetcher{http: client, now: now, fetched: fetched, slots: make(chan struct{}, fetchesMax), sets: map[string]*keySet{}}
}

// Keys implements KeySets.
func (f *Fetcher) Keys(ctx context.Context, url, id string) ([]any, error) {
	set := f.known(url)
	looked := set == nil || f.outdated(set, id)
	if looked {
		var err error
		if set, err = f.refresh(ctx, url, f.usable(set, id)); err != nil {
			return nil, err
		}
	}
	if set.loaded.IsZero() {
		return nil, set.err
	}
	keys := set.named(id)
	if len(keys) == 0 && (!looked || set.err != nil) {
		return nil, errNotLooked
	}
	return keys, nil
}

// errNotLooked: the key may have been published since.
var errNotLooked = errors.New("a key that the set did not have when it was last fetched")

func (f *Fetcher) known(url string) *keySet {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sets[url]
}

func (f *Fetcher) outdated(set *keySet, id string) bool {
	now := f.now()
	if now.Sub(set.tried) < retryAfter {
		return false
	}
	return now.Sub(set.loaded) > freshFor || id != "" && len(set.named(id)) == 0
}

// usable gives the set if it has the key and is not too old, else nil.
func (f *Fetcher) usable(set *keySet, id string) *keySet {
	if set == nil || len(set.named(id)) == 0 || f.now().Sub(set.loaded) >= staleFor {
		return nil
	}
	return set
}

// named lists the keys with this id that verify signatures; a set of keys
// without ids, or a token without one, has all of them tried.
func (s *keySet) named(id string) []any {
	var keys []any
	for _, k := range s.keys {
		if k.Use != "" && k.Use != "sig" || id != "" && k.KeyID != "" && k.KeyID != id {
			continue
		}
		keys = append(keys, k.Key)
	}
	return keys
}

// refresh fetches the set, once for all who wait for it. What can't be fetched
// leaves the set that is there, until it is too old. Who has one to use, which
// may be nil, waits for patience.
func (f *Fetcher) refresh(ctx context.Context, url string, have *keySet) (*keySet, error) {
	done := f.flights.DoChan(url, func() (any, error) {
		if set := f.known(url); set != nil && f.now().Sub(set.tried) < retryAfter {
			return set, nil // somebody has just been there
		}
		// Not this caller's context: others wait, too.
		fetchCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), fetchTimeout)
		defer cancel()
		if !f.enter(fetchCtx) {
			return f.store(url, nil, errBusy)
		}
		defer func() { <-f.slots }()
		keys, err := f.fetch(fetchCtx, url)
		f.fetched(err == nil)
		return f.store(url, keys, err)
	})
	var impatient <-chan time.Time
	if have != nil {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		impatient = timer.C
	}
	select {
	case r := <-done:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*keySet), nil
	case <-impatient:
		return have, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// enter waits for a slot; the line is limited.
func (f *Fetcher) enter(ctx context.Context) bool {
	defer f.waiting.Add(-1)
	if f.waiting.Add(1) > inLine {
		return false
	}
	select {
	case f.slots <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

var errBusy = errors.New("fetch key set: too many others are being fetched")

func (f *Fetcher) store(url string, keys []jose.JSONWebKey, err error) (*keySet, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now, old := f.now(), f.sets[url]
	set := &keySet{keys: keys, loaded: now, tried: now}
	if err != nil {
		set = &keySet{tried: now, err: err}
		if old != nil && now.Sub(old.loaded) < staleFor {
			set.keys, set.loaded = old.keys, old.loaded
		}
	}
	if old == nil && len(f.sets) >= setsMax {
		f.forget()
	}
	f.sets[url] = set
	return set, nil
}

// forget drops a set, one without keys if there is one: tokens that anybody
// may have written fill in addresses where there are none. It needs mu.
func (f *Fetcher) forget() {
	var some string
	for url, set := range f.sets {
		if some = url; set.loaded.IsZero() {
			break
		}
	}
	delete(f.sets, some)
}

func (f *Fetcher) fetch(ctx context.Context, url string) ([]jose.JSONWebKey, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, errors.New("fetch key set: its address is none")
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := f.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("fetch key set: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("fetch key set: the issuer answered %s", resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, setBytesMax+1))
	if err != nil {
		return nil, fmt.Errorf("fetch key set: %w", err)
	}
	if len(data) > setBytesMax {
		return nil, fmt.Errorf("fetch key set: it has more than %d bytes", setBytesMax)
	}
	return parseSet(data)
}

// parseSet reads a set. Keys of a kind that is not known are left out, as they
// may be for others (RFC 7517 5), and so are secret ones.
func parseSet(data []byte) ([]jose.JSONWebKey, error) {
	var doc struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(data, &doc); err != nil || doc.Keys == nil {
		return nil, errors.New("fetch key set: what the issuer answered is not a key set")
	}
	var keys []jose.JSONWebKey
	for _, raw := range doc.Keys {
		var k jose.JSONWebKey
		if k.UnmarshalJSON(raw) == nil && k.Valid() && k.IsPublic() {
			keys = append(keys, k)
		}
	}
	return keys, nil
}
