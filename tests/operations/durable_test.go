package operations

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// Every subscriber of a durable channel sees the same order, which is each
// publisher's, on both gateways.
func TestDurableOrder(t *testing.T) {
	const publishers, total = 3, 2000
	c := env.Start(t, env.Apart(2))
	readers := []*client.Client{
		subscribed(t, c.Gateways[0], "durable-order"), subscribed(t, c.Gateways[0], "durable-order"),
		subscribed(t, c.Gateways[1], "durable-order"),
	}
	seen := make([][]string, len(readers))
	var reading, publishing sync.WaitGroup
	for i, r := range readers {
		reading.Go(func() { seen[i] = read(t, r, total) })
	}
	for p := range publishers {
		calls, last := api(t, c), total/publishers
		if p < total%publishers {
			last++
		}
		publishing.Go(func() {
			for n := range last {
				e := client.Event{Name: "n", Data: fmt.Sprintf("%d/%06d", p, n), Channels: []string{"durable-order"}}
				if _, err := calls.Publish(t.Context(), e); err != nil {
					t.Errorf("publisher %d: %v", p, err)
					return
				}
			}
		})
	}
	publishing.Wait()
	reading.Wait()
	for i := range seen[1:] {
		if !slices.Equal(seen[0], seen[i+1]) {
			t.Errorf("reader %d saw another order than reader 0", i+1)
		}
	}
	checkComplete(t, seen[0], total)
}

// read gives the data of the next n events.
func read(t *testing.T, c *client.Client, n int) (seen []string) {
	for len(seen) < n {
		f, err := c.Read()
		if err != nil {
			t.Errorf("after %d of %d events: %v", len(seen), n, err)
			return seen
		}
		if f.Event == "n" {
			seen = append(seen, f.Text())
		}
	}
	return seen
}

// checkComplete wants total events without a repeat, those of each publisher
// (what is before the slash) in rising order.
func checkComplete(t *testing.T, seen []string, total int) {
	t.Helper()
	last, known := map[string]string{}, map[string]bool{}
	for _, s := range seen {
		if known[s] {
			t.Errorf("%s came twice", s)
		}
		known[s] = true
		publisher := s[:2]
		if s <= last[publisher] {
			t.Errorf("%s came after %s", s, last[publisher])
		}
		last[publisher] = s
	}
	if len(known) != total {
		t.Errorf("%d different events came, want %d", len(known), total)
	}
}
