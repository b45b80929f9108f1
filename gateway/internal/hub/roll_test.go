package hub

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/presence"
)

var room = channel.Key{App: "1", Name: "presence-room"}

// plain is an encoding that says what a publication is about.
type plain struct{}

func (plain) AppendFrame(dst []byte, _ message.Position, pub *message.Publication) []byte {
	switch pub.Kind {
	case message.MemberAdded:
		return append(dst, "+"+pub.UserID+"="+string(pub.Data)...)
	case message.MemberRemoved:
		return append(dst, "-"+pub.UserID...)
	}
	return append(dst, pub.Event...)
}

// told is one subscriber: what it knows of the members, from its roster on.
type told struct {
	floor    Floor
	members  map[string]string // info by id
	complete bool
	held     []*Delivery
	faults   []string
}

func (s *told) take(d *Delivery) {
	if !s.complete {
		s.held = append(s.held, d)
		return
	}
	if !s.floor.Passes(d) {
		return
	}
	text := string(d.Frames[0].Bytes)
	id, info, _ := strings.Cut(text[1:], "=")
	_, there := s.members[id]
	if there == (text[0] == '+') {
		s.faults = append(s.faults, fmt.Sprintf("%s, but knows %v", text, s.members))
	}
	if text[0] == '+' {
		s.members[id] = info
	} else {
		delete(s.members, id)
	}
}

func (s *told) tell(members []presence.Member, floor uint64) {
	s.members, s.complete, s.floor = map[string]string{}, true, Floor{Version: floor}
	for _, m := range members {
		s.members[m.RawID] = m.Info
	}
	if len(s.members) != len(members) {
		s.faults = append(s.faults, fmt.Sprintf("roster lists somebody twice: %v", members))
	}
	for _, d := range s.held {
		s.take(d)
	}
	s.held = nil
}

// asked is a roster that was made and is under way.
type asked struct {
	by     *told // nil: to correct
	roster Roster
}

// owner is the truth about a channel, and a node that hears of it.
type owner struct {
	t       *testing.T
	r       *rand.Rand
	in      *Interest
	version uint64
	members []presence.Member
	stream  []message.Publication // under way
	sent    []message.Publication // arrived once
	asked   []asked
	subs    []*told
	lossy   bool
}

func newOwner(t *testing.T, seed uint64, lossy bool) *owner {
	o := &owner{t: t, r: rand.New(rand.NewPCG(seed, 1)), version: 100, lossy: lossy}
	o.in = NewInterest(Config{
		Loops: 1, Partitions: 1, Encodings: []Encoding{plain{}}, Room: func() {},
		Exclude: func(string) (loop.Handle, bool) { return loop.Handle{}, false },
		Post: func(_ int, d *Delivery) {
			for _, s := range o.subs {
				s.take(d)
			}
		},
	})
	return o
}

func (o *owner) publish(kind message.Kind, m presence.Member) {
	o.version++
	pub := message.Publication{Kind: kind, App: room.App, Channel: room.Name, UserID: m.RawID, Version: o.version}
	if kind == message.MemberAdded {
		pub.Data = []byte(m.Info)
	}
	o.stream = append(o.stream, pub)
}

// change lets a member come or go.
func (o *owner) change() {
	id := fmt.Sprintf(`"u%d"`, o.r.IntN(8))
	at := slices.IndexFunc(o.members, func(m presence.Member) bool { return m.RawID == id })
	if at < 0 {
		m := presence.Member{ID: plainID(id), RawID: id, Info: fmt.Sprint(o.r.IntN(3))}
		o.members = append(o.members, m)
		o.publish(message.MemberAdded, m)
		return
	}
	o.publish(message.MemberRemoved, o.members[at])
	o.members = slices.Delete(o.members, at, at+1)
}

func (o *owner) arrive() {
	if len(o.stream) == 0 {
		return
	}
	pub := o.stream[0]
	o.stream = o.stream[1:]
	if o.lossy && o.r.IntN(4) == 0 {
		return
	}
	o.in.Deliver(0, 0, &pub)
	o.sent = append(o.sent, pub)
}

// again: another owner announces what was announced before, with a version of
// its own.
func (o *owner) again() {
	for _, m := range o.members {
		if o.r.IntN(2) == 0 {
			o.publish(message.MemberAdded, m)
		}
	}
	if len(o.sent) > 0 {
		o.in.Deliver(0, 0, &o.sent[o.r.IntN(len(o.sent))])
	}
}

func (o *owner) ask(by *told) {
	o.asked = append(o.asked, asked{by, Roster{Version: o.version, Members: slices.Clone(o.members)}})
}

func (o *owner) subscribe() {
	s := &told{}
	o.in.Register(room, 0, 0, func(resume.Place) {})
	o.subs = append(o.subs, s)
	o.ask(s)
}

// answer brings one of the rosters under way, in any order.
func (o *owner) answer() {
	if len(o.asked) == 0 {
		return
	}
	i := o.r.IntN(len(o.asked))
	a := o.asked[i]
	o.asked = slices.Delete(o.asked, i, i+1)
	if a.by == nil {
		o.in.Correct(room, &State{Roster: a.roster})
		return
	}
	members, floor, _ := o.in.Roster(room, &a.roster)
	a.by.tell(members, floor)
}

func (o *owner) leave() {
	var done []int
	for i, s := range o.subs {
		if s.complete {
			done = append(done, i)
		}
	}
	if len(done) == 0 {
		return
	}
	i := done[o.r.IntN(len(done))]
	o.check(o.subs[i])
	o.subs = slices.Delete(o.subs, i, i+1)
	o.in.Unregister(room, 0, 0)
}

func (o *owner) check(s *told) {
	for _, fault := range s.faults {
		o.t.Error(fault)
	}
}

func (o *owner) settle() {
	for len(o.stream)+len(o.asked) > 0 {
		o.arrive()
		o.answer()
	}
	if o.lossy {
		o.ask(nil)
		o.answer()
	}
	truth := map[string]string{}
	for _, m := range o.members {
		truth[m.RawID] = m.Info
	}
	for _, s := range o.subs {
		o.check(s)
		if !maps.Equal(s.members, truth) {
			o.t.Errorf("a subscriber knows %v, there are %v", s.members, truth)
		}
	}
}

// TestSubscribersAgreeWithTheOwner: rosters come late and in any order, events
// are lost, late and repeated; a subscriber is told of nothing that it knows.
// When nothing is lost it needs no correction, else one.
func TestSubscribersAgreeWithTheOwner(t *testing.T) {
	for seed := range uint64(2000) {
		o := newOwner(t, seed, seed%2 == 0)
		for range 120 {
			switch n := o.r.IntN(100); {
			case n < 35:
				o.change()
			case n < 65:
				o.arrive()
			case n < 75:
				o.subscribe()
			case n < 88:
				o.answer()
			case n < 92:
				o.leave()
			case n < 94:
				o.ask(nil)
			case n < 97:
				o.again()
			default:
				o.settle()
			}
		}
		o.settle()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func event(kind message.Kind, id, info string, version uint64) *message.Publication {
	return &message.Publication{Kind: kind, App: room.App, Channel: room.Name, UserID: id, Data: []byte(info), Version: version}
}

// calling collects what a call tells.
func calling(r *roll, roster Roster) (told []string, sure bool) {
	sure = r.call(&roster, func(kind message.Kind, id, info string) {
		told = append(told, string(plain{}.AppendFrame(nil, 0, event(kind, id, info, 0))))
	})
	return told, sure
}

func one(id, info string) []presence.Member {
	return []presence.Member{{ID: plainID(id), RawID: id, Info: info}}
}

func TestRoll(t *testing.T) {
	r := newRoll()
	if told, sure := calling(r, Roster{Version: 10, Members: one("1", "a")}); len(told) != 0 || !sure {
		t.Errorf("the first roster tells %v, sure %v", told, sure)
	}
	for _, step := range []struct {
		name string
		pub  *message.Publication
		want news
	}{
		{"what the roster has", event(message.MemberAdded, "1", "a", 9), nothing},
		{"somebody who is there, announced again", event(message.MemberAdded, "1", "a", 11), nothing},
		{"the same with another info", event(message.MemberAdded, "1", "b", 12), renewed},
		{"somebody unknown goes", event(message.MemberRemoved, "2", "", 13), nothing},
		{"somebody comes", event(message.MemberAdded, "2", "", 14), added},
		{"an old removal", event(message.MemberRemoved, "2", "", 12), nothing},
		{"a removal", event(message.MemberRemoved, "1", "", 15), removed},
		{"and once more", event(message.MemberRemoved, "1", "", 16), nothing},
		{"an old arrival", event(message.MemberAdded, "1", "", 12), nothing},
	} {
		if got := r.event(step.pub); got != step.want {
			t.Errorf("%s: %d, want %d", step.name, got, step.want)
		}
	}
	if told, sure := calling(r, Roster{Version: 13, Members: one("1", "b")}); len(told) != 0 || !sure {
		t.Errorf("an older roster undoes %v, sure %v", told, sure)
	}
	if told, sure := calling(r, Roster{Version: 20, Incomplete: true, Members: one("3", "")}); fmt.Sprint(told) != "[+3=]" || sure {
		t.Errorf("an incomplete roster tells %v, sure %v", told, sure)
	}
	if told, sure := calling(r, Roster{Version: 21, Members: one("2", "z")}); fmt.Sprint(told) != "[-2 -3 +2=z]" && fmt.Sprint(told) != "[-3 -2 +2=z]" || !sure {
		t.Errorf("the next roster tells %v, sure %v", told, sure)
	}
}

// TestRollForgets: what is remembered of removals has a bound, and a roster
// that is older than that is refused.
func TestRollForgets(t *testing.T) {
	r := newRoll()
	calling(r, Roster{Version: 1})
	for i := range uint64(10 * goneMin) {
		id := fmt.Sprint(i)
		r.event(event(message.MemberAdded, id, "", 2*i+2))
		r.event(event(message.MemberRemoved, id, "", 2*i+3))
	}
	if len(r.gone) > goneMin || len(r.members) != 0 {
		t.Errorf("remembers %d removals, %d members", len(r.gone), len(r.members))
	}
	if told, sure := calling(r, Roster{Version: 5, Members: one("1", "")}); sure || len(told) > 0 {
		t.Errorf("a roster of long ago tells %v, sure %v", told, sure)
	}
	if _, sure := calling(r, Roster{Version: 10_000}); !sure || r.gone != nil {
		t.Errorf("sure %v, %d removals left", sure, len(r.gone))
	}
	unknown := newRoll()
	for i := range uint64(2 * unknownMax) {
		unknown.event(event(message.MemberAdded, fmt.Sprint(i), "", i+1))
	}
	if len(unknown.members) > unknownMax+1 {
		t.Errorf("notes %d members before the first roster", len(unknown.members))
	}
	if _, sure := calling(unknown, Roster{Version: 10}); sure {
		t.Error("a roster is taken that can't be joined with the events since")
	}
}

func TestOtherChannelsHaveNoRoll(t *testing.T) {
	in := NewInterest(Config{Loops: 1, Partitions: 1, Encodings: []Encoding{plain{}}, Room: func() {}})
	for _, name := range []string{"news", "private-news", channel.OnlinePrefix + "7", room.Name, "presence-cache-a"} {
		key := channel.Key{App: "1", Name: name}
		in.Register(key, 0, 0, func(resume.Place) {})
		if got := in.shards[0].entries[key].roll != nil; got != strings.HasPrefix(name, "presence-") {
			t.Errorf("%s has a roll: %v", name, got)
		}
	}
}
