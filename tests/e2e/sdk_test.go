// Package e2e runs the official SDKs of the protocols that Carillon speaks
// against it: once against one process, once against every service apart with
// two gateways.
package e2e

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/kit/loopback"
	"github.com/carillon-rt/carillon/tests/env"
)

// deployments are the ways in which all of it has to work the same.
var deployments = []struct {
	name    string
	options []env.Option
}{
	{"one process", nil},
	{"services apart, two gateways", []env.Option{env.Apart(2)}},
}

func TestSDKs(t *testing.T) {
	for _, d := range deployments {
		t.Run(d.name, func(t *testing.T) {
			hooks := loopback.Addr(t)
			c := env.Start(t, append(d.options, env.Webhook("http://"+hooks+"/"))...)
			vars := environment(t, c, hooks)
			scripts, err := filepath.Glob("../sdk/node/*.test.mjs")
			if err != nil || len(scripts) == 0 {
				t.Fatalf("no SDK tests found: %v", err)
			}
			for _, script := range scripts {
				t.Run(strings.TrimSuffix(filepath.Base(script), ".test.mjs"), func(t *testing.T) {
					run(t, "../sdk/node", vars, "node", "--test", "--test-force-exit", "--test-reporter=spec", filepath.Base(script))
				})
			}
			t.Run("python", func(t *testing.T) {
				run(t, "../sdk/python", vars, python(), "-W", "ignore", "-m", "pytest", "-q", "-p", "no:cacheprovider", "sdk_test.py")
			})
		})
	}
}

// run runs a command to its end and shows what it printed if it failed.
func run(t *testing.T, dir string, vars []string, name string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := script(t.Context(), &out, dir, vars, name, args...)
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out.String())
	}
	if ran := out.String(); !strings.Contains(ran, "pass ") && !strings.Contains(ran, "passed") {
		t.Fatalf("%s ran no test:\n%s", args[len(args)-1], ran)
	}
}

// script is a command that writes to out what it prints.
func script(ctx context.Context, out io.Writer, dir string, vars []string, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), vars...)
	cmd.Stdout, cmd.Stderr = out, out
	return cmd
}

func environment(t *testing.T, c *env.Cluster, hooks string) []string {
	return []string{
		"CARILLON_GATEWAYS=" + strings.Join(publics(c), ","), "CARILLON_BALANCER=" + env.NewBalancer(t, publics(c)...).Addr(),
		"CARILLON_API=" + c.API.API(),
		"CARILLON_APP_ID=" + env.AppID, "CARILLON_KEY=" + env.Key, "CARILLON_SECRET=" + env.Secret,
		"CARILLON_HOOKS=" + hooks, "CARILLON_PYTHON=" + python(), "PYTHONDONTWRITEBYTECODE=1",
	}
}

// publics are the gateways' addresses for clients.
func publics(c *env.Cluster) []string {
	all := make([]string, len(c.Gateways))
	for i, g := range c.Gateways {
		all[i] = g.Public()
	}
	return all
}

// python is the interpreter of the tests' virtual environment.
func python() string {
	if given := os.Getenv("CARILLON_PYTHON"); given != "" {
		return given
	}
	abs, err := filepath.Abs("../sdk/python/.venv/bin/python")
	if err != nil {
		return "python3"
	}
	return abs
}
