package edge

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// counting encodes a publication as its id, and counts how often.
type counting struct{ times map[string]int }

func (c counting) AppendFrame(dst []byte, _ message.Position, pub *message.Publication) []byte {
	c.times[pub.ID]++
	if strings.HasPrefix(pub.ID, "mute") {
		return dst
	}
	return fmt.Append(dst, pub.ID, ";")
}

// TestReelsGiveWhatEachWants: whoever comes, from wherever, with whatever left
// out, gets its own entries in order, and each is encoded once.
func TestReelsGiveWhatEachWants(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 9))
		enc := counting{map[string]int{}}
		var all []resume.Entry
		for i := range 1 + r.IntN(300) {
			id := fmt.Sprint(i)
			if r.IntN(20) == 0 {
				id = "mute" + id
			}
			all = append(all, resume.Entry{Position: message.At(uint64(i/3+1), i%3), Publication: &message.Publication{ID: id}})
		}
		var reels reels
		key := reelKey{channel.Key{App: "1", Name: "news"}, "e", 0}
		for range 20 {
			want, got := "", ""
			var past []resume.Entry
			for _, e := range all[r.IntN(len(all)):] {
				if r.IntN(50) == 0 {
					continue
				}
				past = append(past, e)
				if !strings.HasPrefix(e.Publication.ID, "mute") {
					want += e.Publication.ID + ";"
				}
			}
			max := 1 + r.IntN(200)
			for len(past) > 0 {
				frame, n := reels.cut(key, enc, past, max, 1)
				if n < 1 || n > 1 && len(frame.Bytes) > max {
					t.Fatalf("seed %d: %d entries and %d bytes of at most %d", seed, n, len(frame.Bytes), max)
				}
				got, past = got+string(frame.Bytes), past[n:]
			}
			if got != want {
				t.Fatalf("seed %d: got %s, want %s", seed, got, want)
			}
		}
		for id, n := range enc.times {
			if n > 1 {
				t.Fatalf("seed %d: %s was encoded %d times", seed, id, n)
			}
		}
	}
}

// TestReelsForget: they keep to their limit of bytes, and nothing when nobody
// comes any more.
func TestReelsForget(t *testing.T) {
	enc := counting{map[string]int{}}
	var reels reels
	big := &message.Publication{ID: strings.Repeat("x", 1<<20)}
	for i := range 20 {
		past := []resume.Entry{{Position: message.At(uint64(i+1), 0), Publication: big}}
		if frame, _ := reels.cut(reelKey{encoding: 1}, enc, past, portionBytes, 1); len(frame.Bytes) != 1<<20+1 {
			t.Fatalf("%d bytes", len(frame.Bytes))
		}
		if reels.bytes > reelsBytesMax+2<<20 {
			t.Fatalf("%d bytes are kept", reels.bytes)
		}
	}
	if reels.sweep(1 + reelAge); reels.by == nil {
		t.Error("forgotten too early")
	}
	if reels.sweep(2 + reelAge); reels.by != nil {
		t.Error("kept for nobody")
	}
}
