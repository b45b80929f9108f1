package service

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/carillon-rt/carillon/kit/config"
	"github.com/carillon-rt/carillon/kit/run"
)

// Exit codes of Main.
const (
	ExitOK      = 0
	ExitFailure = 1 // it could not start, or ended with an error
	ExitUsage   = 2 // a mistake in flags or configuration
)

// siblings are the sections that the processes of one installation share a file with: each skips those that it does not have.
var siblings = []string{"api", "apps", "authsvc", "dev", "embedded", "gateway", "partitions", "presence", "roles", "router"}

// Main is the body of a service's main function: it reads --config FILE (or CARILLON_CONFIG) and --set PATH=VALUE, loads cfg (a pointer to a struct
// that holds defaults and inlines *common), opens Deps with name as the node's only role, builds and runs the service until SIGTERM or SIGINT, and
// returns the exit code. args are os.Args[1:]. Mistakes go to stderr, one a line, with exit code 2. --print-config shows what would be used.
func Main(name string, args []string, cfg any, common *Common, build func(Deps) (Runner, error)) int {
	return process{name: name, cfg: cfg, common: common, build: build, stdout: os.Stdout, stderr: os.Stderr, env: os.Environ()}.main(args)
}

// process is Main with its surroundings, so that tests can replace them.
type process struct {
	name   string
	cfg    any
	common *Common
	build  func(Deps) (Runner, error)
	stdout io.Writer
	stderr io.Writer
	env    []string
}

func (p process) main(args []string) int {
	flags, err := p.parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return ExitOK
	case err != nil:
		return ExitUsage
	}
	src := config.Source{File: flags.file, Env: p.env, Set: flags.set, Ignore: OtherSections(p.cfg)}
	if err := src.Load(p.cfg); err != nil {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintf(p.stderr, "%s: %s\n", p.name, line)
		}
		return ExitUsage
	}
	if flags.print {
		if err := config.Print(p.stdout, p.cfg); err != nil {
			fmt.Fprintf(p.stderr, "%s: %v\n", p.name, err)
			return ExitFailure
		}
		return ExitOK
	}
	ctx, stop := run.Signals(context.Background())
	defer stop()
	if err := p.serve(ctx); err != nil {
		fmt.Fprintf(p.stderr, "%s: %v\n", p.name, err)
		return ExitFailure
	}
	return ExitOK
}

type mainFlags struct {
	file  string
	set   []string
	print bool
}

func (p process) parse(args []string) (mainFlags, error) {
	var f mainFlags
	fs := flag.NewFlagSet(p.name, flag.ContinueOnError)
	fs.SetOutput(p.stderr)
	fs.StringVar(&f.file, "config", envValue(p.env, config.EnvPrefix+"CONFIG"), "configuration `file` (YAML)")
	fs.Func("set", "set one key, `path=value`; may be repeated", func(pair string) error {
		f.set = append(f.set, pair)
		return nil
	})
	fs.BoolVar(&f.print, "print-config", false, "print the effective configuration, secrets redacted, and exit")
	if err := fs.Parse(args); err != nil {
		return f, err
	}
	if fs.NArg() > 0 {
		err := fmt.Errorf("unexpected argument %q", fs.Arg(0))
		fmt.Fprintf(p.stderr, "%s: %v\n", p.name, err)
		return f, err
	}
	return f, nil
}

func envValue(env []string, name string) string {
	for _, pair := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(pair, name+"="); ok {
			return value
		}
	}
	return ""
}

// OtherSections returns the top-level sections that a file shared by all services may have and cfg has not, for config.Source.Ignore; "config"
// stands for the variable that names the file itself.
func OtherSections(cfg any) []string {
	own := config.Sections(reflect.TypeOf(cfg))
	others := []string{"config"}
	for _, s := range siblings {
		if !slices.Contains(own, s) {
			others = append(others, s)
		}
	}
	return others
}

func (p process) serve(ctx context.Context) error {
	deps, closeDeps, err := Open(ctx, *p.common, []string{p.name}, Options{Service: p.name})
	if err != nil {
		if ctx.Err() != nil {
			return nil // told to stop while starting
		}
		return fmt.Errorf("start: %w", err)
	}
	return errors.Join(p.runOn(ctx, deps), finish(ctx, closeDeps))
}

func (p process) runOn(ctx context.Context, deps Deps) error {
	deps.Ops.Handle("/debug/config", ConfigPage(p.cfg))
	runner, err := p.build(deps)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return Run(ctx, p.name, *p.common, deps, runner)
}

// Run runs a built service on deps until ctx ends, or somebody asks the ops port for a drain, and its grace is over at the latest. It turns
// readiness on before and off as soon as the end begins. After a drain that was asked for it leaves NATS and the cluster and waits for ctx: a
// process that ended by itself would be started again by whoever looks after it.
func Run(ctx context.Context, name string, cfg Common, deps Deps, runner Runner) error {
	runCtx, end := context.WithCancel(ctx)
	defer end()
	group := run.Group{Grace: cfg.Shutdown.Grace}
	group.Add(name, runner.Run)
	defer context.AfterFunc(runCtx, func() { deps.Ops.SetDraining(true) })()
	go func() {
		select {
		case <-deps.Ops.DrainAsked():
			deps.Log.Info("asked to drain")
			end()
		case <-runCtx.Done():
		}
	}()
	deps.Ops.SetStarting(false)
	deps.Log.Info("started", "version", Version(), "ops", deps.Ops.Addr())
	err := group.Run(runCtx)
	deps.Ops.SetDraining(true)
	deps.Log.Info("stopped", "err", err)
	if runCtx.Err() != nil && ctx.Err() == nil {
		return linger(ctx, deps, err)
	}
	deps.Ops.Drained(err)
	return err
}

// linger is what is left of a process that was drained: its ops port, until ctx ends. err is how the service stopped.
func linger(ctx context.Context, deps Deps, err error) error {
	leaveCtx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	err = errors.Join(err, deps.leave(leaveCtx))
	deps.Ops.Drained(err)
	deps.Log.Info("drained, waiting for the signal to end", "err", err)
	<-ctx.Done()
	return err
}

// finish stops what Open started, within a time of its own: ctx is over by now.
func finish(ctx context.Context, closeDeps func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	return closeDeps(ctx)
}
