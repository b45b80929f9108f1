package presence

import (
	"testing"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/subject"
)

// A presence node doubts what it knows when it was too slow for its own
// messages. Those of a gateway in the same process are not its business.
func TestWhoseMessagesWereDropped(t *testing.T) {
	for _, tt := range []struct {
		subject string
		doubts  int
	}{
		{subject.Live(3), 0},
		{subject.PresenceSync, 0},
		{subject.PresenceDelta(7), 1},
		{subject.PresenceNotes(7), 1},
	} {
		t.Run(tt.subject, func(t *testing.T) {
			deps := natstest.Server(t).Deps(t, "p1")
			apps, err := app.NewRegistry([]app.App{{ID: "1", Keys: []app.Key{{Key: "k"}}}})
			if err != nil {
				t.Fatal(err)
			}
			svc, err := New(DefaultConfig(), deps, apps)
			if err != nil {
				t.Fatal(err)
			}
			dropped := make(chan struct{}, 1)
			deps.NATS.OnSlowConsumer(func(string) { dropped <- struct{}{} }) // after the service has been told
			nobody := make(chan *nats.Msg, 1)
			if _, err := deps.NATS.Req.ChanSubscribe(tt.subject, nobody); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if err := deps.NATS.Req.Publish(tt.subject, nil); err != nil {
					t.Fatal(err)
				}
			}
			<-dropped
			if n := len(svc.recheck); n != tt.doubts {
				t.Errorf("doubts %d, want %d", n, tt.doubts)
			}
		})
	}
}
