package follow

import (
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
			f := &follower{rings: rings.New(1 << 30), journal: &journal.Journal{}}
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
