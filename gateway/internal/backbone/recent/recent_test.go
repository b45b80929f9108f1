package recent

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// model is all that was published, and which of it was removed later.
type model struct{ all, removed []resume.Entry }

// TestReadsGiveAllAboveLow: whatever is added, read, removed and forgotten, a
// read gives exactly what was published above the place where it begins and is
// not removed, as far as it says that it reaches back.
func TestReadsGiveAllAboveLow(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 3))
		now := time.Unix(1000, 0)
		w := New(1+r.IntN(400<<10), time.Duration(1+r.IntN(20))*time.Second)
		w.Reset(message.AfterBatch(4))
		var m model
		seq := uint64(4)
		for range 200 {
			switch n := r.IntN(10); {
			case n < 6:
				seq += uint64(1 + r.IntN(3))
				m.addBatch(w, r, seq, now)
			case n < 7:
				now = now.Add(time.Duration(r.IntN(4000)) * time.Millisecond)
				w.Expire(now)
			default:
				key := channel.Key{App: "1", Name: fmt.Sprint("c", r.IntN(4))}
				from := message.Position(r.Uint64N(uint64(message.At(seq+2, 0))))
				m.compare(t, seed, seq, w, key, from)
			}
		}
		w.Reset(message.AfterBatch(seq))
		want := Reach{Low: message.AfterBatch(seq), Top: message.AfterBatch(seq)}
		if got, reach := w.Read(nil, channel.Key{App: "1", Name: "c1"}, 0); len(got) > 0 || reach != want || w.Bytes() != 0 {
			t.Fatalf("seed %d: after a reset %d entries in %v, %d bytes", seed, len(got), reach, w.Bytes())
		}
	}
}

func (m *model) addBatch(w *Window, r *rand.Rand, seq uint64, now time.Time) {
	var b message.Batch
	kinds := []message.Kind{message.Event, message.Event, message.Event, message.Event, message.ClientEvent, message.ClientEvent, message.HistoryRemoved}
	size := 1 << r.IntN(16)
	for range 1 + r.IntN(4) {
		pub := &message.Publication{
			Kind: kinds[r.IntN(len(kinds))], App: "1", Channel: fmt.Sprint("c", r.IntN(4)), Data: make([]byte, r.IntN(size)),
			Transient: r.IntN(8) == 0,
		}
		pub.ID = fmt.Sprint(seq, "/", b.Len())
		pos := message.At(seq, b.Add(pub))
		switch {
		case pub.Kind == message.HistoryRemoved:
			m.remove(pub.Channel)
		case pub.Kind == message.Event && !pub.Transient:
			m.all = append(m.all, resume.Entry{Position: pos, Publication: pub})
		}
	}
	w.Add(seq, slices.Clone(b.Bytes()), now)
}

func (m *model) remove(channel string) {
	m.all = slices.DeleteFunc(m.all, func(e resume.Entry) bool {
		of := e.Publication.Channel == channel
		if of {
			m.removed = append(m.removed, e)
		}
		return of
	})
}

func (m *model) compare(t *testing.T, seed, seq uint64, w *Window, key channel.Key, from message.Position) {
	t.Helper()
	got, reach := w.Read(nil, key, from)
	low, gone := reach.Low, reach.Gone
	if top := message.AfterBatch(seq); reach.Top != top {
		t.Fatalf("seed %d: the read covers what is up to %d, want %d", seed, reach.Top, top)
	}
	var want []resume.Entry
	var wantGone message.Position
	for _, e := range m.removed {
		if e.Publication.Channel == key.Name && e.Position > max(from, low) {
			wantGone = e.Position
		}
	}
	if gone != wantGone {
		t.Fatalf("seed %d: %s above %d is gone up to %d, want %d; low is %d", seed, key, from, gone, wantGone, low)
	}
	for _, e := range m.all {
		if e.Publication.Channel == key.Name && e.Position > max(from, low) {
			want = append(want, e)
		}
	}
	if len(got) != len(want) {
		t.Fatalf("seed %d: %d entries of %s above %d, want %d; low is %d", seed, len(got), key, from, len(want), low)
	}
	for i := range got {
		if got[i].Position != want[i].Position || got[i].Publication.ID != want[i].Publication.ID {
			t.Fatalf("seed %d: entry %d is %d %s, want %d %s", seed, i,
				got[i].Position, got[i].Publication.ID, want[i].Position, want[i].Publication.ID)
		}
	}
}

func TestLimitsHold(t *testing.T) {
	now := time.Unix(1000, 0)
	w := New(1<<20, 10*time.Second)
	var b message.Batch
	b.Add(&message.Publication{Kind: message.Event, App: "1", Channel: "c", Data: make([]byte, 1000)})
	for seq := range uint64(5000) {
		w.Add(seq+1, b.Bytes(), now)
		if n := w.Bytes(); n > 1<<20 {
			t.Fatalf("%d bytes after %d batches", n, seq+1)
		}
	}
	if n := w.Bytes(); n < 3<<18 {
		t.Errorf("only %d bytes are kept of 1 MiB", n)
	}
	if _, reach := w.Read(nil, channel.Key{App: "1", Name: "c"}, 0); reach.Low == 0 {
		t.Error("what was forgotten is called complete")
	}
	w.Expire(now.Add(11 * time.Second))
	if n := w.Bytes(); n != 0 {
		t.Errorf("%d bytes after all of it has aged", n)
	}
}

// BenchmarkAdd is what keeping costs while nobody asks.
func BenchmarkAdd(b *testing.B) {
	w := New(16<<20, 30*time.Second)
	data := make([]byte, 1000)
	seq, now := uint64(0), time.Unix(1000, 0)
	b.ReportAllocs()
	for b.Loop() {
		seq++
		w.Add(seq, data, now)
	}
}
