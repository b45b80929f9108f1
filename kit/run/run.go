// Package run starts the long-lived parts of a process in order and stops them in the reverse order. It knows only
// functions that block until their context ends.
package run

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"syscall"
	"time"
)

// DefaultGrace is how long a part may take to stop when neither the group nor the part says otherwise.
const DefaultGrace = 10 * time.Second

// ErrGrace marks a part that did not stop within its grace; its goroutine is left behind.
var ErrGrace = errors.New("did not stop in time")

// Group runs parts together: the first one to return, or the end of the context, stops all. The zero value is ready to use.
// A Group is used by one goroutine: Add everything, then Run once.
type Group struct {
	// Grace is the time that each part has to stop, one after another; 0 means DefaultGrace.
	Grace time.Duration

	parts []*part
}

type part struct {
	name  string
	grace time.Duration
	run   func(ctx context.Context) error

	cancel context.CancelFunc
	done   chan struct{} // closed when run has returned; err is readable then
	err    error
}

// Add appends a part. run blocks until its context ends and returns why it ended; nil and context.Canceled both mean that it
// ended well. A part that returns before it is told to ends the whole group.
func (g *Group) Add(name string, run func(ctx context.Context) error) { g.AddGrace(name, 0, run) }

// AddGrace is Add with a grace of its own for this part, for one that drains.
func (g *Group) AddGrace(name string, grace time.Duration, run func(ctx context.Context) error) {
	g.parts = append(g.parts, &part{name: name, grace: grace, run: run, done: make(chan struct{})})
}

// Run starts the parts in the order of Add and blocks until ctx ends or one of them returns; then it stops them one by one,
// the last added first, so that a part outlives all that were built on it. The result joins the errors of all
// parts, each with its part's name; nil when everything ended well.
func (g *Group) Run(ctx context.Context) error {
	if len(g.parts) == 0 {
		return nil
	}
	ended := make(chan struct{}, len(g.parts))
	for _, p := range g.parts {
		p.start(context.WithoutCancel(ctx), ended)
	}
	select {
	case <-ctx.Done():
	case <-ended:
	}
	var errs []error
	for i := len(g.parts) - 1; i >= 0; i-- {
		if err := g.parts[i].stop(g.Grace); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (p *part) start(ctx context.Context, ended chan<- struct{}) {
	ctx, p.cancel = context.WithCancel(ctx)
	go func() {
		defer func() { ended <- struct{}{} }()
		defer close(p.done)
		p.err = p.run(ctx)
	}()
}

func (p *part) stop(groupGrace time.Duration) error {
	p.cancel()
	grace := p.grace
	if grace <= 0 {
		grace = groupGrace
	}
	if grace <= 0 {
		grace = DefaultGrace
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-p.done:
	case <-timer.C:
		return fmt.Errorf("%s: %w (%s)", p.name, ErrGrace, grace)
	}
	if p.err == nil || errors.Is(p.err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("%s: %w", p.name, p.err)
}

// Signals returns a context that ends at the first SIGTERM or SIGINT. A second signal finds the default behaviour again and
// kills the process, for one that hangs while stopping. stop releases the signals.
func Signals(ctx context.Context) (sigCtx context.Context, stop context.CancelFunc) {
	sigCtx, stop = signal.NotifyContext(ctx, syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(sigCtx, stop)
	return sigCtx, stop
}
