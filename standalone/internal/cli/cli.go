// Package cli is the command line of the carillon binary: it reads flags, calls what they ask for, and turns mistakes into
// messages and exit codes. What a node is made of is not its business.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/carillon-rt/carillon/kit/config"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/standalone"
	"github.com/carillon-rt/carillon/tests/load"
)

// Exit codes.
const (
	ExitOK      = 0
	ExitFailure = 1 // it could not be done
	ExitUsage   = 2 // a mistake in flags or configuration
)

// commands is the grammar of the command line.
type commands struct {
	Serve   serveCommand   `cmd:"" help:"Run a node: all services in one process, or some of them."`
	Cluster clusterCommand `cmd:"" help:"Run a cluster of three nodes on this machine, to develop against."`
	Config  configCommand  `cmd:"" help:"Check and describe the configuration."`
	Health  healthCommand  `cmd:"" help:"Ask a running node whether it is ready; exit code 1 when it is not."`
	Drain   drainCommand   `cmd:"" help:"Have the node on this host let its clients go and stop its services; exit code 1 when that did not end well in time."`
	Publish publishCmd     `cmd:"" help:"Publish an event over the HTTP API."`
	Bench   load.Command   `cmd:"" help:"Load-test a server: this one, or any that speaks a protocol it knows."`
	Sign    signCommand    `cmd:"" help:"Make the signatures that an application's backend makes."`
	Version versionCmd     `cmd:"" help:"Print the version."`
}

// surroundings are what commands use of the process.
type surroundings struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	env            []string
}

// exit ends parsing after --help.
type exit int

// Main runs the command line args (os.Args[1:]) and returns the exit code.
func Main(ctx context.Context, args, env []string, stdin io.Reader, stdout, stderr io.Writer) (code int) {
	defer func() {
		switch e := recover().(type) {
		case nil:
		case exit:
			code = int(e)
		default:
			panic(e)
		}
	}()
	var grammar commands
	parser, err := kong.New(&grammar,
		kong.Name("carillon"), kong.Description("A broadcasting platform on NATS that speaks the Pusher protocol."),
		kong.Writers(stdout, stderr), kong.Exit(func(c int) { panic(exit(c)) }), kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.BindTo(ctx, (*context.Context)(nil)), kong.Bind(surroundings{stdin, stdout, stderr, env}, load.Streams{Out: stdout, Err: stderr}))
	if err != nil {
		return report(stderr, err)
	}
	if len(args) == 0 {
		args = []string{"--help"}
	}
	selected, err := parser.Parse(args)
	if err != nil {
		return report(stderr, usageError{fmt.Errorf("%w; see carillon --help", err)})
	}
	return report(stderr, selected.Run())
}

// usageError is a mistake of who typed the command or wrote the configuration.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// report prints err, one line for each mistake, and gives the exit code.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return ExitOK
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		fmt.Fprintf(stderr, "carillon: %s\n", line)
	}
	var usage usageError
	if errors.As(err, &usage) {
		return ExitUsage
	}
	return ExitFailure
}

// configFlags say where the configuration comes from.
type configFlags struct {
	Config string   `short:"c" placeholder:"FILE" help:"Configuration file (YAML); or in CARILLON_CONFIG."`
	Set    []string `sep:"none" placeholder:"KEY=VALUE" help:"Set one key, such as gateway.listen=:8080; may be repeated. Every key is also a variable, such as CARILLON_GATEWAY_LISTEN."`
	Roles  []string `placeholder:"ROLE,..." help:"Services to run: router, presence, authsvc, api, gateway. Default: all."`
	Dev    bool     `help:"Start from development settings: a known app, the demo page, this host only."`
}

// load reads the configuration; mistakes are usage errors.
func (f configFlags) load(s surroundings) (standalone.Config, error) {
	cfg := standalone.DefaultConfig()
	if f.Dev {
		cfg = standalone.DefaultDevConfig()
	}
	src := config.Source{File: f.Config, Env: s.env, Set: f.Set}
	if len(f.Roles) > 0 {
		src.Set = append(src.Set, "roles="+strings.Join(f.Roles, ","))
	}
	if src.File == "" {
		src.File = s.variable(standalone.ConfigVariable)
	}
	if err := standalone.Load(src, &cfg); err != nil {
		return cfg, usageError{err}
	}
	return cfg, nil
}

// variable gives the value of an environment variable, the last one if there are several.
func (s surroundings) variable(name string) (value string) {
	for _, pair := range s.env {
		if v, ok := strings.CutPrefix(pair, name+"="); ok {
			value = v
		}
	}
	return value
}

type versionCmd struct{}

// Run prints the version.
func (versionCmd) Run(s surroundings) error {
	fmt.Fprintln(s.stdout, "carillon", service.Version())
	return nil
}
