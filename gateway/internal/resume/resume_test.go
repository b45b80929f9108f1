package resume

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/proto/message"
)

const epoch = "e1"

func entry(pos message.Position) Entry {
	return Entry{Position: pos, Publication: &message.Publication{Data: fmt.Append(nil, pos)}}
}

func entries(positions ...message.Position) []Entry {
	out := make([]Entry, len(positions))
	for i, p := range positions {
		out[i] = entry(p)
	}
	return out
}

func positions(es []Entry) []message.Position {
	out := []message.Position{}
	for _, e := range es {
		out = append(out, e.Position)
	}
	return out
}

func TestDecide(t *testing.T) {
	at := func(e string, p message.Position) Place { return Place{Epoch: e, Position: p} }
	seq := func(s uint64) message.Position { return message.At(s, 0) }
	kept := &Past{Epoch: epoch, Floor: seq(10), Newest: 60, Entries: entries(seq(20), seq(30), seq(40), seq(55))}
	mark := at(epoch, seq(50))
	for name, tc := range map[string]struct {
		wish      Wish
		mark      Place
		past      *Past
		recovered bool
		place     Place
		want      []message.Position
		seen      message.Position
	}{
		"first time":                     {Wish{}, mark, nil, false, mark, nil, 0},
		"first time, epoch unknown":      {Wish{}, at("", seq(50)), kept, false, mark, nil, 0},
		"missed two":                     {Wish{Since: at(epoch, seq(25))}, mark, kept, true, mark, []message.Position{seq(30), seq(40)}, 0},
		"missed nothing":                 {Wish{Since: mark}, mark, nil, true, mark, nil, 0},
		"nothing since, elsewhere":       {Wish{Since: at(epoch, seq(45))}, mark, kept, true, mark, nil, 0},
		"at the floor":                   {Wish{Since: at(epoch, seq(10))}, mark, kept, true, mark, []message.Position{seq(20), seq(30), seq(40)}, 0},
		"below the floor":                {Wish{Since: at(epoch, seq(10)-1)}, mark, kept, false, mark, nil, 0},
		"another epoch":                  {Wish{Since: at("e0", seq(25))}, mark, nil, false, mark, nil, 0},
		"another epoch, mark's unknown":  {Wish{Since: at("e0", seq(25))}, at("", seq(50)), kept, false, mark, nil, 0},
		"same epoch, mark's unknown":     {Wish{Since: at(epoch, seq(25))}, at("", seq(50)), kept, true, mark, []message.Position{seq(30), seq(40)}, 0},
		"the routers have moved on":      {Wish{Since: at(epoch, seq(25))}, mark, &Past{Epoch: "e2", Newest: 99}, false, mark, nil, 0},
		"the routers have moved on, all": {Wish{Since: at("e2", seq(25)), Rewind: 9}, mark, &Past{Epoch: "e2", Entries: kept.Entries}, false, mark, nil, 0},
		"ahead of this gateway":          {Wish{Since: at(epoch, seq(55))}, mark, kept, true, at(epoch, seq(55)), nil, seq(55)},
		"from the future":                {Wish{Since: at(epoch, seq(61))}, mark, kept, false, mark, nil, 0},
		"from the far future":            {Wish{Since: at(epoch, 1<<53-1)}, mark, kept, false, mark, nil, 0},
		"missed as many as it may":       {Wish{Since: at(epoch, seq(25)), Most: 2}, mark, kept, true, mark, []message.Position{seq(30), seq(40)}, 0},
		"missed too many":                {Wish{Since: at(epoch, seq(10)), Most: 2}, mark, kept, false, mark, nil, 0},
		"rewind":                         {Wish{Rewind: 2}, mark, kept, false, mark, []message.Position{seq(30), seq(40)}, 0},
		"rewind more than there is":      {Wish{Rewind: 100}, mark, kept, false, mark, []message.Position{seq(20), seq(30), seq(40)}, 0},
		"rewind, not needed":             {Wish{Since: at(epoch, seq(30)), Rewind: 3}, mark, kept, true, mark, []message.Position{seq(40)}, 0},
		"rewind, lost":                   {Wish{Since: at(epoch, 1), Rewind: 1}, mark, kept, false, mark, []message.Position{seq(40)}, 0},
		"rewind, another epoch":          {Wish{Since: at("e0", seq(30)), Rewind: 1}, mark, kept, false, mark, []message.Position{seq(40)}, 0},
		"no stored entry is below 0":     {Wish{Since: at(epoch, 0)}, mark, &Past{Epoch: epoch, Entries: entries(seq(20))}, true, mark, []message.Position{seq(20)}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.wish.NeedsPast(tc.mark) && tc.past == nil {
				t.Fatal("the past is needed")
			}
			a := tc.wish.Decide(tc.mark, tc.past)
			if !a.Kept || a.Recovered != tc.recovered || a.Place != tc.place || a.Seen != tc.seen || !slices.Equal(positions(a.Entries), tc.want) {
				t.Errorf("got %+v, want recovered %v at %v with %v, seen %d", a, tc.recovered, tc.place, tc.want, tc.seen)
			}
		})
	}
}

func TestWhatExcludedTheClientIsNotForItLater(t *testing.T) {
	past := &Past{Epoch: epoch, Entries: entries(1, 2, 3)}
	past.Entries[1].Publication.Exclude = "1.7"
	for socket, want := range map[string][]message.Position{"1.7": {1, 3}, "1.8": {1, 2, 3}, "": {1, 2, 3}} {
		w := Wish{Since: Place{epoch, 0}, Socket: socket}
		if a := w.Decide(Place{epoch, 3}, past); !a.Recovered || !slices.Equal(positions(a.Entries), want) {
			t.Errorf("as %q got %v, want %v", socket, positions(a.Entries), want)
		}
	}
	if len(past.Entries) != 3 {
		t.Error("the past is shared and was changed")
	}
}

func TestTrimRaisesTheFloor(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_000)
	for name, tc := range map[string]struct {
		keep  Keep
		ages  []time.Duration
		left  int
		floor message.Position
	}{
		"nothing to cut": {Keep{3, time.Minute}, []time.Duration{50 * time.Second, 0}, 2, 0},
		"size":           {Keep{2, time.Minute}, []time.Duration{9, 8, 7}, 2, 1},
		"age":            {Keep{5, time.Minute}, []time.Duration{62 * time.Second, 61 * time.Second, 59 * time.Second}, 1, 2},
		"all too old":    {Keep{5, time.Second}, []time.Duration{5 * time.Second, 4 * time.Second}, 0, 2},
		"no age limit":   {Keep{5, 0}, []time.Duration{time.Hour}, 1, 0},
	} {
		t.Run(name, func(t *testing.T) {
			p := Past{}
			for i, age := range tc.ages {
				e := entry(message.Position(i + 1))
				e.Publication.TimeMs = uint64(now.Add(-age).UnixMilli())
				p.Entries = append(p.Entries, e)
			}
			tc.keep.Trim(&p, now)
			if len(p.Entries) != tc.left || p.Floor != tc.floor {
				t.Errorf("%d entries above %d, want %d above %d", len(p.Entries), p.Floor, tc.left, tc.floor)
			}
		})
	}
}

// TestRecoveredIsNeverALie: with whatever part of a channel's history is
// known, a client that is told that it recovered has got everything between
// its place and the mark; and it is told so whenever that can be known.
func TestRecoveredIsNeverALie(t *testing.T) {
	for seed := range uint64(20_000) {
		r := rand.New(rand.NewPCG(seed, 1))
		var all []Entry
		pos := message.Position(0)
		for range r.IntN(12) {
			pos += message.Position(1 + r.IntN(3)*700)
			all = append(all, entry(pos))
		}
		end := pos + message.Position(r.IntN(3)*600)
		somewhere := func() message.Position { return message.Position(r.Uint64N(uint64(end) + 2)) }
		mark := Place{epoch, min(somewhere(), end)}
		// What the routers have: the newest of what was there when they were
		// asked, which was not before the mark.
		known := all[:countUpTo(all, mark.Position+message.Position(r.IntN(2000)))]
		cut := r.IntN(len(known) + 1)
		past := &Past{Epoch: epoch, Newest: end.Seq(), Entries: known[cut:]}
		if cut > 0 {
			past.Floor = known[cut-1].Position
		}
		wish := Wish{Since: Place{epoch, somewhere()}, Rewind: r.IntN(4)}
		since := wish.Since.Position
		if !wish.NeedsPast(mark) {
			past = nil
		}
		a := wish.Decide(mark, past)
		want := since >= mark.Position && since.Seq() <= end.Seq() || past != nil && since >= past.Floor && since <= mark.Position
		if a.Recovered != want {
			t.Fatalf("seed %d: recovered is %v: since %d, mark %d, past %+v", seed, a.Recovered, since, mark.Position, past)
		}
		missed := all[countUpTo(all, since):max(countUpTo(all, since), countUpTo(all, mark.Position))]
		if a.Recovered && (!slices.Equal(positions(a.Entries), positions(missed)) || a.Place.Position != max(since, mark.Position)) {
			t.Fatalf("seed %d: got %v at %d, missed %v", seed, positions(a.Entries), a.Place.Position, positions(missed))
		}
		before := all[:countUpTo(all, mark.Position)]
		if !a.Recovered && !slices.Equal(positions(a.Entries), positions(before[len(before)-len(a.Entries):])) {
			t.Fatalf("seed %d: rewound to %v, the newest are %v", seed, positions(a.Entries), positions(before))
		}
	}
}

func countUpTo(es []Entry, pos message.Position) int {
	n := 0
	for n < len(es) && es[n].Position <= pos {
		n++
	}
	return n
}
