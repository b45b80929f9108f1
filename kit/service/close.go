package service

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// closeTimeout bounds the stop of everything below the service.
const closeTimeout = 15 * time.Second

// closers are the stop functions of what was opened, in the order of opening.
type closers struct {
	stops []func(context.Context) error
}

func (c *closers) add(stop func(context.Context) error) { c.stops = append(c.stops, stop) }

// addRun starts run and adds the function that ends it and waits.
func (c *closers) addRun(run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	c.add(func(stopCtx context.Context) error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-stopCtx.Done():
			return fmt.Errorf("stop: %w", stopCtx.Err())
		}
	})
}

// close stops in reverse order, everything, whatever the errors. A second call does nothing.
func (c *closers) close(ctx context.Context) error {
	var errs []error
	for i := len(c.stops) - 1; i >= 0; i-- {
		if err := c.stops[i](ctx); err != nil {
			errs = append(errs, err)
		}
	}
	c.stops = nil
	return errors.Join(errs...)
}
