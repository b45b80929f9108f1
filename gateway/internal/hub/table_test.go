package hub

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

func key(n int) channel.Key { return channel.Key{App: "a", Name: fmt.Sprint("c", n)} }

// model is what a Table has to agree with: plain maps.
type model map[channel.Key]map[int32]subscriber

type subscriber struct {
	enc   Kind
	floor Floor
}

func (m model) check(t *testing.T, table *Table) {
	t.Helper()
	subs := 0
	for k, slots := range m {
		subs += len(slots)
		if len(slots) == 0 {
			continue
		}
		ch := table.Lookup(k)
		if ch == nil {
			t.Fatalf("%v is missing", k)
		}
		have := map[int32]subscriber{}
		for gi, g := range ch.Groups {
			floors := ch.Floors(gi)
			for i, s := range g.Slots {
				if _, twice := have[s]; twice {
					t.Fatalf("%v has slot %d twice", k, s)
				}
				have[s] = subscriber{enc: g.Kind}
				if floors != nil {
					have[s] = subscriber{g.Kind, floors[i]}
				}
			}
		}
		if len(have) != len(slots) {
			t.Fatalf("%v has slots %v, want %v", k, have, slots)
		}
		for s, want := range slots {
			if have[s] != want {
				t.Fatalf("%v slot %d is %v, want %v", k, s, have[s], want)
			}
		}
	}
	if table.Subscriptions() != subs {
		t.Fatalf("%d subscriptions, want %d", table.Subscriptions(), subs)
	}
}

func TestTableAgreesWithMaps(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		table, m := NewTable(), model{}
		for range 400 {
			k, slot, enc := key(r.IntN(6)), int32(r.IntN(12)), KindOf(uint8(r.IntN(2)), uint16(r.IntN(2)))
			_, there := m[k][slot]
			switch r.IntN(6) {
			case 0, 1, 2:
				if there {
					continue
				}
				sub := subscriber{enc, Floor{Version: r.Uint64N(3)}}
				table.Add(k, slot, enc, sub.floor)
				if m[k] == nil {
					m[k] = map[int32]subscriber{}
				}
				m[k][slot] = sub
			case 3:
				was := m[k][slot]
				if e, ok := table.Remove(k, slot); ok != there || e != was.enc {
					t.Fatalf("seed %d: Remove(%v, %d) is %d, %v", seed, k, slot, e, ok)
				}
				delete(m[k], slot)
			case 5:
				if there {
					table.Regroup(table.Lookup(k), slot, enc)
					m[k][slot] = subscriber{enc, m[k][slot].floor}
				}
			case 4:
				var gone []channel.Key
				table.RemoveAll(slot, func(k channel.Key, e Kind) {
					if e != m[k][slot].enc {
						t.Fatalf("seed %d: RemoveAll(%d) gave encoding %d of %v", seed, slot, e, k)
					}
					gone = append(gone, k)
				})
				for k, slots := range m {
					if _, ok := slots[slot]; ok != slices.Contains(gone, k) {
						t.Fatalf("seed %d: RemoveAll(%d) visited %v", seed, slot, gone)
					}
					delete(slots, slot)
				}
			}
			m.check(t, table)
		}
	}
}

func TestEmptyChannelsAreForgotten(t *testing.T) {
	table := NewTable()
	h := &Hold{}
	table.Hold(key(1), h)
	table.Add(key(1), 3, 0, Floor{})
	table.Release(key(1), h)
	if table.Channels() != 1 {
		t.Fatalf("%d channels while one is subscribed", table.Channels())
	}
	table.Remove(key(1), 3)
	if table.Channels() != 0 {
		t.Fatalf("%d channels after the last subscriber", table.Channels())
	}
}

func TestHoldKeepsWhatArrivesUpToItsLimit(t *testing.T) {
	table, h := NewTable(), &Hold{}
	table.Hold(key(1), h)
	for range HeldMax {
		table.Arrive(&Delivery{Key: key(1)})
	}
	if len(h.Held) != HeldMax || h.Over {
		t.Fatalf("held %d, over %v", len(h.Held), h.Over)
	}
	table.Arrive(&Delivery{Key: key(1)})
	if !h.Over || h.Held != nil {
		t.Fatal("a hold with a gap must say so")
	}
}

func TestFloors(t *testing.T) {
	member := func(v uint64) *Delivery { return &Delivery{Kind: message.MemberAdded, Version: v} }
	event := func(p message.Position) *Delivery { return &Delivery{Kind: message.Event, Position: p} }
	for _, c := range []struct {
		name  string
		floor Floor
		d     *Delivery
		skips bool
	}{
		{"member event that the roster has", Floor{Version: 5}, member(5), true},
		{"member event after the roster", Floor{Version: 5}, member(6), false},
		{"event that the cache had", Floor{Position: 9}, event(9), true},
		{"event after the cached one", Floor{Position: 9}, event(10), false},
		{"event that is not stored", Floor{Position: 9}, event(0), false},
		{"member event and a position floor", Floor{Position: 9}, member(1), false},
		{"event and a version floor", Floor{Version: 9}, event(1), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			table := NewTable()
			table.Add(key(1), 4, 0, c.floor)
			table.Add(key(1), 5, 0, Floor{})
			ch := table.Lookup(key(1))
			if got := !ch.Floors(0)[0].Passes(c.d); got != c.skips {
				t.Errorf("skipped: %v", got)
			}
			if !ch.Floors(0)[1].Passes(c.d) {
				t.Error("a subscriber without floor was skipped")
			}
			c.d.Key = key(1)
			if table.Arrive(c.d) != ch {
				t.Fatal("the first delivery of a turn was not announced")
			}
			table.Expanded(ch)
			if kept := len(floored(ch)); kept == 0 && c.d.Position < c.floor.Position {
				t.Error("a floor was forgotten before it was passed")
			}
		})
	}
}

// floored lists the slots that have a floor.
func floored(ch *Channel) (slots []int32) {
	for group := range ch.Groups {
		for i, floor := range ch.Floors(group) {
			if floor != (Floor{}) {
				slots = append(slots, ch.Groups[group].Slots[i])
			}
		}
	}
	return slots
}

func TestFloorsAreForgottenOncePassedOrUnsubscribed(t *testing.T) {
	table := NewTable()
	table.Add(key(1), 1, 0, Floor{Version: 3})
	table.Add(key(1), 2, 0, Floor{Position: 100})
	ch := table.Lookup(key(1))
	table.Arrive(&Delivery{Key: key(1), Kind: message.MemberRemoved, Version: 4})
	table.Expanded(ch)
	if got := floored(ch); !slices.Equal(got, []int32{2}) {
		t.Fatalf("floors of %v are left, want [2]", got)
	}
	table.Remove(key(1), 2)
	if got := floored(ch); len(got) != 0 {
		t.Fatalf("floors of %v are left", got)
	}
}

func TestArriveTellsOfTheFirstOfATurn(t *testing.T) {
	table := NewTable()
	table.Add(key(1), 1, 0, Floor{})
	for turn := range 3 {
		for i := range 3 {
			if first := table.Arrive(&Delivery{Key: key(1)}) != nil; first != (i == 0) {
				t.Fatalf("turn %d, delivery %d: first is %v", turn, i, first)
			}
		}
		ch := table.Lookup(key(1))
		if len(ch.Turn()) != 3 {
			t.Fatalf("turn %d has %d deliveries, want 3", turn, len(ch.Turn()))
		}
		table.Expanded(ch)
		if len(ch.Turn()) != 0 {
			t.Fatalf("turn %d was expanded and has deliveries", turn)
		}
	}
	if table.Arrive(&Delivery{Key: key(2)}) != nil {
		t.Error("a channel that nobody has subscribed to got a delivery")
	}
}

func TestIdleChannelsKeepNothing(t *testing.T) {
	table := NewTable()
	holds := make([]Hold, 2*sparesMax)
	for i := range holds {
		table.Hold(key(i), &holds[i])
		table.Add(key(i), int32(i), 0, Floor{Position: 1})
		table.Release(key(i), &holds[i])
		for range i {
			table.Arrive(&Delivery{Key: key(i), Position: 2})
		}
	}
	for i := range holds {
		ch := table.Lookup(key(i))
		if i == 0 {
			table.Remove(key(i), 0) // its floor goes with it
		}
		table.Expanded(ch)
		if ch.passing != nil {
			t.Fatalf("channel %d is idle and keeps %+v", i, ch.passing)
		}
	}
	if n := len(table.spares); n == 0 || n > sparesMax {
		t.Errorf("%d spares, want 1 to %d", n, sparesMax)
	}
	for _, p := range table.spares {
		for _, d := range p.turn[:cap(p.turn)] {
			if d != nil {
				t.Fatal("a spare holds on to a delivery")
			}
		}
		for _, h := range p.holds[:cap(p.holds)] {
			if h != nil {
				t.Fatal("a spare holds on to a hold")
			}
		}
	}
}

func TestFanOutAllocatesNothingInTheTable(t *testing.T) {
	table := NewTable()
	table.Add(key(1), 1, 0, Floor{})
	d := &Delivery{Key: key(1)}
	if n := testing.AllocsPerRun(100, func() { table.Expanded(table.Arrive(d)) }); n != 0 {
		t.Errorf("%v allocations per delivery", n)
	}
}
