package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/carillon-rt/carillon/kit/run"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/standalone"
	"github.com/carillon-rt/carillon/standalone/internal/apicall"
)

type serveCommand struct {
	configFlags
	AddressesFile string `placeholder:"FILE" help:"Write where the node listens to this file, as JSON, once it does."`
}

// Run runs a node until SIGTERM or SIGINT.
func (c serveCommand) Run(ctx context.Context, s surroundings) error {
	cfg, err := c.load(s)
	if err != nil {
		return err
	}
	ctx, stop := run.Signals(ctx)
	defer stop()
	return standalone.New(cfg, standalone.Options{Started: func(at standalone.Addresses) error {
		if cfg.Dev.Page {
			welcome(s.stdout, cfg, at)
		}
		return c.writeAddresses(at)
	}}).Run(ctx)
}

// writeAddresses writes the file in one step, so that who waits for it never reads half of it.
func (c serveCommand) writeAddresses(at standalone.Addresses) error {
	if c.AddressesFile == "" {
		return nil
	}
	content, err := json.Marshal(at)
	if err != nil {
		return fmt.Errorf("write addresses: %w", err)
	}
	part := c.AddressesFile + ".part"
	if err := os.WriteFile(part, append(content, '\n'), 0o644); err != nil {
		return fmt.Errorf("write addresses: %w", err)
	}
	if err := os.Rename(part, c.AddressesFile); err != nil {
		return fmt.Errorf("write addresses: %w", err)
	}
	return nil
}

// welcome says where everything is, and how to see a first event.
func welcome(w io.Writer, cfg standalone.Config, at standalone.Addresses) {
	a, base := cfg.Apps[0], "http://"+at.Public
	cred := apicall.Credentials{App: a.ID, Key: a.Keys[0].Key, Secret: a.Keys[0].Secret}
	call, err := apicall.Trigger(a.ID, apicall.Event{Name: "greeting", Data: `{"text":"hello"}`, Channels: []string{"news"}})
	if err != nil {
		fmt.Fprintln(w, err)
		return
	}
	url := ""
	if at.Public != defaultPublic {
		url = " --url " + base
	}
	fmt.Fprintf(w, `
  Carillon %s

  demo page   %s/
  clients     ws://%s/app/%s
  HTTP API    %s/apps/%s/...
  health      http://%s/readyz, metrics at /metrics
  app         id %s, key %s, secret %s

  Open the demo page, subscribe to the public channel "news", then publish to it:

    carillon publish%s %s news greeting '{"text":"hello"}'

  or, with a signature that is good for ten minutes:

    %s

`, service.Version(), base, at.Public, cred.Key, base, a.ID, at.Ops, a.ID, cred.Key, cred.Secret, url, a.ID, call.Curl(base, cred, time.Now()))
}

// defaultPublic is where the commands look for the API unless told otherwise.
const defaultPublic = "127.0.0.1:" + standalone.PublicPort
