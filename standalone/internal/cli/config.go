package cli

import (
	"fmt"
	"strings"

	"github.com/carillon-rt/carillon/kit/config"
	"github.com/carillon-rt/carillon/standalone"
)

type configCommand struct {
	Check     checkCommand     `cmd:"" help:"Say what is wrong with the configuration; exit code 2 when something is."`
	Print     printCommand     `cmd:"" help:"Print the effective configuration as YAML, without secrets."`
	Schema    schemaCommand    `cmd:"" help:"Print the JSON schema of configuration files."`
	Reference referenceCommand `cmd:"" help:"Print the reference of all keys as markdown."`
}

type checkCommand struct{ configFlags }

// Run loads the configuration and says what a node would run with it.
func (c checkCommand) Run(s surroundings) error {
	cfg, err := c.load(s)
	if err != nil {
		return err
	}
	nats := "an embedded NATS server in " + cfg.Embedded.Dir
	if len(cfg.NATS.URLs) > 0 {
		nats = "NATS at " + strings.Join(cfg.NATS.URLs, ", ")
	}
	fmt.Fprintf(s.stdout, "the configuration is fine: %s on %s; apps: %d\n",
		strings.Join(cfg.Roles.Names(), ", "), nats, len(cfg.Apps))
	return nil
}

type printCommand struct{ configFlags }

// Run prints what a node would use.
func (c printCommand) Run(s surroundings) error {
	cfg, err := c.load(s)
	if err != nil {
		return err
	}
	return config.Print(s.stdout, cfg)
}

type schemaCommand struct{}

// Run prints the schema.
func (schemaCommand) Run(s surroundings) error {
	schema, err := config.Schema(standalone.DefaultConfig())
	if err != nil {
		return err
	}
	_, err = s.stdout.Write(schema)
	return err
}

type referenceCommand struct{}

const referenceHead = `# Configuration

*Written by ` + "`make config-docs`" + ` from the code; edit the doc tags there.*

A node takes its configuration from, the later the stronger: the defaults below, a YAML file (` + "`--config FILE`" + ` or
` + "`CARILLON_CONFIG`" + `), environment variables, ` + "`--set key=value`" + `. A key that does not exist is an error. Durations are written as
` + "`250ms`, `5s`, `1h`" + `, sizes as ` + "`64KiB`, `10MB`" + `. In variables, lists may be written with commas and lists of sections as inline YAML, for
instance ` + "`CARILLON_APPS='[{id: \"1001\", keys: [{key: k, secret: s}]}]'`" + `. A secret can stand in a file: ` + "`secret_file`" + ` instead of ` + "`secret`" + `.

With ` + "`nats.urls`" + ` empty a node carries its own NATS server (` + "`embedded`" + `), and with ` + "`roles`" + ` empty it runs every service: that is the
whole installation. ` + "`carillon config check`" + ` says what is wrong with a configuration, ` + "`carillon config print`" + ` what would be used, and
` + "`carillon config schema`" + ` prints a JSON schema for editors. ` + "`--dev`" + ` starts from other defaults: one app with a known secret, the demo
page, ports on 127.0.0.1 only, logs as text.

`

// Run prints the reference.
func (referenceCommand) Run(s surroundings) error {
	fmt.Fprint(s.stdout, referenceHead, config.Reference(standalone.DefaultConfig()))
	return nil
}
