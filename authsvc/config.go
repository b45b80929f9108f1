package authsvc

import (
	"fmt"
	"runtime"
)

// Config holds the settings of the authorization service.
type Config struct {
	Workers int `yaml:"workers" doc:"decisions made at a time; 0 is twice the number of cores"`
	Queue   int `yaml:"queue" doc:"requests that may wait for a worker; more are dropped, and their senders get no answer in time"`
}

// DefaultConfig has a queue that the workers empty in well under a tenth of
// the shortest deadline that clients have.
func DefaultConfig() Config { return Config{Queue: 4096} }

// Validate reports sizes that make no sense.
func (c Config) Validate() error {
	if c.Workers < 0 || c.Workers > 1024 {
		return fmt.Errorf("workers is %d, want 0 (twice the cores) to 1024", c.Workers)
	}
	if c.Queue < 1 || c.Queue > 1<<20 {
		return fmt.Errorf("queue is %d, want 1 to %d", c.Queue, 1<<20)
	}
	return nil
}

func (c Config) workers() int {
	if c.Workers > 0 {
		return c.Workers
	}
	return 2 * runtime.GOMAXPROCS(0)
}
