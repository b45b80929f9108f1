package gateway

import (
	"context"
	"fmt"
	"strconv"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/proto/subject"
)

// answerClock tells routers that begin the newest time that a publication told
// of, until ctx ends: if all routers have gone, only gateways know how far their
// clock was.
func (g *Gateway) answerClock(ctx context.Context) error {
	sub, err := g.deps.NATS.Req.Subscribe(subject.Clock, func(m *nats.Msg) {
		if at := g.edge.Stats().Newest; at > 0 {
			_ = m.Respond(strconv.AppendUint(nil, at, 10)) // the router does without
		}
	})
	if err != nil {
		return fmt.Errorf("subscribe to %s: %w", subject.Clock, err)
	}
	defer sub.Unsubscribe() // fails only on a closed connection
	<-ctx.Done()
	return nil
}
