package operations

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// One of two routers and one of two presence nodes die: the others go on.
func TestOneOfTwoDies(t *testing.T) {
	const around = 50
	c := env.Start(t, env.Apart(2), env.Routers(2), env.PresenceNodes(2))
	readers := []*client.Client{subscribed(t, c.Gateways[0], "durable-load"), subscribed(t, c.Gateways[1], "durable-load")}
	observers := make([]*client.Client, 8) // as many channels, so that each presence node owns some
	var rooms []string
	for i := range observers {
		rooms = append(rooms, fmt.Sprint("presence-", i))
		observers[i] = dial(t, c.Gateways[0])
		observers[i].Join(rooms[i], "observer")
	}
	guest := dial(t, c.Gateways[1])
	for i, room := range rooms {
		guest.Join(room, "guest")
		observers[i].Expect("pusher_internal:member_added")
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	load := startLoad(t, ctx, c, "durable-load")
	load.more(t, around)
	c.Named("presence").Kill()
	c.Named("router").Kill()
	for i, room := range rooms {
		usersAre(t, c, room, "guest", "observer")
		late := dial(t, c.Gateways[1])
		if roster := client.Members(late.Join(room, "late")); len(roster) != 3 {
			t.Errorf("roster of %s is %v, want three", room, roster)
		}
		for _, cl := range []*client.Client{observers[i], guest} { // and nothing before it
			if f := cl.Expect("pusher_internal:member_added"); f.Channel != room || client.Member(f) != "late" {
				t.Errorf("got %s, want that late was added to %s", f.Raw, room)
			}
		}
		late.Close()
		for _, cl := range []*client.Client{observers[i], guest} {
			if f := cl.Expect("pusher_internal:member_removed"); f.Channel != room || client.Member(f) != "late" {
				t.Errorf("got %s, want that late was removed from %s", f.Raw, room)
			}
		}
	}
	for i, room := range rooms {
		hears(t, c, room, "still here", observers[i], guest)
	}
	load.more(t, around)
	total := load.end()
	for _, r := range readers {
		checkComplete(t, read(t, r, total), total)
	}
	hears(t, c, "durable-load", "the end", readers...)
	if status, page := get(t, c.API, "/readyz?verbose"); status != http.StatusOK {
		t.Errorf("the api is not ready: %s", page)
	}
}

// All presence nodes die at once and come back: who was there is there, and
// nobody is told anything of those who have not moved.
func TestAllPresenceNodesDie(t *testing.T) {
	c := env.Start(t, env.Apart(2), env.PresenceNodes(2))
	observer, guest := dial(t, c.Gateways[0]), dial(t, c.Gateways[1])
	observer.Join("presence-all", "observer")
	guest.Join("presence-all", "guest")
	observer.Expect("pusher_internal:member_added")
	dead := []*env.Node{c.Named("presence"), c.Named("presence-1")}
	for _, n := range dead {
		n.Kill()
	}
	hears(t, c, "presence-all", "while nobody counts", observer, guest)
	for _, n := range dead {
		n.StartAgain()
	}
	for _, n := range dead {
		n.WaitReady()
	}
	late := dial(t, c.Gateways[0])
	if roster := client.Members(late.Join("presence-all", "late")); len(roster) != 3 {
		t.Errorf("roster is %v, want three", roster)
	}
	for _, cl := range []*client.Client{observer, guest} { // and nothing before it
		if f := cl.Expect("pusher_internal:member_added"); client.Member(f) != "late" {
			t.Errorf("got %s, want that late was added", f.Raw)
		}
	}
	guest.Close()
	for _, cl := range []*client.Client{observer, late} {
		if f := cl.Expect("pusher_internal:member_removed"); client.Member(f) != "guest" {
			t.Errorf("got %s, want that guest was removed", f.Raw)
		}
	}
	usersAre(t, c, "presence-all", "late", "observer")
}
