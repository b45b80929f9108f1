package webhook

import (
	"errors"
	"time"
)

// Config of webhook delivery.
type Config struct {
	Replicas int `yaml:"replicas" doc:"copies of the work queue and of the dead events in a NATS cluster; set on creation"`

	Timeout     time.Duration `yaml:"timeout" doc:"how long an endpoint may take to answer one request"`
	Window      time.Duration `yaml:"window" doc:"how long an event is tried again before it goes to the dead events"`
	BackoffMin  time.Duration `yaml:"backoff_min" doc:"wait after the first failure; it doubles with each one"`
	BackoffMax  time.Duration `yaml:"backoff_max" doc:"longest wait between two attempts of an event"`
	Concurrency int           `yaml:"concurrency" doc:"requests to one endpoint at a time, per api node"`
	BatchMax    int           `yaml:"batch_max" doc:"events in one request, for endpoints that take batches"`
	BatchWait   time.Duration `yaml:"batch_wait" doc:"how long the first event of a batch waits for others"`

	EndpointMax int           `yaml:"endpoint_max" doc:"events that wait for one endpoint, per api node; more go to the dead events at once"`
	PendingMax  int           `yaml:"pending_max" doc:"events taken from the queue and not done, in the cluster; more stay in the queue"`
	AckWait     time.Duration `yaml:"ack_wait" doc:"how long after a crash of an api node its events are given to another one"`
}

// DefaultConfig retries for five minutes, as hosted Pusher does.
func DefaultConfig() Config {
	return Config{
		Replicas: 1, Timeout: 5 * time.Second, Window: 5 * time.Minute, BackoffMin: time.Second, BackoffMax: time.Minute,
		Concurrency: 4, BatchMax: 50, BatchWait: 50 * time.Millisecond,
		EndpointMax: 10_000, PendingMax: 100_000, AckWait: 30 * time.Second,
	}
}

// Validate says what is wrong and what would be right.
func (c Config) Validate() error {
	if c.Replicas < 1 || c.Replicas > 5 {
		return errors.New("replicas must be 1 to 5")
	}
	if c.Timeout <= 0 || c.Window <= 0 || c.BackoffMin <= 0 || c.BackoffMax < c.BackoffMin || c.BatchWait < 0 {
		return errors.New("timeout, window and backoff_min must be more than 0, backoff_max at least backoff_min, batch_wait not negative")
	}
	if c.Concurrency < 1 || c.BatchMax < 1 || c.EndpointMax < 1 || c.PendingMax < 1 {
		return errors.New("concurrency, batch_max, endpoint_max and pending_max must be at least 1")
	}
	if c.AckWait < time.Second {
		return errors.New("ack_wait must be at least 1s")
	}
	return nil
}
