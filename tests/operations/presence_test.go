package operations

import (
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// A gateway with 5,000 members dies: each is announced as removed once, and
// nobody else is. The log says how long that took.
func TestGatewayWithManyMembersDies(t *testing.T) {
	const rooms, users = 100, 50
	c := env.Start(t, env.Apart(2), env.PresenceNodes(2))
	seen, others := newSightings(), newSightings()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("observers have got %v; members %v", seen.totals(), others.totals())
		}
	})
	room := func(i int) string { return fmt.Sprint("presence-many-", i) }
	var observer *client.Client
	for i := range rooms {
		if i%10 == 0 { // one alone would be too slow for all events at once
			observer = dial(t, c.Gateways[0])
			seen.watch(observer)
		}
		join(t, observer, room(i), "observer")
	}
	eventually(t, "observers are there", func() bool { return seen.count("pusher_internal:subscription_succeeded") == rooms })
	for u := range users {
		cl := dial(t, c.Gateways[1])
		user := fmt.Sprint("user-", u)
		others.watch(cl, func(f client.Frame) {
			if f.Event == "pusher:subscription_error" { // the machine has more to do than it can: once more
				if err := cl.TrySubscribe(f.Channel, client.ChannelData(user)); err != nil {
					t.Error(err)
				}
			}
		})
		for i := range rooms {
			join(t, cl, room(i), user)
		}
	}
	eventually(t, "all members are announced", func() bool { return seen.count("pusher_internal:member_added") >= rooms*users })
	killed := time.Now()
	c.Gateways[1].Kill()
	eventually(t, "all members are announced as gone", func() bool { return seen.count("pusher_internal:member_removed") >= rooms*users })
	t.Logf("%d members removed, the last %s after the kill", rooms*users, time.Since(killed).Round(time.Millisecond))
	for i := range rooms {
		usersAre(t, c, room(i), "observer")
		say(t, c, room(i), "end", "")
	}
	eventually(t, "the observers have read on to the end", func() bool { return seen.count("end") == rooms })
	for what, n := range seen.all() {
		if n != 1 {
			t.Errorf("%s came %d times, want once", what, n)
		}
	}
}

// join asks for a presence channel and does not wait.
func join(t *testing.T, cl *client.Client, room, user string) {
	t.Helper()
	if err := cl.TrySubscribe(room, client.ChannelData(user)); err != nil {
		t.Fatal(err)
	}
}

// sightings are the events that clients have got.
type sightings struct {
	mu sync.Mutex
	// guarded by mu
	events map[string]int // by event
	each   map[string]int // by event, channel and member
}

func newSightings() *sightings {
	return &sightings{events: map[string]int{}, each: map[string]int{}}
}

// watch counts all that a client gets, until its connection is gone, and tells
// others of it.
func (s *sightings) watch(cl *client.Client, others ...func(client.Frame)) {
	go func() {
		for {
			f, err := cl.Read()
			s.mu.Lock()
			if err != nil {
				s.events["the end: "+err.Error()]++
				s.mu.Unlock()
				return
			}
			s.events[f.Event]++
			s.each[f.Event+" "+f.Channel+" "+client.Member(f)]++
			s.mu.Unlock()
			for _, tell := range others {
				tell(f)
			}
		}
	}()
}

func (s *sightings) count(event string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.events[event]
}

// totals are the numbers of events by their names; "end" is one connection's.
func (s *sightings) totals() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.events)
}

func (s *sightings) all() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.each
}
