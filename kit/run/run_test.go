package run_test

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/run"
)

// journal records what happened in which order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(line string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.lines = append(j.lines, line)
}

func (j *journal) waits(name string) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		j.add(name)
		return ctx.Err()
	}
}

func TestStopsInReverse(t *testing.T) {
	var j journal
	var g run.Group
	for _, name := range []string{"ops", "nats", "hub"} {
		g.Add(name, j.waits(name))
	}
	ctx, cancel := context.WithCancel(t.Context())
	g.Add("last", func(ctx context.Context) error {
		cancel()
		return j.waits("last")(ctx)
	})
	if err := g.Run(ctx); err != nil {
		t.Error(err)
	}
	if want := []string{"last", "hub", "nats", "ops"}; !slices.Equal(j.lines, want) {
		t.Errorf("stopped %v, want %v", j.lines, want)
	}
}

func TestFirstExitStopsAll(t *testing.T) {
	boom := errors.New("boom")
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"with an error", boom, "broken: boom"},
		{"well", nil, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var j journal
			var g run.Group
			g.Add("a", j.waits("a"))
			g.Add("broken", func(context.Context) error { return tt.err })
			g.Add("b", j.waits("b"))
			err := g.Run(t.Context())
			if got := errText(err); got != tt.want || tt.err != nil && !errors.Is(err, tt.err) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if want := []string{"b", "a"}; !slices.Equal(j.lines, want) {
				t.Errorf("stopped %v, want %v", j.lines, want)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestGraceIsEachParts(t *testing.T) {
	var j journal
	release := make(chan struct{})
	released := make(chan struct{})
	g := run.Group{Grace: time.Minute}
	g.Add("below", j.waits("below"))
	g.AddGrace("stuck", 10*time.Millisecond, func(context.Context) error {
		defer close(released)
		<-release
		return nil
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := g.Run(ctx)
	if !errors.Is(err, run.ErrGrace) || !strings.HasPrefix(err.Error(), "stuck: ") {
		t.Errorf("got %v, want stuck: ErrGrace", err)
	}
	if !slices.Equal(j.lines, []string{"below"}) {
		t.Errorf("the part below was not stopped: %v", j.lines)
	}
	close(release)
	<-released
}

func TestErrorsOfAll(t *testing.T) {
	var g run.Group
	for _, name := range []string{"a", "b"} {
		g.Add(name, func(ctx context.Context) error {
			<-ctx.Done()
			return errors.New("no flush")
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := g.Run(ctx); errText(err) != "b: no flush\na: no flush" {
		t.Errorf("got %q", errText(err))
	}
}

func TestContextValuesReachParts(t *testing.T) {
	type key struct{}
	var g run.Group
	g.Add("a", func(ctx context.Context) error {
		if ctx.Value(key{}) != "v" {
			return errors.New("no value")
		}
		return nil
	})
	if err := g.Run(context.WithValue(t.Context(), key{}, "v")); err != nil {
		t.Error(err)
	}
}

func TestEmptyGroup(t *testing.T) {
	if err := new(run.Group).Run(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestSignals(t *testing.T) {
	ctx, stop := run.Signals(t.Context())
	defer stop()
	if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ctx.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("SIGTERM does not end the context")
	}
}
