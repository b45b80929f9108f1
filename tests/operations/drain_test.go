package operations

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"testing"

	"github.com/gobwas/ws/wsutil"

	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// goodbye is how the server ended a connection.
type goodbye struct {
	told int // code of the pusher:error before the close
	code int // of the close
}

// A gateway that is told to stop lets its clients go politely, and presence
// tells of each of its users exactly what happened.
func TestDrain(t *testing.T) {
	const clients, users = 200, 10
	c := env.Start(t, env.Apart(2), env.Set("gateway.drain.propagation=2s", "gateway.drain.window=3s", "gateway.drain.slack=2s"))
	leaving, staying := c.Gateways[0], c.Gateways[1]
	observer := dial(t, staying)
	observer.Join("presence-room", "observer")
	var farewells sync.WaitGroup
	gone := make(chan goodbye, clients)
	for i := range clients {
		cl := dial(t, leaving)
		if i < users {
			cl.Join("presence-room", user(i))
			observer.Expect("pusher_internal:member_added")
		}
		farewells.Go(func() { gone <- untilClose(t, cl) })
	}
	leaving.Terminate()
	eventually(t, "the gateway is not ready", func() bool {
		status, _ := get(t, leaving, "/readyz")
		return status == http.StatusServiceUnavailable
	})
	late := dial(t, leaving) // balancers have not noticed yet
	late.Subscribe("news")
	open := func() float64 { return metric(t, leaving, "carillon_gateway_connections") }
	for n := range clients {
		bye := <-gone
		if bye.told != 4200 || bye.code != 4200 {
			t.Errorf("a client was told %d and closed with %d, want 4200 and 4200", bye.told, bye.code)
		}
		// Evenly over the window: most are still there when the first have
		// gone, some when half of them have.
		for _, checkpoint := range []struct {
			after, least int
		}{{clients / 10, clients / 3}, {clients / 2, clients / 20}} {
			if n+1 == checkpoint.after {
				if left := open(); left < float64(checkpoint.least) {
					t.Errorf("%v connections are open when %d have gone, want %d or more", left, n+1, checkpoint.least)
				}
			}
		}
	}
	farewells.Wait()
	if f := late.Await("pusher:error"); f.Code() != 4200 {
		t.Errorf("the late client was told %s", f.Raw)
	}
	if code := leaving.ExitCode(); code != 0 {
		t.Errorf("the gateway ended with %d, want 0", code)
	}
	checkMoves(t, c, observer, users)
}

func user(i int) string { return fmt.Sprintf("user-%02d", i) }

// untilClose reads to the end of a connection.
func untilClose(t *testing.T, c *client.Client) (bye goodbye) {
	for {
		f, err := c.Read()
		var closed wsutil.ClosedError
		if errors.As(err, &closed) {
			bye.code = int(closed.Code)
			return bye
		}
		if err != nil {
			t.Errorf("read: %v", err)
			return bye
		}
		if f.Event == "pusher:error" {
			bye.told = f.Code()
		}
	}
}

// checkMoves wants one member_removed for each user, and one member_added for
// each that comes back elsewhere.
func checkMoves(t *testing.T, c *env.Cluster, observer *client.Client, users int) {
	t.Helper()
	var removed []string
	for range users {
		removed = append(removed, client.Member(observer.Expect("pusher_internal:member_removed")))
	}
	slices.Sort(removed)
	for i := range users {
		if removed[i] != user(i) {
			t.Fatalf("removed were %v, want each of %d users once", removed, users)
		}
	}
	usersAre(t, c, "presence-room", "observer")
	want := []string{"observer"}
	for i := range users / 2 {
		dial(t, c.Gateways[1]).Join("presence-room", user(i))
		if who := client.Member(observer.Expect("pusher_internal:member_added")); who != user(i) {
			t.Errorf("%s was added, want %s", who, user(i))
		}
		want = append(want, user(i))
	}
	hears(t, c, "presence-room", "nothing more", observer)
	usersAre(t, c, "presence-room", want...)
}

// A user who comes back at once, elsewhere, was never away or left and came
// once: no other tale may be told.
func TestDrainWithReconnects(t *testing.T) {
	const users = 20
	c := env.Start(t, env.Apart(2), env.Set("gateway.drain.window=500ms"))
	leaving, staying := c.Gateways[0], c.Gateways[1]
	observer := dial(t, staying)
	observer.Join("presence-room", "observer")
	names := []string{"observer"}
	before := make([]*client.Client, users)
	for i := range users {
		before[i] = dial(t, leaving)
		before[i].Join("presence-room", user(i))
		observer.Expect("pusher_internal:member_added")
		names = append(names, user(i))
	}
	leaving.Terminate()
	var moves sync.WaitGroup
	for i, cl := range before {
		moves.Go(func() {
			untilClose(t, cl)
			again, err := client.TryDial(t, staying.Public(), env.Key, client.WithSecret(env.Secret))
			if err == nil {
				err = again.TrySubscribe("presence-room", client.ChannelData(user(i)))
			}
			if err != nil {
				t.Errorf("%s comes back: %v", user(i), err)
			}
		})
	}
	moves.Wait()
	if code := leaving.ExitCode(); code != 0 {
		t.Errorf("the gateway ended with %d, want 0", code)
	}
	usersAre(t, c, "presence-room", names...)
	say(t, c, "presence-room", "end", "")
	tales := map[string]string{}
	for f := observer.Await("pusher_internal:member_added", "pusher_internal:member_removed", "end"); f.Event != "end"; {
		tales[client.Member(f)] += " " + f.Event[len("pusher_internal:member_"):]
		f = observer.Await("pusher_internal:member_added", "pusher_internal:member_removed", "end")
	}
	for who, tale := range tales {
		if tale != " removed added" {
			t.Errorf("of %s was told:%s", who, tale)
		}
	}
}
