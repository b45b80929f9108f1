package operations

import (
	"fmt"
	"testing"

	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// roomTold is what one client was told of the members of a room.
type roomTold struct {
	room string
	cl   *client.Client
	seen *sightings
}

func watchRoom(t *testing.T, gateway *env.Node, room, user string) roomTold {
	t.Helper()
	cl := dial(t, gateway)
	cl.Join(room, user)
	seen := newSightings()
	seen.watch(cl)
	return roomTold{room, cl, seen}
}

func (r roomTold) times(event, user string) int {
	r.seen.mu.Lock()
	defer r.seen.mu.Unlock()
	return r.seen.each["pusher_internal:member_"+event+" "+r.room+" "+user]
}

// wants waits until the users were added and removed, and fails if anything
// else was told, or twice.
func (r roomTold) wants(t *testing.T, added, removed []string) {
	t.Helper()
	want := map[string]int{}
	for _, u := range added {
		eventually(t, u+" is added to "+r.room, func() bool { return r.times("added", u) > 0 })
		want["pusher_internal:member_added "+r.room+" "+u] = 1
	}
	for _, u := range removed {
		eventually(t, u+" is removed from "+r.room, func() bool { return r.times("removed", u) > 0 })
		want["pusher_internal:member_removed "+r.room+" "+u] = 1
	}
	r.seen.mu.Lock()
	defer r.seen.mu.Unlock()
	for what, n := range r.seen.each {
		if want[what] != n && what != "end "+r.room+" " {
			t.Errorf("in %s: %s came %d times, want %d", r.room, what, n, want[what])
		}
	}
}

// A gateway loses NATS while members come and go elsewhere. When it is back
// its clients are told the difference, each once, and nothing of those who
// came and went meanwhile or stayed.
func TestGatewayMissesMembers(t *testing.T) {
	for name, away := range map[string]func(*env.Link){"held up": (*env.Link).Cut, "disconnected": (*env.Link).Sever} {
		t.Run(name, func(t *testing.T) {
			const rooms = 8
			c := env.Start(t, env.Apart(2), env.Brokers(3), env.Proxied())
			here, there := c.Gateways[0], c.Gateways[1]
			room := func(i int) string { return fmt.Sprint("presence-away-", i) }
			var told []roomTold
			var stays, goes []*client.Client
			for i := range rooms {
				goes = append(goes, dial(t, there))
				goes[i].Join(room(i), "goes")
				stays = append(stays, dial(t, there))
				stays[i].Join(room(i), "stays")
				told = append(told, watchRoom(t, here, room(i), "observer"))
			}
			away(here.Link)
			var comes []*client.Client
			for i := range rooms {
				goes[i].Close()
				comes = append(comes, dial(t, there))
				comes[i].Join(room(i), "comes")
				passes := dial(t, there)
				passes.Join(room(i), "passes")
				passes.Close()
			}
			for i := range rooms {
				usersAre(t, c, room(i), "comes", "observer", "stays")
			}
			here.Link.Heal()
			for i := range rooms {
				eventually(t, "comes is added", func() bool { return told[i].times("added", "comes") > 0 })
				eventually(t, "goes is removed", func() bool { return told[i].times("removed", "goes") > 0 })
			}
			// From here on live events come again, behind the repair.
			for i := range rooms {
				comes[i].Close()
				eventually(t, "comes is removed", func() bool { return told[i].times("removed", "comes") > 0 })
				if name == "disconnected" { // else those who passed may come by, late
					told[i].wants(t, []string{"comes"}, []string{"goes", "comes"})
				}
				if n, m := told[i].times("added", "passes"), told[i].times("removed", "passes"); n != m || n > 1 {
					t.Errorf("who came and went was added %d times and removed %d times", n, m)
				}
			}
			if name == "disconnected" && metric(t, here, "carillon_gateway_presence_repairs_total", "reason", "done") < rooms {
				t.Error("no channel was repaired")
			}
		})
	}
}

// A gateway that has lost NATS tells the numbers of subscriptions that it has
// missed.
func TestGatewayMissesCounts(t *testing.T) {
	c := env.Start(t, env.Apart(2), env.Brokers(3), env.Proxied())
	here, there := c.Gateways[0], c.Gateways[1]
	countIs := func(cl *client.Client, n int) {
		t.Helper()
		want := fmt.Sprintf(`{"subscription_count":%d}`, n)
		for f := cl.Await("pusher_internal:subscription_count"); f.Text() != want; f = cl.Await("pusher_internal:subscription_count") {
		}
	}
	const channels = 8
	channel := func(i int) string { return fmt.Sprint("counted-", i) }
	var observers []*client.Client
	for i := range channels {
		observers = append(observers, subscribed(t, here, channel(i)))
		countIs(observers[i], 1)
	}
	here.Link.Sever()
	for i := range channels {
		countIs(subscribed(t, there, channel(i)), 2)
	}
	here.Link.Heal()
	for i := range channels {
		countIs(observers[i], 2)
	}
}

// The presence owners are killed one after the other while members move:
// nobody is told anything twice, and all is told in the end.
func TestPresenceOwnersDieWhileMembersMove(t *testing.T) {
	const rooms, users = 8, 24
	c := env.Start(t, env.Apart(2), env.PresenceNodes(3))
	room := func(i int) string { return fmt.Sprint("presence-moving-", i) }
	var told []roomTold
	for i := range rooms {
		told = append(told, watchRoom(t, c.Gateways[0], room(i), "observer"))
	}
	var here []*client.Client
	var added, removed []string
	for u := range users {
		if u == users/3 {
			c.Named("presence").Kill()
		}
		if u == 2*users/3 {
			c.Named("presence").StartAgain()
			c.Named("presence").WaitReady()
			c.Named("presence-1").Kill()
		}
		cl := dial(t, c.Gateways[1])
		for i := range rooms {
			join(t, cl, room(i), user(u))
		}
		for range rooms {
			cl.Await("pusher_internal:subscription_succeeded")
		}
		newSightings().watch(cl)
		added = append(added, user(u))
		if here = append(here, cl); u%2 == 1 {
			here[u-1].Close()
			removed = append(removed, user(u-1))
		}
	}
	for i := range rooms {
		told[i].wants(t, added, removed)
	}
}
