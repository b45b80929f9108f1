package hook

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/proto/subject"
)

// Bounds of the webhook work queue.
const (
	StreamAge   = 24 * time.Hour
	StreamBytes = 128 << 20
	// StreamDuplicates is how long a Nats-Msg-Id is remembered.
	StreamDuplicates = 2 * time.Minute
)

// StreamConfig is the work queue of webhook events with that many replicas (1
// if 0). Who publishes hook events or takes them creates it when it is
// missing: all must agree on it.
func StreamConfig(replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: subject.HookStream, Description: "webhook events to deliver",
		Subjects: []string{subject.AllHooks}, Retention: jetstream.WorkQueuePolicy,
		Storage: jetstream.FileStorage, Replicas: max(replicas, 1),
		MaxAge: StreamAge, MaxBytes: StreamBytes, Discard: jetstream.DiscardOld,
		Duplicates: StreamDuplicates,
	}
}
