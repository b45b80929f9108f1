package authsvc

import (
	"fmt"
	"runtime"

	"github.com/carillon-rt/carillon/authsvc/internal/decide"
	"github.com/carillon-rt/carillon/kit/config"
	"github.com/carillon-rt/carillon/proto/app"
)

// Config holds the settings of the authorization service.
type Config struct {
	Workers int `yaml:"workers" doc:"decisions made at a time; 0 is twice the number of cores"`
	Queue   int `yaml:"queue" doc:"requests that may wait for a worker; more are dropped, and their senders get no answer in time"`
	Waiting int `yaml:"waiting" doc:"decisions that may wait for hooks and key sets at a time; more are answered with can't tell now"`
}

// DefaultConfig has a queue that the workers empty in well under a tenth of
// the shortest deadline that clients have.
func DefaultConfig() Config { return Config{Queue: 4096, Waiting: 16384} }

// Validate reports sizes that make no sense.
func (c Config) Validate() error {
	if c.Workers < 0 || c.Workers > 1024 {
		return fmt.Errorf("workers is %d, want 0 (twice the cores) to 1024", c.Workers)
	}
	if c.Queue < 1 || c.Queue > 1<<20 {
		return fmt.Errorf("queue is %d, want 1 to %d", c.Queue, 1<<20)
	}
	if c.Waiting < 1 || c.Waiting > 1<<20 {
		return fmt.Errorf("waiting is %d, want 1 to %d", c.Waiting, 1<<20)
	}
	return nil
}

// CheckApp says what of an app's settings the service could not use: keys of
// tokens that can't be read and conditions that do not compile. at is the
// app's place in the configuration, in which each error has its own.
func CheckApp(at string, a app.App) []error {
	var errs []error
	for _, m := range decide.Check(&a) {
		place := at
		if m.Policy >= 0 {
			place += fmt.Sprintf(".policies[%d]", m.Policy)
		}
		errs = append(errs, config.FieldErrorf(place+"."+m.Field, "%w", m.Err))
	}
	return errs
}

func (c Config) workers() int {
	if c.Workers > 0 {
		return c.Workers
	}
	return 2 * runtime.GOMAXPROCS(0)
}
