package model_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/tests/chaos/model"
	"github.com/carillon-rt/carillon/tests/chaos/record"
)

var channels = model.Channels{
	Durable:  func(c string) bool { return strings.HasPrefix(c, "durable-") },
	Presence: func(c string) bool { return strings.HasPrefix(c, "presence-") },
}

const (
	durable = "durable-a"
	live    = "live-a"
	room    = "presence-a"
)

// script builds records.
type script []record.Entry

func (s *script) add(es ...record.Entry) { *s = append(*s, es...) }

func published(actor, channel, id string) record.Entry {
	return record.Entry{Kind: record.Publish, Actor: actor, Channel: channel, ID: id, Keyed: true}
}

func acknowledged(id string) record.Entry {
	return record.Entry{Kind: record.Acknowledged, ID: id}
}

func connected(actor string, session int) record.Entry {
	return record.Entry{Kind: record.Connected, Actor: actor, Session: session}
}

func subscribed(session int, channel string) record.Entry {
	return record.Entry{Kind: record.Subscribed, Session: session, Channel: channel}
}

func joined(session int, user string, roster ...string) record.Entry {
	return record.Entry{Kind: record.Subscribed, Session: session, Channel: room, User: user, Users: roster}
}

func event(session int, channel, id string) record.Entry {
	return record.Entry{Kind: record.Event, Session: session, Channel: channel, ID: id}
}

func member(k record.Kind, session int, user string) record.Entry {
	return record.Entry{Kind: k, Session: session, Channel: room, User: user}
}

func closed(session int, left bool) record.Entry {
	return record.Entry{Kind: record.Closed, Session: session, Left: left}
}

func stored(position uint64, id string) record.Entry {
	return record.Entry{Kind: record.Journal, Channel: durable, ID: id, Position: position}
}

// good is a short run in which everything is right: two subscribers, one of
// which loses its connection in the middle and comes back, one publisher, and
// members that come and go.
func good() script {
	var s script
	s.add(connected("s1", 1), subscribed(1, durable), subscribed(1, live), joined(1, "ada", "ada"))
	s.add(connected("s2", 2), subscribed(2, durable), joined(2, "bela", "ada", "bela"), member(record.Added, 1, "bela"))
	s.add(published("p", durable, "p-1"), acknowledged("p-1"), event(1, durable, "p-1"), event(2, durable, "p-1"))
	s.add(published("p", durable, "p-2"), event(1, durable, "p-2"), acknowledged("p-2"))
	s.add(published("q", durable, "q-1"), acknowledged("q-1"))
	s.add(record.Entry{Kind: record.Fault, Text: "kill gateway-1", Hard: true}, closed(2, false), event(1, durable, "q-1"))
	s.add(member(record.Removed, 1, "bela"))
	s.add(published("p", live, "l-1"), acknowledged("l-1"), event(1, live, "l-1"), published("p", live, "l-2"), acknowledged("l-2"), event(1, live, "l-2"))
	s.add(connected("s2", 3), subscribed(3, durable), joined(3, "bela", "ada", "bela"), member(record.Added, 1, "bela"))
	s.add(published("p", durable, "p-3"), acknowledged("p-3"), event(1, durable, "p-3"), event(3, durable, "p-3"))
	s.add(connected("m", 4), joined(4, "chen", "ada", "bela", "chen"), member(record.Added, 1, "chen"), member(record.Added, 3, "chen"))
	s.add(closed(4, true), record.Entry{Kind: record.Gone, Actor: "m"}, member(record.Removed, 3, "chen"), member(record.Removed, 1, "chen"))
	s.add(published("final", durable, "f"), acknowledged("f"), record.Entry{Kind: record.Final, ID: "f"}, event(1, durable, "f"), event(3, durable, "f"))
	s.add(record.Entry{Kind: record.Roster, Channel: room, Users: []string{"bela", "ada"}, Text: "api"})
	s.add(stored(1<<10, "p-1"), stored(2<<10, "p-2"), stored(2<<10+1, "q-1"), stored(3<<10, "p-3"), stored(4<<10, "f"))
	return s
}

func TestGoodRun(t *testing.T) {
	r := model.Check(good(), channels)
	for _, v := range r.Violations {
		t.Error(v)
	}
	if r.Publications != 7 || r.Acknowledged != 7 || r.Stored != 5 || r.Sessions != 4 || r.Lost != 1 || r.Events != 10 || r.MemberEvents != 7 || r.Faults != 1 {
		t.Errorf("counted %+v", r)
	}
}

// find gives the index of an entry.
func (s script) find(want record.Entry) int {
	return slices.IndexFunc(s, func(e record.Entry) bool { return fmt.Sprint(e) == fmt.Sprint(want) })
}

func (s *script) drop(e record.Entry) {
	i := s.find(e)
	*s = slices.Delete(*s, i, i+1)
}

func (s *script) after(e record.Entry, more ...record.Entry) {
	*s = slices.Insert(*s, s.find(e)+1, more...)
}

func (s script) swap(a, b record.Entry) {
	i, j := s.find(a), s.find(b)
	s[i], s[j] = s[j], s[i]
}

// resume has the second subscriber go on behind a position.
func (s *script) resume(position uint64) {
	e := &(*s)[s.find(subscribed(3, durable))]
	e.Resumed, e.Position = true, position
}

// Whatever is changed in a good record is found, as a breach of the promise
// that it is one of.
func TestTamperedRecords(t *testing.T) {
	for name, c := range map[string]struct {
		tamper func(s *script)
		want   model.Promise
		text   string
	}{
		"an event in the middle is missing": {func(s *script) { s.drop(event(1, durable, "p-2")) }, model.Gap, "s1 (connection 1) missed p-2"},
		"the first event is missing": {func(s *script) {
			s.drop(event(2, durable, "p-1"))
			s.after(acknowledged("p-2"), event(2, durable, "p-2"))
		}, model.Gap, "missed p-1"},
		"the first event after coming back":      {func(s *script) { s.drop(event(3, durable, "p-3")) }, model.Gap, "s2 (connection 3) missed p-3"},
		"the last event is missing":              {func(s *script) { s.drop(event(1, durable, "f")) }, model.Gap, "missed f"},
		"the last event does not come to all":    {func(s *script) { s.drop(event(3, durable, "f")) }, model.Works, "did not get f"},
		"what nobody acknowledged is missing":    {func(s *script) { s.drop(acknowledged("p-2")); s.drop(event(1, durable, "p-2")) }, model.Gap, "missed p-2"},
		"a resumed subscription lacks the first": {func(s *script) { s.resume(1 << 10) }, model.Resume, "went on from 1024 on durable-a and was not given p-2, q-1"},
		"a resumed subscription repeats the last": {func(s *script) {
			s.resume(2<<10 + 1)
			s.after((*s)[s.find(joined(3, "bela", "ada", "bela"))], event(3, durable, "q-1"))
		}, model.Resume, "was given q-1 again"},
		"an event comes twice":                      {func(s *script) { s.after(event(1, durable, "q-1"), event(1, durable, "q-1")) }, model.Twice, "got q-1"},
		"an old event comes again":                  {func(s *script) { s.after(event(1, durable, "p-3"), event(1, durable, "p-1")) }, model.Twice, "got p-1"},
		"a live event comes twice":                  {func(s *script) { s.after(event(1, live, "l-2"), event(1, live, "l-2")) }, model.Twice, "got l-2"},
		"an event that nobody sent":                 {func(s *script) { s.after(event(1, live, "l-2"), event(1, live, "x")) }, model.Twice, "nobody published"},
		"an event on another channel":               {func(s *script) { s.after(event(1, live, "l-2"), event(1, live, "p-1")) }, model.Twice, "nobody published"},
		"an event before the subscription":          {func(s *script) { s.after(connected("s2", 3), event(3, durable, "q-1")) }, model.Twice, "before it was subscribed"},
		"two publishers' events swapped":            {func(s *script) { s.swap(event(1, durable, "p-2"), event(1, durable, "q-1")) }, model.Order, "the other way round"},
		"a publisher's live events swapped":         {func(s *script) { s.swap(event(1, live, "l-1"), event(1, live, "l-2")) }, model.Order, "same publisher"},
		"the journal has a publisher's other order": {func(s *script) { s.swap(stored(1<<10, "p-1"), stored(2<<10, "p-2")) }, model.Order, "the journal of durable-a has p-2 before p-1"},
		"the journal lost what was acknowledged":    {func(s *script) { s.drop(stored(2<<10, "p-2")) }, model.Stored, "does not have it"},
		"the journal lost what nobody got":          {func(s *script) { s.add(published("p", durable, "p-4"), acknowledged("p-4")) }, model.Stored, "p-4 was acknowledged"},
		"the journal has something twice":           {func(s *script) { s.add(stored(5<<10, "p-2")) }, model.Stored, "p-2 on durable-a twice"},
		"the journal has something unknown":         {func(s *script) { s.add(stored(5<<10, "x")) }, model.Stored, "nobody published"},
		"the journal has it elsewhere":              {func(s *script) { s.add(stored(5<<10, "l-1")) }, model.Stored, "was published to live-a"},
		"a keyed publication is given up":           {func(s *script) { s.add(published("p", durable, "p-4"), record.Entry{Kind: record.Unknown, ID: "p-4"}) }, model.Works, "never acknowledged"},
		"a publication is refused":                  {func(s *script) { s.add(published("p", durable, "p-4"), record.Entry{Kind: record.Refused, ID: "p-4"}) }, model.Works, "was refused"},
		"a member is added twice":                   {func(s *script) { s.after(member(record.Added, 3, "chen"), member(record.Added, 3, "chen")) }, model.PresenceEvents, "chen was added"},
		"a member of the roster is added":           {func(s *script) { s.after(joined(2, "bela", "ada", "bela"), member(record.Added, 2, "ada")) }, model.PresenceEvents, "who was there"},
		"a member is removed twice":                 {func(s *script) { s.after(member(record.Removed, 3, "chen"), member(record.Removed, 3, "chen")) }, model.PresenceEvents, "who was not there"},
		"a removal is missing":                      {func(s *script) { s.drop(member(record.Removed, 3, "chen")) }, model.Presence, "not there: chen"},
		"an addition is missing":                    {func(s *script) { s.drop(member(record.Added, 1, "bela")) }, model.PresenceEvents, "who was not there"},
		"the last addition is missing":              {func(s *script) { i := s.find(joined(3, "bela", "ada", "bela")); *s = slices.Delete(*s, i+1, i+2) }, model.Presence, "missing: bela"},
		"a roster without the newcomer":             {func(s *script) { (*s)[s.find(joined(2, "bela", "ada", "bela"))].Users = []string{"ada"} }, model.Presence, "without it"},
		"a member is removed itself for good":       {func(s *script) { s.after(event(1, durable, "p-3"), member(record.Removed, 1, "ada")) }, model.Presence, "missing: ada"},
		"the API has a phantom": {func(s *script) {
			s.add(record.Entry{Kind: record.Roster, Channel: room, Users: []string{"ada", "bela", "zoe"}})
		}, model.Presence, "not there: zoe"},
		"a subscriber never came back": {func(s *script) { s.add(closed(3, false)) }, model.Works, "s2 is not connected"},
		"a process died":               {func(s *script) { s.add(record.Entry{Kind: record.Died, Text: "router"}) }, model.Works, "router ended by itself"},
		"nothing at the end":           {func(s *script) { s.drop(record.Entry{Kind: record.Final, ID: "f"}) }, model.Works, "nothing was published at the end"},
	} {
		t.Run(name, func(t *testing.T) {
			s := good()
			c.tamper(&s)
			found := model.Check(s, channels).Of(c.want)
			if !slices.ContainsFunc(found, func(v model.Violation) bool { return strings.Contains(v.Text, c.text) }) {
				t.Errorf("found %v, want %s: ...%s...", model.Check(s, channels).Violations, c.want, c.text)
			}
		})
	}
}

// What no promise covers is not a violation.
func TestAllowed(t *testing.T) {
	for name, tamper := range map[string]func(s *script){
		"who loses its connection may miss the last ones": func(s *script) { s.drop(event(2, durable, "p-1")) },
		"a live event may be lost":                        func(s *script) { s.drop(event(1, live, "l-2")) },
		"with and without keys are two lanes where nothing is kept": func(s *script) {
			(*s)[s.find(published("p", live, "l-2"))].Keyed = false
			s.swap(event(1, live, "l-1"), event(1, live, "l-2"))
		},
		"one sent during the subscription may come": func(s *script) {
			i := s.find(subscribed(3, durable))
			(*s)[i] = published("p", durable, "p-0")
			s.after((*s)[i], subscribed(3, durable), event(3, durable, "p-0"), event(1, durable, "p-0"))
			s.after(stored(2<<10+1, "q-1"), stored(2<<10+2, "p-0"))
		},
		"one sent during the subscription need not come": func(s *script) {
			i := s.find(subscribed(3, durable))
			(*s)[i] = published("p", durable, "p-0")
			s.after((*s)[i], subscribed(3, durable), event(1, durable, "p-0"))
			s.after(stored(2<<10+1, "q-1"), stored(2<<10+2, "p-0"))
		},
		"a member on a gateway that hung is removed itself, and added again": func(s *script) {
			s.after(event(1, durable, "p-3"), member(record.Removed, 1, "ada"), member(record.Added, 1, "ada"))
		},
		"a resumed subscription goes on": func(s *script) {
			s.resume(1 << 10)
			s.after((*s)[s.find(joined(3, "bela", "ada", "bela"))], event(3, durable, "p-2"), event(3, durable, "q-1"))
		},
		"without a key nobody knows": func(s *script) {
			e := published("p", durable, "p-4")
			e.Keyed = false
			s.add(e, record.Entry{Kind: record.Unknown, ID: "p-4"})
		},
		"an unknown one may be stored after its successor": func(s *script) {
			e := published("q", durable, "q-0")
			e.Keyed = false
			s.after(event(2, durable, "p-1"), e, record.Entry{Kind: record.Unknown, ID: "q-0"})
			s.after(event(1, durable, "q-1"), event(1, durable, "q-0"))
			s.after(stored(2<<10+1, "q-1"), stored(2<<10+2, "q-0"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := good()
			tamper(&s)
			for _, v := range model.Check(s, channels).Violations {
				t.Error(v)
			}
		})
	}
}

// Long runs of many publishers and subscribers that come and go are right, and
// any single event that is lost, repeated or exchanged in them is found.
func TestRandomRuns(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 0))
		s, sessions := random(rng)
		if vs := model.Check(s, channels).Violations; len(vs) > 0 {
			t.Fatalf("seed %d: a good run has %v", seed, vs)
		}
		stayed := sessions[rng.IntN(len(sessions))]
		var of []int // its events
		for i, e := range s {
			if e.Kind == record.Event && e.Session == stayed {
				of = append(of, i)
			}
		}
		i := rng.IntN(len(of) - 1)
		a, b := of[i], of[i+1]
		for what, tampered := range map[string]script{
			"lost":      slices.Delete(slices.Clone(s), a, a+1),
			"repeated":  slices.Insert(slices.Clone(s), b, s[a]),
			"exchanged": exchanged(s, a, b),
		} {
			if vs := model.Check(tampered, channels).Violations; len(vs) == 0 {
				t.Errorf("seed %d: %s of connection %d was not found", seed, what, stayed)
			}
		}
	}
}

func exchanged(s script, a, b int) script {
	s = slices.Clone(s)
	s[a], s[b] = s[b], s[a]
	return s
}

// random makes a good run, and names the sessions that stay to its end.
func random(rng *rand.Rand) (s script, open []int) {
	var journal []string
	sessions, next := 0, map[int]int{} // the next of the journal for each session
	connect := func() {
		sessions++
		s.add(connected(fmt.Sprint("s", sessions), sessions), subscribed(sessions, durable))
		next[sessions] = len(journal)
		open = append(open, sessions)
	}
	deliver := func(session int) {
		if next[session] < len(journal) {
			s.add(event(session, durable, journal[next[session]]))
			next[session]++
		}
	}
	connect()
	connect()
	for n := range 100 {
		switch k := rng.IntN(10); {
		case k < 4:
			id := fmt.Sprint("p-", n)
			s.add(published(fmt.Sprint("p", rng.IntN(3)), durable, id))
			journal = append(journal, id)
			s.add(acknowledged(id))
		case k < 8:
			deliver(open[rng.IntN(len(open))])
		case k < 9:
			connect()
		case len(open) > 2:
			i := 1 + rng.IntN(len(open)-1) // the first one stays
			s.add(closed(open[i], true), record.Entry{Kind: record.Gone, Actor: fmt.Sprint("s", open[i])})
			open = slices.Delete(open, i, i+1)
		}
	}
	for i := range 4 {
		id := fmt.Sprint("f-", i)
		s.add(published("final", durable, id), acknowledged(id), record.Entry{Kind: record.Final, ID: id})
		journal = append(journal, id)
	}
	for _, session := range open {
		for next[session] < len(journal) {
			deliver(session)
		}
	}
	for i, id := range journal {
		s.add(stored(uint64(i+1)<<10, id))
	}
	return s, open
}
