package backbone

import (
	"context"
	"encoding/json"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/proto/control"
)

// control hands commands to all gateways on until ctx ends.
func (f *Feed) control(ctx context.Context, commands <-chan *nats.Msg) {
	for {
		select {
		case <-ctx.Done():
			return
		case m := <-commands:
			var cmd control.Command
			if err := json.Unmarshal(m.Data, &cmd); err != nil {
				f.metrics.malformed.Inc()
				f.log.Warn("control command ignored: it is not JSON of a control.Command", "err", err)
				continue
			}
			if f.cfg.Control != nil {
				f.cfg.Control(cmd)
			}
		}
	}
}
