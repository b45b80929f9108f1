package hook

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/carillon-rt/carillon/proto/subject"
)

func TestStreams(t *testing.T) {
	queue, dead := StreamConfig(0), DeadStreamConfig(0)
	if queue.Name != subject.HookStream || queue.Retention != jetstream.WorkQueuePolicy {
		t.Errorf("stream %s with retention %v, want the work queue", queue.Name, queue.Retention)
	}
	if dead.Name != subject.DeadHookStream || dead.Retention != jetstream.LimitsPolicy {
		t.Errorf("stream %s with retention %v, want the dead events", dead.Name, dead.Retention)
	}
	for _, s := range []jetstream.StreamConfig{queue, dead} {
		if s.Replicas != 1 || s.MaxAge <= 0 || (s.MaxMsgs <= 0 && s.MaxBytes <= 0) {
			t.Errorf("stream %s: replicas %d, age %s, messages %d, bytes %d: want 1 and bounds", s.Name, s.Replicas, s.MaxAge, s.MaxMsgs, s.MaxBytes)
		}
	}
	if got := DeadStreamConfig(3).Replicas; got != 3 {
		t.Errorf("replicas = %d, want 3", got)
	}
	if got := subject.DeadHookApp(subject.DeadHook("7")); got != "7" {
		t.Errorf("app of a dead subject = %q, want 7", got)
	}
}
