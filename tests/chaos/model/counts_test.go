package model_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/tests/chaos/model"
	"github.com/carillon-rt/carillon/tests/chaos/record"
)

// at gives entries the time, in milliseconds.
func at(ms int64, es ...record.Entry) []record.Entry {
	for i := range es {
		es[i].Microseconds = 1000 * ms
	}
	return es
}

func asked(session int, user string) record.Entry {
	return record.Entry{Kind: record.Asked, Session: session, Channel: room, User: user}
}

// told is an answer of the API, asked 10 ms before.
func told(ms int64, round, count int, users ...string) record.Entry {
	return record.Entry{
		Kind: record.Counts, Microseconds: 1000 * ms, Since: 1000 * (ms - 10), Round: round, Text: "api", Channel: room,
		Count: count, UserCount: len(users), Users: users,
	}
}

const (
	faultAt  = 10_000 // milliseconds
	mendedAt = 20_000
)

// calm is a run with a fault, and quiet before and after it: ada is there all
// the time, with two connections, and bela comes and goes when it is quiet.
// What the API says is right before bela comes, when bela has been there for
// more than a second, and long after.
func calm() script {
	var s script
	s.add(at(0, connected("s1", 1), connected("s2", 2), asked(1, "ada"), asked(2, "ada"), joined(1, "ada", "ada"), joined(2, "ada", "ada"))...)
	s.add(at(faultAt, record.Entry{Kind: record.Fault, Text: "begin kill router"})...)
	s.add(at(mendedAt, record.Entry{Kind: record.Mended})...)
	s.add(told(20_500, 1, 2, "ada"), told(21_000, 2, 2, "ada"), told(23_010, 3, 2, "ada"))
	s.add(at(25_000, connected("m", 3), asked(3, "bela"))...)
	s.add(at(25_100, joined(3, "bela", "ada", "bela"), member(record.Added, 1, "bela"), member(record.Added, 2, "bela"))...)
	s.add(told(26_200, 4, 3, "ada", "bela"))
	s.add(at(28_000, closed(3, true), record.Entry{Kind: record.Gone, Actor: "m"})...)
	s.add(at(28_900, member(record.Removed, 1, "bela"), member(record.Removed, 2, "bela"))...)
	s.add(told(29_500, 5, 2, "ada"))
	s.add(published("final", durable, "f"), acknowledged("f"), record.Entry{Kind: record.Final, ID: "f"}, stored(1<<10, "f"))
	return s
}

// answer gives the answer of a round, to change it.
func (s script) answer(round int) *record.Entry {
	return &s[slices.IndexFunc(s, func(e record.Entry) bool { return e.Kind == record.Counts && e.Round == round })]
}

func TestCounts(t *testing.T) {
	for name, c := range map[string]struct {
		tamper func(s *script)
		want   model.Promise // "": nothing is wrong
		text   string
	}{
		"all is right":                {func(*script) {}, "", ""},
		"a subscription is forgotten": {func(s *script) { s.answer(4).Count = 2 }, model.Counts, "said 2 subscriptions, there were 3 to 3"},
		"a subscription too many":     {func(s *script) { s.answer(5).Count = 3 }, model.Counts, "said 3 subscriptions, there were 2 to 2"},
		"a user is forgotten":         {func(s *script) { s.answer(4).Users = []string{"bela"} }, model.Counts, "did not name ada, who was there"},
		"a user is not counted":       {func(s *script) { s.answer(4).UserCount = 1 }, model.Counts, "said 1 users, there were 2 to 2"},
		"a phantom":                   {func(s *script) { s.answer(5).Users = []string{"ada", "bela"} }, model.Counts, "named bela, who was not there"},
		"no answer":                   {func(s *script) { s.answer(5).Why = "503" }, model.Counts, "did not answer: 503"},
		"who came within the second may be missing": {func(s *script) {
			*s.answer(4) = told(25_900, 4, 2, "ada")
		}, "", ""},
		"who went within the second may be there": {func(s *script) {
			*s.answer(5) = told(28_800, 5, 3, "ada", "bela")
		}, "", ""},
		"it may be wrong until it is right": {func(s *script) { s.answer(1).Count = 7 }, "", ""},
		"it may be wrong during a fault": {func(s *script) {
			*s = slices.Insert(*s, s.find(at(mendedAt, record.Entry{Kind: record.Mended})[0]), told(15_000, 0, 0))
		}, "", ""},
		"the machine stood still": {func(s *script) {
			s.answer(5).Why = "503"
			s.add(at(30_000, record.Entry{Kind: record.Stalled})...)
			s.add(told(31_000, 6, 2, "ada"), told(33_010, 7, 2, "ada"))
		}, "", ""},
		"it is never right after the machine stood still": {func(s *script) {
			s.add(at(30_000, record.Entry{Kind: record.Stalled})...)
			s.add(told(31_000, 6, 2, "ada"), told(33_010, 7, 9, "ada"))
		}, model.Counts, "said 9 subscriptions"},
		"it must not be wrong again": {func(s *script) { s.answer(5).Count = 9; s.add(told(30_000, 6, 2, "ada")) }, model.Counts, "said 9 subscriptions"},
		"it is not right for long": {func(s *script) {
			*s = slices.Insert((*s)[:s.find(*s.answer(3))], s.find(*s.answer(3)), (*s)[s.find(*s.answer(5))+1:]...)
		}, model.Counts, "after 20.000 s nothing was broken, and the API was not right for 2 s in a row"},
		"it is never right": {func(s *script) {
			for i := 1; i <= 5; i++ {
				s.answer(i).Count = 9
			}
		}, model.Counts, "said 9 subscriptions"},
		"somebody is added for nothing": {func(s *script) {
			s.drop(at(28_900, member(record.Removed, 1, "bela"))[0])
			s.add(at(32_000, member(record.Removed, 1, "bela"))...)
		}, model.PresenceEvents, "nothing of theirs had changed there for 3 s"},
		"somebody leaves and comes for nothing": {func(s *script) {
			s.add(at(31_000, member(record.Removed, 1, "ada"), member(record.Added, 1, "ada"))...)
		}, model.PresenceEvents, "ada was removed from presence-a, and nothing"},
		"somebody leaves and comes during a fault": {func(s *script) {
			*s = slices.Insert(*s, s.find(at(mendedAt, record.Entry{Kind: record.Mended})[0]),
				at(15_000, member(record.Removed, 1, "ada"), member(record.Added, 1, "ada"))...)
		}, "", ""},
		"a connection ends by itself": {func(s *script) {
			s.add(at(31_000, closed(2, false))...)
		}, model.Works, "lost its connection after 31.000 s, when nothing had happened to a gateway"},
		"a connection ends with a gateway": {func(s *script) {
			i := s.find(at(faultAt, record.Entry{Kind: record.Fault, Text: "begin kill router"})[0])
			(*s)[i].Hard = true
			*s = slices.Insert(*s, i+1, at(faultAt+1, closed(2, false), connected("s2", 4), asked(4, "ada"), joined(4, "ada", "ada"))...)
		}, "", ""},
		"a connection ends long after a gateway": {func(s *script) {
			(*s)[s.find(at(faultAt, record.Entry{Kind: record.Fault, Text: "begin kill router"})[0])].Hard = true
			s.add(at(31_000, closed(2, false))...)
		}, model.Works, "lost its connection"},
	} {
		t.Run(name, func(t *testing.T) {
			s := calm()
			c.tamper(&s)
			found := model.Check(s, channels).Violations
			if c.want == "" && len(found) > 0 {
				t.Errorf("found %v", found)
			}
			if c.want != "" && !slices.ContainsFunc(found, func(v model.Violation) bool { return v.Promise == c.want && strings.Contains(v.Text, c.text) }) {
				t.Errorf("found %v, want %s: ...%s...", found, c.want, c.text)
			}
		})
	}
}

func TestSettled(t *testing.T) {
	s := calm()
	s.answer(2).Count = 9
	s.add(told(31_010, 6, 2, "ada"), told(33_020, 7, 2, "ada"))
	for round, want := range map[int][2]bool{1: {true, false}, 2: {false, false}, 3: {true, false}, 5: {true, true}, 7: {true, true}} {
		until := s[:s.find(*s.answer(round))+1]
		if right, settled := model.Settled(until, channels); right != want[0] || settled != want[1] {
			t.Errorf("with %d rounds: right %v, settled %v", round, right, settled)
		}
	}
	s.answer(7).Count = 9
	if right, settled := model.Settled(s, channels); right || settled {
		t.Errorf("wrong at the end: right %v, settled %v", right, settled)
	}
	if right, settled := model.Settled(nil, channels); right || settled {
		t.Error("with nothing")
	}
}
