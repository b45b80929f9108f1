package operations

import (
	"testing"

	"github.com/carillon-rt/carillon/tests/env"
)

// Processes that are told to stop while NATS is away end well: there is
// nobody whom they could still tell anything.
func TestStopWithoutNATS(t *testing.T) {
	c := env.Start(t, env.Apart(1))
	client := subscribed(t, c.Gateways[0], "private-news", "news")
	client.Join("presence-room", "ada")
	c.NATS.Stop()
	for _, n := range c.Nodes {
		n.Terminate()
	}
	if bye := untilClose(t, client); bye.code != 4200 {
		t.Errorf("the client was closed with %d, want 4200", bye.code)
	}
	for _, n := range c.Nodes {
		if code := n.ExitCode(); code != 0 {
			t.Errorf("%s ended with %d, want 0", n.Name, code)
		}
	}
}
