package hub

import (
	"testing"

	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
)

// counting is an encoding that counts how often it is asked.
type counting struct {
	mark  byte
	calls int
	mute  bool
}

func (c *counting) AppendFrame(dst []byte, _ message.Position, pub *message.Publication) []byte {
	c.calls++
	if c.mute {
		return dst
	}
	return append(append(dst, c.mark), pub.Data...)
}

type posted struct {
	loop int
	d    *Delivery
}

func interest(encodings ...*counting) (*Interest, *[]posted) {
	var got []posted
	cfg := Config{
		Loops: 3, Partitions: 4, Room: func() {},
		Post:    func(l int, d *Delivery) { got = append(got, posted{l, d}) },
		Exclude: func(id string) (loop.Handle, bool) { return loop.Handle{Slot: 7}, id == "1.7" },
	}
	for _, e := range encodings {
		cfg.Encodings = append(cfg.Encodings, e)
	}
	return NewInterest(cfg), &got
}

func none(resume.Place) {}

func TestEncodesOncePerEncodingPresent(t *testing.T) {
	a, b, absent := &counting{mark: 'a'}, &counting{mark: 'b'}, &counting{mark: 'c'}
	in, got := interest(a, b, absent)
	k := key(1)
	in.Register(k, 0, 0, none)
	in.Register(k, 0, 0, none)
	in.Register(k, 2, 0, none)
	in.Register(k, 2, 1, none)
	in.Deliver(k.Partition(4), 0, &message.Publication{App: k.App, Channel: k.Name, Data: []byte("x")})
	if a.calls != 1 || b.calls != 1 || absent.calls != 0 {
		t.Fatalf("encoded %d, %d and %d times", a.calls, b.calls, absent.calls)
	}
	if len(*got) != 2 || (*got)[0].loop != 0 || (*got)[1].loop != 2 || (*got)[0].d != (*got)[1].d {
		t.Fatalf("posted %v", *got)
	}
	d := (*got)[0].d
	if string(d.Frames[0].Bytes) != "ax" || string(d.Frames[1].Bytes) != "bx" || d.Frame(2) != nil {
		t.Fatalf("frames %v", d.Frames)
	}
}

func TestNobodyIsToldOfWhatNobodyWants(t *testing.T) {
	e := &counting{}
	in, got := interest(e)
	k := key(1)
	in.Register(k, 1, 0, none)
	in.Unregister(k, 1, 0)
	in.Deliver(k.Partition(4), 0, &message.Publication{App: k.App, Channel: k.Name})
	in.Deliver(key(2).Partition(4), 0, &message.Publication{App: "other", Channel: key(2).Name})
	if len(*got) != 0 || e.calls != 0 || in.Channels() != 0 {
		t.Fatalf("posted %v, encoded %d times, %d channels", *got, e.calls, in.Channels())
	}
}

func TestAnEncodingMayHaveNoWords(t *testing.T) {
	in, got := interest(&counting{mute: true})
	k := key(1)
	in.Register(k, 1, 0, none)
	in.Deliver(k.Partition(4), 0, &message.Publication{App: k.App, Channel: k.Name})
	if len(*got) != 0 {
		t.Fatalf("posted %v", *got)
	}
}

func TestRegisterMarksThePositionDeliveredLast(t *testing.T) {
	in, _ := interest(&counting{})
	k := key(1)
	p := k.Partition(4)
	in.Deliver(p, message.At(5, 1), &message.Publication{App: "x", Channel: "unwanted"})
	in.Epoch(p, "e1")
	var at resume.Place
	in.Register(k, 0, 0, func(place resume.Place) { at = place })
	if want := (resume.Place{Epoch: "e1", Position: message.At(5, 1)}); at != want {
		t.Fatalf("marked %v, want %v", at, want)
	}
	in.Deliver(p, 0, &message.Publication{App: "x", Channel: "not stored"})
	if in.Position(p) != message.At(5, 1) {
		t.Fatalf("position went to %d by a publication that is not stored", in.Position(p))
	}
}

func TestExcludeIsResolvedOnce(t *testing.T) {
	in, got := interest(&counting{})
	k := key(1)
	in.Register(k, 1, 0, none)
	for _, id := range []string{"1.7", "99.7", ""} {
		in.Deliver(k.Partition(4), 0, &message.Publication{App: k.App, Channel: k.Name, Exclude: id})
	}
	if d := (*got)[0].d; !d.Excludes || d.Exclude.Slot != 7 {
		t.Fatalf("own socket id gave %+v", d)
	}
	if (*got)[1].d.Excludes || (*got)[2].d.Excludes {
		t.Fatal("foreign and empty socket ids exclude nobody here")
	}
}

// A journal that was made anew begins at lower positions: marks must not wait
// for ones that never come.
// What was kept back somewhere, while its channel went on, is not told.
func TestOvertaken(t *testing.T) {
	in, got := interest(&counting{})
	k, other := key(1), key(2)
	in.Register(k, 1, 0, none)
	in.Register(other, 1, 0, none)
	say := func(k channel.Key, left uint64, pos message.Position, data string) {
		in.Deliver(k.Partition(4), pos, &message.Publication{Kind: message.Event, App: k.App, Channel: k.Name, Data: []byte(data), Left: left})
	}
	const ms = 1000
	say(k, 1000*ms, 0, "a")
	say(k, 5000*ms, 0, "b")
	say(k, 4990*ms, 0, "c") // another router, whose clock or way is not quite the same
	say(k, 4970*ms, 0, "late")
	say(other, 1010*ms, 0, "d")
	say(k, 0, message.At(1, 0), "stored")
	say(k, 0, 0, "of a presence node, or a router that does not stamp")
	say(k, 5001*ms, 0, "e")
	say(k, 1000*ms, 0, "late")
	told := ""
	for _, p := range *got {
		told += " " + string(p.d.Frames[0].Bytes[1:])
	}
	if want := " a b c d stored of a presence node, or a router that does not stamp e"; told != want || in.Overtaken() != 2 {
		t.Errorf("told%s, want%s; %d overtaken", told, want, in.Overtaken())
	}
	if got := in.Newest(); got != 5001*ms {
		t.Errorf("the newest is of %d, want %d", got, 5001*ms)
	}
}

func TestStartSetsThePositionBack(t *testing.T) {
	in, _ := interest(&counting{})
	k := key(1)
	p := k.Partition(4)
	in.Start(p, message.At(70, 3))
	in.Deliver(p, message.At(71, 0), &message.Publication{App: "x", Channel: "unwanted"})
	in.Start(p, message.At(2, 0))
	in.Register(k, 0, 0, func(place resume.Place) {
		if place.Position != message.At(2, 0) {
			t.Errorf("marked %v, want %d", place, message.At(2, 0))
		}
	})
	in.Epoch(p, "e1")
	in.Lost(p)
	in.Register(k, 0, 0, func(place resume.Place) {
		if place != (resume.Place{}) {
			t.Errorf("marked %v while positions mean nothing", place)
		}
	})
}

// Who waits for a position while the partition is being followed anew has
// waited long enough when it begins behind that.
func TestAfterAPartitionBeganAnew(t *testing.T) {
	in, _ := interest()
	in.Lost(0)
	in.Epoch(0, "e2")
	done := 0
	in.After(0, 5, func() { done++ })
	in.After(0, 9, func() { done += 10 })
	in.Start(0, 7)
	if done != 1 {
		t.Errorf("done %d, want that up to 5 alone", done)
	}
}
