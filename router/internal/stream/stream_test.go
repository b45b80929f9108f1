package stream

import (
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

func TestCovers(t *testing.T) {
	have := jetstream.StreamConfig{
		Name: "S", Subjects: []string{"a.*"}, MaxBytes: 100, MaxAge: time.Hour, Replicas: 1, Duplicates: time.Minute, AllowDirect: true,
	}
	for name, c := range map[string]struct {
		change func(*jetstream.StreamConfig)
		want   bool
	}{
		"the same":               {func(*jetstream.StreamConfig) {}, true},
		"what the server chose":  {func(c *jetstream.StreamConfig) { c.Duplicates, c.Replicas = 0, 0 }, true},
		"other subjects":         {func(c *jetstream.StreamConfig) { c.Subjects = []string{"b.*"} }, false},
		"another limit":          {func(c *jetstream.StreamConfig) { c.MaxBytes = 200 }, false},
		"something that is new":  {func(c *jetstream.StreamConfig) { c.RePublish = &jetstream.RePublish{Source: "a"} }, false},
		"another length of time": {func(c *jetstream.StreamConfig) { c.MaxAge = time.Minute }, false},
	} {
		want := have
		c.change(&want)
		if got := covers(have, want); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}
