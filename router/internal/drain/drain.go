// Package drain ends subscriptions without losing what the server has handed
// over already. It knows nothing of what they carry.
package drain

import (
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

// Wait is how long Subscriptions takes at most.
const Wait = 2 * time.Second

// Subscriptions ends subs: their handlers get what the server has sent, then
// it returns. Later requests find no responders. When the connection is away
// it returns after Wait; closing the connection ends the rest.
func Subscriptions(subs ...*nats.Subscription) {
	var draining sync.WaitGroup
	for _, sub := range subs {
		draining.Add(1)
		done := sync.OnceFunc(draining.Done)
		sub.SetClosedHandler(func(string) { done() })
		if sub.Drain() != nil { // the connection is closed: nothing comes any more
			done()
		}
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		draining.Wait()
	}()
	select {
	case <-drained:
	case <-time.After(Wait):
		for _, sub := range subs {
			_ = sub.Unsubscribe() // ends it at once; an error means that it has ended
		}
	}
}
