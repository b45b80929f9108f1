package router

import (
	"fmt"
	"time"

	"github.com/carillon-rt/carillon/kit/config"
	"github.com/carillon-rt/carillon/proto/cluster"
)

// Role is the role of a router in the membership.
const Role = "router"

// Config is the router's section of the configuration.
type Config struct {
	Partitions int `yaml:"partitions" doc:"partitions of the journal; decided by the first router of a cluster, for good: 4 for one node, 16 for a cluster"`
	Replicas   int `yaml:"replicas" doc:"copies of every stream: 1 with one NATS server, 3 in a cluster"`

	LogBytes    config.Bytes  `yaml:"log_bytes" doc:"size limit of the journal; the oldest publications go first; less where the NATS server has less room"`
	IngestBytes config.Bytes  `yaml:"ingest_bytes" doc:"size limit of the queue of plain publishes; a full queue takes no more"`
	IngestAge   time.Duration `yaml:"ingest_age" doc:"how long a plain publish waits for a router before it is dropped"`

	IdempotencyWindow time.Duration `yaml:"idempotency_window" doc:"how long an idempotency key is remembered"`

	QueuePublications int          `yaml:"queue_publications" doc:"publications that wait per partition; more are refused for now"`
	QueueBytes        config.Bytes `yaml:"queue_bytes" doc:"and their bytes"`

	AcceptTimeout time.Duration `yaml:"accept_timeout" doc:"a publish request is answered by then; below the publishers' timeout of 2s"`
	AckTimeout    time.Duration `yaml:"ack_timeout" doc:"a batch that the journal has not acknowledged by then is sent again"`
	GiveUp        time.Duration `yaml:"give_up" doc:"and given up by then; below idempotency_window"`

	RingBytes   config.Bytes  `yaml:"ring_bytes" doc:"memory for history and cached values; the quietest channels are forgotten first"`
	HistoryWait time.Duration `yaml:"history_wait" doc:"how long a history request waits for a position that is still on its way"`

	Drain time.Duration `yaml:"drain" doc:"how long stopping waits for publications that are queued"`
}

// DefaultConfig suits one node.
func DefaultConfig() Config {
	return Config{
		Partitions: 4, Replicas: 1,
		LogBytes: 512 << 20, IngestBytes: 128 << 20, IngestAge: 24 * time.Hour,
		IdempotencyWindow: 2 * time.Minute,
		QueuePublications: 64 << 10, QueueBytes: 32 << 20,
		AcceptTimeout: 1800 * time.Millisecond, AckTimeout: 2 * time.Second, GiveUp: 25 * time.Second,
		RingBytes: 256 << 20, HistoryWait: 1500 * time.Millisecond,
		Drain: 3 * time.Second,
	}
}

// Validate reports what can't work.
func (c Config) Validate() error {
	if c.Partitions < 1 || c.Partitions > cluster.PartitionsMax {
		return fmt.Errorf("partitions is %d, want 1 to %d", c.Partitions, cluster.PartitionsMax)
	}
	if c.Replicas < 1 || c.Replicas > 5 {
		return fmt.Errorf("replicas is %d, want 1 to 5 (3 in a cluster)", c.Replicas)
	}
	for _, f := range []struct {
		name  string
		value int64
	}{
		{"log_bytes", int64(c.LogBytes)},
		{"ingest_bytes", int64(c.IngestBytes)},
		{"queue_publications", int64(c.QueuePublications)},
		{"queue_bytes", int64(c.QueueBytes)},
		{"ring_bytes", int64(c.RingBytes)},
		{"ingest_age", int64(c.IngestAge)},
		{"accept_timeout", int64(c.AcceptTimeout)},
		{"ack_timeout", int64(c.AckTimeout)},
		{"history_wait", int64(c.HistoryWait)},
	} {
		if f.value <= 0 {
			return fmt.Errorf("%s is %d, want more than 0", f.name, f.value)
		}
	}
	if c.GiveUp < c.AckTimeout {
		return fmt.Errorf("give_up is %s, want at least ack_timeout (%s)", c.GiveUp, c.AckTimeout)
	}
	if c.IdempotencyWindow <= c.GiveUp {
		return fmt.Errorf("idempotency_window is %s, want more than give_up (%s): a retry after it would store a batch twice",
			c.IdempotencyWindow, c.GiveUp)
	}
	if c.Drain < 0 {
		return fmt.Errorf("drain is %s, want 0 or more", c.Drain)
	}
	return nil
}
