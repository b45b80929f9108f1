package follow

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/history"
	"github.com/carillon-rt/carillon/proto/message"

	"github.com/carillon-rt/carillon/router/internal/journal"
	"github.com/carillon-rt/carillon/router/internal/rings"
)

// TestCutReadsAreNotComplete: whoever reads from below what was left out must
// see that by the floor, whatever cut it off.
func TestCutReadsAreNotComplete(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	key := channel.Key{App: "1", Name: "c"}
	for _, tc := range []struct {
		name         string
		sizes        []int // of the entries at positions 1, 2, ...
		since        message.Position
		limit, want  int
		wantComplete bool
	}{
		{"all", []int{10, 10, 10}, 0, 3, 3, true},
		{"newer ones", []int{10, 10, 10}, 1, 2, 2, true},
		{"nothing new", []int{10, 10, 10}, 3, 2, 0, true},
		{"limit", []int{10, 10, 10}, 0, 2, 2, false},
		{"bytes", []int{10, replyMax - 10, 10}, 0, 3, 2, false},
		{"bytes of what is not asked for", []int{replyMax, 10, 10}, 1, 3, 2, true},
		{"one larger than a reply", []int{replyMax + 1}, 0, 3, 0, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			f := &follower{rings: rings.New(1 << 30), journal: &journal.Journal{}, payloadMax: func() int64 { return 1 << 20 }}
			for i, n := range tc.sizes {
				f.rings.Apply(key, rings.Policy{Size: 10, TTL: time.Hour},
					rings.Entry{Position: message.Position(i + 1), At: now, Data: make([]byte, n)}, now)
			}
			out := f.lookUp(key, &history.Request{Since: tc.since, Limit: tc.limit}, now)
			if len(out.Entries) != tc.want || (tc.since >= out.Floor) != tc.wantComplete {
				t.Errorf("%d entries above floor %d, want %d; complete: %v", len(out.Entries), out.Floor, tc.want, tc.wantComplete)
			}
		})
	}
}

// TestRepliesFitIntoMessages: whatever the entries are like, as many are given as
// a message carries, and who misses the others can see it.
func TestRepliesFitIntoMessages(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	key := channel.Key{App: "1", Name: "c"}
	for _, tc := range []struct {
		name              string
		payload, n, bytes int
		cached            time.Duration
	}{
		{"many small ones", 1 << 20, limitMax, 50, 0},
		{"some larger ones", 1 << 20, 1000, 2000, 0},
		{"small messages", 64 << 10, 1000, 200, 0},
		{"and a cached value", 64 << 10, 1000, 10 << 10, time.Hour},
	} {
		for _, oldest := range []bool{false, true} {
			f := &follower{rings: rings.New(1 << 30), journal: &journal.Journal{}, payloadMax: func() int64 { return int64(tc.payload) }}
			for i := range tc.n {
				f.rings.Apply(key, rings.Policy{Size: limitMax, TTL: time.Hour, CacheTTL: tc.cached},
					rings.Entry{Position: message.At(1<<40, i), At: now, Data: make([]byte, tc.bytes)}, now)
			}
			out := f.lookUp(key, &history.Request{Cache: true, Limit: limitMax, Oldest: oldest}, now)
			body, err := json.Marshal(out)
			if err != nil {
				t.Fatal(err)
			}
			cut := len(out.Entries) < tc.n
			if len(body) > tc.payload || len(out.Entries) == 0 || cut != out.More || !oldest && cut != (out.Floor > 0) {
				t.Errorf("%s, oldest %v: %d bytes of %d with %d of %d entries, more %v, floor %d",
					tc.name, oldest, len(body), tc.payload, len(out.Entries), tc.n, out.More, out.Floor)
			}
		}
	}
}
