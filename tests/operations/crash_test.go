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
