package rings

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

var start = time.Unix(1_000_000, 0)

func key(name string) channel.Key { return channel.Key{App: "1", Name: name} }

func entry(pos message.Position, at time.Time) Entry {
	return Entry{Position: pos, At: at, Data: []byte("0123456789")}
}

func positions(es []Entry) []message.Position {
	var out []message.Position
	for _, e := range es {
		out = append(out, e.Position)
	}
	return out
}

func TestHistory(t *testing.T) {
	five := Policy{Size: 3, TTL: time.Minute}
	tests := []struct {
		name  string
		apply func(s *Set)
		now   time.Duration
		since message.Position
		limit int
		want  []message.Position
		floor message.Position
	}{
		{"unknown channel", func(*Set) {}, 0, 0, 10, nil, 0},
		{"below size", applyAll(five, 1, 2), 0, 0, 10, []message.Position{1, 2}, 0},
		{"evicted by size", applyAll(five, 1, 2, 3, 4, 5), 0, 0, 10, []message.Position{3, 4, 5}, 2},
		{"since", applyAll(five, 1, 2, 3), 0, 2, 10, []message.Position{3}, 0},
		{"limit gives the newest", applyAll(five, 1, 2, 3), 0, 0, 2, []message.Position{2, 3}, 0},
		{"expired", applyAll(five, 1, 2, 3), 2 * time.Minute, 0, 10, nil, 3},
		{"no history keeps a floor", applyAll(Policy{CacheTTL: time.Hour}, 1, 2), 0, 0, 10, nil, 2},
		{"not kept at all", applyAll(Policy{}, 7), 0, 0, 10, nil, 7},
		{"removed", func(s *Set) { applyAll(five, 1, 2)(s); s.Remove(key("c")); applyAll(five, 4)(s) }, 0, 0, 10, []message.Position{4}, 2},
		{"removed when there is nothing", func(s *Set) { s.Remove(key("c")); applyAll(five, 1)(s); s.Remove(key("d")) }, 0, 0, 10, []message.Position{1}, 0},
		{"base", func(s *Set) { applyAll(five, 8)(s); s.RaiseBase(5) }, 0, 0, 10, []message.Position{8}, 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := New(1 << 20)
			tt.apply(s)
			now := start.Add(tt.now)
			got := positions(s.Since(nil, key("c"), tt.since, tt.limit, now))
			if len(got) != len(tt.want) {
				t.Fatalf("Since = %v, want %v", got, tt.want)
			}
			for i := range got {
				if got[i] != tt.want[i] {
					t.Fatalf("Since = %v, want %v", got, tt.want)
				}
			}
			if f := s.Floor(key("c"), now); f != tt.floor {
				t.Errorf("Floor = %d, want %d", f, tt.floor)
			}
		})
	}
}

func TestBetween(t *testing.T) {
	s := New(1 << 20)
	applyAll(Policy{Size: 9}, 1, 2, 4, 5, 8)(s)
	for _, tt := range []struct {
		name          string
		since, before message.Position
		limit         int
		oldest        bool
		want          []message.Position
		more          bool
	}{
		{"all", 0, 0, 5, false, []message.Position{1, 2, 4, 5, 8}, false},
		{"newest", 0, 0, 2, false, []message.Position{5, 8}, true},
		{"oldest", 0, 0, 2, true, []message.Position{1, 2}, true},
		{"oldest since", 2, 0, 2, true, []message.Position{4, 5}, true},
		{"oldest to the end", 4, 0, 2, true, []message.Position{5, 8}, false},
		{"newest before", 0, 5, 2, false, []message.Position{2, 4}, true},
		{"before a gap", 2, 7, 9, false, []message.Position{4, 5}, false},
		{"nothing between", 5, 5, 9, true, nil, false},
		{"before the first", 0, 1, 9, false, nil, false},
		{"none", 0, 0, 0, true, nil, false},
	} {
		got, more := s.Between(nil, key("c"), tt.since, tt.before, tt.limit, tt.oldest, start)
		if !slices.Equal(positions(got), tt.want) || more != tt.more {
			t.Errorf("%s: %v, more %v; want %v, %v", tt.name, positions(got), more, tt.want, tt.more)
		}
	}
}

// A removal frees what it removes, and leaves no cached value.
func TestRemove(t *testing.T) {
	s := New(1 << 20)
	applyAll(Policy{Size: 9, CacheTTL: time.Hour}, 1, 2, 4)(s)
	s.Remove(key("c"))
	if _, _, ok := s.Cached(key("c"), start); ok || s.Top(key("c")) != 4 {
		t.Errorf("after a removal the cached value is there: %v; the top is %d, want 4", ok, s.Top(key("c")))
	}
	s.Expire(start, 10)
	if s.Bytes() != 0 || s.Channels() != 0 || s.Floor(key("c"), start) != 4 {
		t.Errorf("%d bytes and %d channels are left; the floor is %d, want 4", s.Bytes(), s.Channels(), s.Floor(key("c"), start))
	}
}

func applyAll(p Policy, ps ...message.Position) func(*Set) {
	return func(s *Set) {
		for _, pos := range ps {
			s.Apply(key("c"), p, entry(pos, start), start)
		}
	}
}

func TestCachedHasTheRestOfItsLife(t *testing.T) {
	s := New(1 << 20)
	s.Apply(key("c"), Policy{CacheTTL: time.Minute}, entry(9, start), start)
	e, left, ok := s.Cached(key("c"), start.Add(20*time.Second))
	if !ok || e.Position != 9 || left != 40*time.Second {
		t.Fatalf("Cached = %v %v %v, want position 9 with 40s left", e.Position, left, ok)
	}
	if _, _, ok := s.Cached(key("c"), start.Add(time.Minute)); ok {
		t.Fatal("Cached gives a value whose life is over")
	}
	if _, _, ok := s.Cached(key("other"), start); ok {
		t.Fatal("Cached gives a value of a channel without one")
	}
}

// TestCacheSwitchedOff: a value from before is not shown when the cache is on
// again, it is not the last one.
func TestCacheSwitchedOff(t *testing.T) {
	s, k := New(1<<20), key("c")
	now := time.Unix(1_700_000_000, 0)
	s.Apply(k, Policy{Size: 5, TTL: time.Hour, CacheTTL: time.Hour}, entry(1, now), now)
	s.Apply(k, Policy{Size: 5, TTL: time.Hour}, entry(2, now), now)
	if e, _, ok := s.Cached(k, now); ok {
		t.Errorf("position %d is cached after position 2", e.Position)
	}
}

func TestForgottenChannelsRaiseTheFloor(t *testing.T) {
	s := New(2 * (channelOverhead + entryOverhead + 20))
	p := Policy{Size: 10}
	for i, name := range []string{"a", "b", "c", "d"} {
		s.Apply(key(name), p, entry(message.Position(i+1), start), start)
	}
	if s.Channels() != 2 || s.Evicted() != 2 {
		t.Fatalf("%d channels, %d evicted, want 2 and 2", s.Channels(), s.Evicted())
	}
	if f := s.Floor(key("a"), start); f != 2 {
		t.Errorf("floor of a forgotten channel is %d, want 2", f)
	}
	s.Apply(key("a"), p, entry(5, start), start)
	if f := s.Floor(key("a"), start); f < 2 {
		t.Errorf("floor of a channel that came back is %d, want at least 2", f)
	}
}

func TestExpireFreesEverything(t *testing.T) {
	s := New(1 << 20)
	for i := range 100 {
		s.Apply(key(string(rune('a'+i%50))), Policy{Size: 5, TTL: time.Second}, entry(message.Position(i+1), start), start)
	}
	for range 20 {
		s.Expire(start.Add(time.Minute), 7)
	}
	if s.Channels() != 0 || s.Bytes() != 0 {
		t.Fatalf("%d channels and %d bytes are left", s.Channels(), s.Bytes())
	}
	if f := s.Floor(key("a"), start); f != 100 {
		t.Errorf("floor is %d, want 100", f)
	}
}

// TestModel compares the set with one that never forgets: what a read gives
// must be right, and complete whenever the floor says so.
func TestModel(t *testing.T) {
	names := []string{"a", "b", "c", "d", "e"}
	rapid.Check(t, func(t *rapid.T) {
		s := New(rapid.Int64Range(300, 4000).Draw(t, "bytes"))
		all := map[string][]Entry{}
		policies := map[string]Policy{}
		for _, n := range names {
			policies[n] = Policy{
				Size: rapid.IntRange(0, 4).Draw(t, "size"),
				TTL:  time.Duration(rapid.IntRange(0, 20).Draw(t, "ttl")) * time.Second,
				// The value may outlive the history and the other way round.
				CacheTTL: time.Duration(rapid.IntRange(0, 20).Draw(t, "cache")) * time.Second,
			}
		}
		now, pos := start, message.Position(0)
		t.Repeat(map[string]func(*rapid.T){
			"apply": func(t *rapid.T) {
				n := rapid.SampledFrom(names).Draw(t, "channel")
				pos += message.Position(rapid.IntRange(1, 5).Draw(t, "step"))
				e := entry(pos, now)
				all[n] = append(all[n], e)
				s.Apply(key(n), policies[n], e, now)
			},
			"wait":   func(t *rapid.T) { now = now.Add(time.Duration(rapid.IntRange(0, 8).Draw(t, "s")) * time.Second) },
			"expire": func(t *rapid.T) { s.Expire(now, rapid.IntRange(1, 4).Draw(t, "limit")) },
			"read": func(t *rapid.T) {
				n := rapid.SampledFrom(names).Draw(t, "channel")
				since := message.Position(rapid.IntRange(0, int(pos)+1).Draw(t, "since"))
				checkRead(t, s, n, all[n], policies[n], since, now)
			},
			"": func(t *rapid.T) { checkBytes(t, s) },
		})
	})
}

func checkRead(t *rapid.T, s *Set, name string, all []Entry, p Policy, since message.Position, now time.Time) {
	got := s.Since(nil, key(name), since, 100, now)
	for i, e := range got {
		if e.Position <= since || (i > 0 && got[i-1].Position >= e.Position) {
			t.Fatalf("read since %d of %s gives %v", since, name, positions(got))
		}
		if p.TTL > 0 && now.Sub(e.At) > p.TTL {
			t.Fatalf("read of %s gives %d, which is too old", name, e.Position)
		}
	}
	if len(got) > p.Size {
		t.Fatalf("read of %s gives %d entries, policy keeps %d", name, len(got), p.Size)
	}
	if since >= s.Floor(key(name), now) {
		var want []message.Position
		for _, e := range all {
			if e.Position > since {
				want = append(want, e.Position)
			}
		}
		if len(want) != len(got) {
			t.Fatalf("read since %d of %s gives %v and claims to be complete, want %v", since, name, positions(got), want)
		}
	}
	e, left, ok := s.Cached(key(name), now)
	if !ok {
		return
	}
	if last := all[len(all)-1]; e.Position != last.Position || left != last.At.Add(p.CacheTTL).Sub(now) || left <= 0 {
		t.Fatalf("cached value of %s is %d with %v left, last is %d", name, e.Position, left, last.Position)
	}
}

func checkBytes(t *rapid.T, s *Set) {
	var sum int64
	listed := 0
	for r := s.oldest; r != nil; r = r.newer {
		listed++
	}
	for k, r := range s.rings {
		sum += channelOverhead + int64(len(k.App)+len(k.Name))
		for _, e := range r.entries[r.head:] {
			sum += cost(e)
		}
		if r.cached.Data != nil {
			sum += cost(r.cached)
		}
	}
	if sum != s.bytes || listed != len(s.rings) {
		t.Fatalf("accounts %d bytes and lists %d channels, there are %d in %d", s.bytes, listed, sum, len(s.rings))
	}
}

func BenchmarkApply(b *testing.B) {
	s := New(1 << 30)
	p := Policy{Size: 10, TTL: time.Minute, CacheTTL: time.Minute}
	keys := make([]channel.Key, 10_000)
	for i := range keys {
		keys[i] = key(string(rune(i + 1000)))
	}
	data := make([]byte, 128)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s.Apply(keys[i%len(keys)], p, Entry{Position: message.Position(i + 1), At: start, Data: data}, start)
	}
}
