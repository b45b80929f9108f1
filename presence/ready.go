package presence

import (
	"errors"
	"fmt"
)

// noView is the state of a worker that has not been told of the membership.
const noView = -1

// Ready returns nil when every shard that this node is to own is owned, else
// what is missing: while it claims a shard nobody may answer for it, and a
// rollout that went on with the next node would take its owner away.
func (s *Service) Ready() error {
	claiming := 0
	for _, w := range s.workers {
		n := w.claiming.Load()
		if n == noView {
			return errors.New("waiting for the partition count and the membership")
		}
		claiming += int(n)
	}
	if claiming > 0 {
		return fmt.Errorf("taking over %d shards", claiming)
	}
	return nil
}

// countClaims brings up to date what Ready tells.
func (w *worker) countClaims() {
	n := int32(0)
	for _, s := range w.seats {
		if s.replica.Claiming() {
			n++
		}
	}
	w.claiming.Store(n)
}
