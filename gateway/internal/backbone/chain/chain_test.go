package chain

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func seqs(bs []Batch) []uint64 {
	out := make([]uint64, len(bs))
	for i := range bs {
		out[i] = bs[i].Seq
	}
	return out
}

func TestLive(t *testing.T) {
	type in struct{ seq, prev uint64 }
	for name, tc := range map[string]struct {
		doubt bool
		live  []in
		want  []uint64
		held  int
	}{
		"in order":                           {false, []in{{11, 10}, {14, 11}}, []uint64{11, 14}, 0},
		"repeat":                             {false, []in{{11, 10}, {11, 10}, {10, 9}}, []uint64{11}, 0},
		"gap":                                {false, []in{{14, 11}}, nil, 1},
		"gap filled late":                    {false, []in{{14, 11}, {11, 10}}, []uint64{11, 14}, 0},
		"two gaps filled backwards":          {false, []in{{18, 14}, {14, 11}, {11, 10}}, []uint64{11, 14, 18}, 0},
		"held twice":                         {false, []in{{14, 11}, {14, 11}}, nil, 1},
		"everything before it has expired":   {false, []in{{14, 0}}, nil, 1},
		"expired, and in doubt":              {true, []in{{14, 0}}, nil, 1},
		"in doubt, yet it names the last":    {true, []in{{11, 10}, {14, 11}}, []uint64{11, 14}, 0},
		"in doubt, the last one comes again": {true, []in{{10, 9}, {14, 0}}, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var c Chain
			c.Start(10, nil)
			if tc.doubt {
				c.Doubt()
			}
			var got []Batch
			for _, b := range tc.live {
				got = c.Live(Batch{Seq: b.seq, Prev: b.prev}, got)
			}
			if !slices.Equal(seqs(got), tc.want) || c.Held() != tc.held {
				t.Fatalf("delivered %v, held %d; want %v, %d", seqs(got), c.Held(), tc.want, tc.held)
			}
		})
	}
}

func TestStartReleasesWhatFollows(t *testing.T) {
	var c Chain
	for _, b := range []Batch{{Seq: 9, Prev: 8}, {Seq: 11, Prev: 10}, {Seq: 10, Prev: 9}, {Seq: 20, Prev: 15}} {
		if out := c.Live(b, nil); len(out) != 0 {
			t.Fatalf("delivered %v before the start", seqs(out))
		}
	}
	if got := seqs(c.Start(9, nil)); !slices.Equal(got, []uint64{10, 11}) {
		t.Fatalf("start releases %v, want 10 and 11", got)
	}
	if certain, _ := c.Gap(); !certain || c.Held() != 1 {
		t.Fatal("20 must be held until the gap before it is filled")
	}
}

func TestHeldIsBounded(t *testing.T) {
	var c Chain
	c.Start(1, nil)
	for i := range uint64(3 * HeldBatchesMax) {
		c.Live(Batch{Seq: 10 + i, Prev: 9 + i, Data: make([]byte, 100)}, nil)
	}
	if c.Held() != HeldBatchesMax {
		t.Fatalf("holds %d batches, limit is %d", c.Held(), HeldBatchesMax)
	}
	c.Reset()
	c.Start(1, nil)
	for i := range uint64(20) {
		c.Live(Batch{Seq: 10 + i, Prev: 9 + i, Data: make([]byte, HeldBytesMax/10)}, nil)
	}
	if c.Held() > 10 {
		t.Fatalf("holds %d batches of a tenth of the limit", c.Held())
	}
	for i := range uint64(20) {
		c.Stored(Batch{Seq: 9 + i}, nil)
	}
	if _, possible := c.Gap(); !possible {
		t.Fatal("what was not held must be known to be missing")
	}
}

func TestIntact(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	for name, tc := range map[string]struct {
		last, first uint64
		ev          Evidence
		complete    time.Time
		delivered   time.Time
		want        bool
	}{
		"last is still there":                   {10, 10, Evidence{FirstSeq: 10, LastSeq: 30, Messages: 5, BytesMax: 1, Bytes: 1}, ago(time.Hour), time.Time{}, true},
		"nothing was ever trimmed":              {0, 5, Evidence{FirstSeq: 1, LastSeq: 30, Messages: 5, BytesMax: 1, Bytes: 1}, ago(time.Hour), time.Time{}, true},
		"trimmed up to last":                    {10, 15, Evidence{FirstSeq: 11, LastSeq: 30, Messages: 5, BytesMax: 1, Bytes: 1}, ago(time.Hour), time.Time{}, true},
		"oldest is older than the gap":          {10, 25, Evidence{FirstSeq: 20, LastSeq: 30, Messages: 5, FirstAt: ago(time.Minute), BytesMax: 1, Bytes: 1}, ago(10 * time.Second), time.Time{}, true},
		"oldest is younger than the gap":        {10, 25, Evidence{FirstSeq: 20, LastSeq: 30, Messages: 5, FirstAt: ago(5 * time.Second), BytesMax: 1, Bytes: 1}, ago(10 * time.Second), time.Time{}, false},
		"clocks may differ":                     {10, 25, Evidence{FirstSeq: 20, LastSeq: 30, Messages: 5, FirstAt: ago(11 * time.Second), BytesMax: 1, Bytes: 1}, ago(10 * time.Second), time.Time{}, false},
		"too young to have expired":             {10, 25, Evidence{FirstSeq: 20, LastSeq: 30, Messages: 5, FirstAt: ago(5 * time.Second), MaxAge: time.Hour, BytesMax: 100, Bytes: 10}, ago(time.Minute), time.Time{}, true},
		"the last is too young as well: purged": {10, 25, Evidence{FirstSeq: 20, LastSeq: 30, Messages: 5, FirstAt: ago(5 * time.Second), MaxAge: time.Hour}, ago(time.Minute), ago(time.Minute), false},
		"old enough to have expired":            {10, 25, Evidence{FirstSeq: 20, LastSeq: 30, Messages: 5, FirstAt: ago(5 * time.Second), MaxAge: time.Minute, BytesMax: 100, Bytes: 10}, ago(time.Hour), time.Time{}, false},
		"young, but the stream is nearly full":  {10, 25, Evidence{FirstSeq: 20, LastSeq: 30, Messages: 5, FirstAt: ago(5 * time.Second), MaxAge: time.Hour, BytesMax: 100, Bytes: 80}, ago(time.Minute), time.Time{}, false},
		"empty, everything has expired":         {10, 0, Evidence{FirstSeq: 31, LastSeq: 30, MaxAge: time.Minute}, ago(time.Hour), time.Time{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			r := Reading{Last: tc.last, First: tc.first, Delivered: tc.delivered, Complete: tc.complete, Now: now}
			if got := r.Intact(tc.ev); got != tc.want {
				t.Fatalf("intact is %v, want %v", got, tc.want)
			}
		})
	}
}

// stream is the model of a journal: messages of several partitions, trimmed
// from the front.
type stream struct {
	msgs []Batch // of our partition
	seq  uint64  // last of the stream
	from uint64  // first that is still stored
	now  time.Time
	at   map[uint64]time.Time
}

func (s *stream) append() Batch {
	b := Batch{Seq: s.seq + 1, Prev: s.tail()}
	s.seq++
	s.msgs = append(s.msgs, b)
	s.at[b.Seq] = s.now
	return b
}

// tail is the newest stored batch, 0 if none.
func (s *stream) tail() uint64 {
	if n := len(s.msgs); n > 0 && s.msgs[n-1].Seq >= s.from {
		return s.msgs[n-1].Seq
	}
	return 0
}

// read returns stored batches from seq on, as a replica that lags by some.
func (s *stream) read(seq uint64, lag, limit int) []Batch {
	var out []Batch
	for _, b := range s.msgs[:max(len(s.msgs)-lag, 0)] {
		if b.Seq >= seq && b.Seq >= s.from && len(out) < limit {
			out = append(out, b)
		}
	}
	return out
}

func (s *stream) evidence() Evidence {
	ev := Evidence{FirstSeq: s.from, LastSeq: s.seq, Bytes: 9, BytesMax: 10}
	for seq := s.from; seq <= s.seq; seq++ {
		if at, ok := s.at[seq]; ok {
			if ev.Messages == 0 {
				ev.FirstAt = at
			}
			ev.Messages++
		}
	}
	return ev
}

// follower drives a Chain over the model as the partition's goroutine does.
type follower struct {
	c         Chain
	delivered []uint64 // since the last start
	from      uint64   // where it started
	complete  time.Time
	broken    int
}

func (f *follower) took(bs []Batch) { f.delivered = append(f.delivered, seqs(bs)...) }

func (f *follower) repair(s *stream, lag int) {
	got := s.read(max(f.c.Last(), 1), lag, 4)
	var first uint64
	if len(got) > 0 {
		first = got[0].Seq
	}
	r := Reading{Last: f.c.Last(), First: first, Complete: f.complete, Now: s.now}
	if !r.Intact(s.evidence()) {
		f.broken++
		f.c.Reset()
		f.start(s)
		return
	}
	for _, b := range got {
		f.took(f.c.Stored(b, nil))
	}
}

func (f *follower) start(s *stream) {
	last := s.tail()
	if last == 0 {
		last = s.seq
	}
	f.from, f.delivered, f.complete = last, nil, s.now
	f.took(f.c.Start(last, nil))
}

func simulate(t *testing.T, seed uint64, steps int) (broken int) {
	rng := rand.New(rand.NewPCG(seed, 2))
	s := &stream{from: 1, now: time.Unix(1_700_000_000, 0), at: map[uint64]time.Time{}}
	f := &follower{}
	var wire []Batch // on its way, in any order near a leader change
	for range rng.IntN(5) {
		s.append()
	}
	f.start(s)
	for range steps {
		switch rng.IntN(10) {
		case 0, 1, 2:
			wire = append(wire, s.append())
		case 3: // another partition's message
			s.seq++
			s.at[s.seq] = s.now
		case 4: // leader change: lost, repeated, overtaken
			rng.Shuffle(len(wire), func(i, j int) { wire[i], wire[j] = wire[j], wire[i] })
			if len(wire) > 0 && rng.IntN(2) == 0 {
				wire = wire[1:]
			} else if len(wire) > 0 {
				wire = append(wire, wire[0])
			}
		case 5:
			s.now = s.now.Add(time.Duration(rng.IntN(3000)) * time.Millisecond)
		case 6:
			if rng.IntN(4) == 0 && s.seq > 3 { // the front is trimmed, sometimes all of it
				s.from = max(s.from, s.seq+1-uint64(rng.IntN(4)))
			}
			if rng.IntN(6) == 0 { // connection lost: nothing that was on its way arrives
				wire = nil
				f.c.Doubt()
			}
		case 7: // heartbeat of a router, which remembers what has expired
			if n := len(s.msgs); n > 0 {
				f.c.Tail(s.msgs[n-1].Seq)
				if s.msgs[n-1].Seq <= f.c.Last() && f.c.Held() == 0 {
					f.complete = s.now
				}
			}
			if certain, possible := f.c.Gap(); certain || possible {
				f.repair(s, rng.IntN(3))
			}
		default:
			if len(wire) > 0 {
				f.took(f.c.Live(wire[0], nil))
				wire = wire[1:]
			}
		}
		f.check(t, s)
	}
	for _, b := range wire {
		f.took(f.c.Live(b, nil))
	}
	if n := len(s.msgs); n > 0 {
		f.c.Tail(s.msgs[n-1].Seq)
	}
	for i := 0; ; i++ {
		certain, possible := f.c.Gap()
		if !certain && !possible {
			break
		}
		if i > len(s.msgs)+5 {
			t.Fatalf("the gap after %d is never filled", f.c.Last())
		}
		f.repair(s, 0)
	}
	f.check(t, s)
	if n := len(s.msgs); n > 0 && f.c.Last() < s.msgs[n-1].Seq {
		t.Fatalf("ends at %d, the log at %d", f.c.Last(), s.msgs[n-1].Seq)
	}
	return f.broken
}

// check: what was delivered since the start is the log since the start.
func (f *follower) check(t *testing.T, s *stream) {
	t.Helper()
	var want []uint64
	for _, b := range s.msgs {
		if b.Seq > f.from && b.Seq <= f.c.Last() {
			want = append(want, b.Seq)
		}
	}
	if !slices.Equal(f.delivered, want) {
		t.Fatalf("delivered %v, the log has %v", f.delivered, want)
	}
}

func TestSimulation(t *testing.T) {
	broken := 0
	seeds := uint64(600)
	if testing.Short() {
		seeds = 150
	}
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { broken += simulate(t, seed, 300) })
		if t.Failed() {
			return
		}
	}
	if broken == 0 {
		t.Error("no simulation trimmed a gap away: the breaking is not tested")
	}
	t.Logf("broken %d times", broken)
}
