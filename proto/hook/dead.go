package hook

import (
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/proto/subject"
)

// Bounds of the stream of dead events; the oldest are discarded first.
const (
	DeadStreamAge      = 7 * 24 * time.Hour
	DeadStreamMessages = 100_000
)

// Headers of dead and of replayed events, whose payload is the Event as it
// was queued.
const (
	EndpointHeader = "Carillon-Hook-Endpoint" // the one endpoint that it is for
	ErrorHeader    = "Carillon-Hook-Error"    // why the last attempt failed
	AttemptsHeader = "Carillon-Hook-Attempts" // how many there were
)

// DeadStreamConfig is the stream of webhook events whose retries are used up,
// with that many replicas (1 if 0). api creates it.
func DeadStreamConfig(replicas int) jetstream.StreamConfig {
	return jetstream.StreamConfig{
		Name: subject.DeadHookStream, Description: "webhook events whose retries are used up",
		Subjects: []string{subject.AllDeadHooks}, Retention: jetstream.LimitsPolicy,
		Storage: jetstream.FileStorage, Replicas: max(replicas, 1),
		MaxAge: DeadStreamAge, MaxMsgs: DeadStreamMessages, Discard: jetstream.DiscardOld,
		Duplicates: StreamDuplicates,
	}
}
