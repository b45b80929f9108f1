package presence

import (
	"fmt"
	"runtime"
)

// Config holds the settings of a presence node.
type Config struct {
	// Partitions is the partition count of the cluster, if the assembler knows
	// it; with 0 it is read from the cluster's bucket.
	Partitions int `yaml:"-"`
	Workers    int `yaml:"workers" doc:"goroutines that share the shards; 0 is the number of cores, 8 at most"`
	Queue      int `yaml:"queue" doc:"messages that may wait for a worker; more are dropped, and their gateways send them again"`
	HookQueue  int `yaml:"hook_queue" doc:"webhook events that may wait for the stream; more are dropped and counted"`
	Replicas   int `yaml:"replicas" doc:"replicas of the webhook stream if this node is the first to need it"`
}

// DefaultConfig leaves the partitions to the cluster.
func DefaultConfig() Config { return Config{Queue: 8192, HookQueue: 16384, Replicas: 1} }

// Validate reports sizes that make no sense.
func (c Config) Validate() error {
	for _, n := range []struct {
		name     string
		value    int
		min, max int
	}{
		{"partitions", c.Partitions, 0, 1024},
		{"workers", c.Workers, 0, 64},
		{"queue", c.Queue, 1, 1 << 20},
		{"hook_queue", c.HookQueue, 1, 1 << 20},
		{"replicas", c.Replicas, 0, 5},
	} {
		if n.value < n.min || n.value > n.max {
			return fmt.Errorf("%s is %d, want %d to %d", n.name, n.value, n.min, n.max)
		}
	}
	return nil
}

func (c Config) workers() int {
	if c.Workers > 0 {
		return c.Workers
	}
	return min(runtime.GOMAXPROCS(0), 8)
}
