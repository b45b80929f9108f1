package badinput

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/tests/env"
)

// commandTimeout bounds a command that has to end by itself.
const commandTimeout = 20 * time.Second

// carillon runs a command line to its end.
func carillon(t *testing.T, vars []string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := env.Command(t, vars, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Dir = &out, &errs, t.TempDir()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), commandTimeout)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	if !stop() {
		t.Fatalf("carillon %s did not end:\n%s%s", strings.Join(args, " "), out.String(), errs.String())
	}
	var exited *exec.ExitError
	if err != nil && !errors.As(err, &exited) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// TestConfigDoor: every mistake ends the command with exit code 2 and one line
// that names the place, the key and what would be right.
func TestConfigDoor(t *testing.T) {
	const (
		anApp = "apps:\n  - {id: \"1\", keys: [{key: k, secret: s}]}\n"
		roles = "router, presence, authsvc, api, gateway"
	)
	for _, c := range []struct {
		name string
		file string // FILE stands for its name in want
		vars []string
		args []string
		want string
	}{
		{name: "misspelt section", file: anApp + "gatway: {}\n", want: "FILE:3: gatway: unknown key, did you mean gateway?"},
		{name: "misspelt key", file: anApp + "gateway:\n  lisen: \":1\"\n", want: "FILE:4: gateway.lisen: unknown key, did you mean listen?"},
		{name: "misspelt key of an app", file: "apps:\n  - id: \"1\"\n    keyz: []\n", want: "FILE:3: apps[0].keyz: unknown key, did you mean keys?"},
		{name: "section that is a number", file: anApp + "gateway: 5\n", want: `FILE:3: gateway: want a section with keys such as listen, path_prefix, loops, tls, got "5"`},
		{name: "number that is a word", file: anApp + "gateway: {loops: many}\n", want: `FILE:3: gateway.loops: want a whole number, got "many"`},
		{name: "boolean that is a word", file: anApp + "dev: {page: perhaps}\n", want: `FILE:3: dev.page: want true or false, got "perhaps"`},
		{name: "list that is a word", file: "apps: mine\n", want: `FILE:1: apps: want a list of section, got "mine"`},
		{name: "duration without a unit", file: anApp + "shutdown: {grace: 5}\n", want: `FILE:3: shutdown.grace: want a duration such as 5s, 250ms or 1h30m, got "5"`},
		{name: "size that is none", file: anApp + "gateway: {limits: {message_bytes: 10 potatoes}}\n", want: `FILE:3: gateway.limits.message_bytes: want a size such as 64KiB, 10MB or 4096, got "10 potatoes"`},
		{name: "value that is not in the list", file: anApp + "log: {format: xml}\n", want: `FILE:3: log.format: want one of json, text, got "xml"`},
		{name: "a key twice", file: anApp + "gateway: {loops: 1, loops: 2}\n", want: "FILE:3: gateway.loops: the key is there twice"},
		{name: "not YAML", file: "apps: [\n", want: "FILE: line 1: did not find expected node content"},
		{name: "two documents", file: anApp + "---\n" + anApp, want: "FILE: more than one YAML document, want one"},
		{name: "no file", args: []string{"-c", "/nowhere.yaml"}, want: "read configuration: open /nowhere.yaml: no such file or directory"},
		{name: "no apps", file: "gateway: {loops: 1}\n", want: `apps: there are none, so nobody could connect: add one, such as {id: "1001", keys: [{key: my-key, secret: my-secret}]}, or start with --dev`},
		{name: "app without id", file: "apps:\n  - {keys: [{key: k, secret: s}]}\n", want: `FILE:2: apps[0]: id is missing: give the app an id such as "1001"`},
		{name: "app without keys", file: "apps:\n  - {id: \"1\"}\n", want: "FILE:2: apps[0]: app 1 has no keys: add keys: [{key: ..., secret: ...}]"},
		{name: "app id with a dot", file: "apps:\n  - {id: \"a.b\", keys: [{key: k, secret: s}]}\n", want: `FILE:2: apps[0]: id "a.b" must not hold dots, spaces, slashes, * or >`},
		{name: "an app twice", file: anApp + "  - {id: \"1\", keys: [{key: l, secret: s}]}\n", want: "FILE:2: apps: app id 1 is listed twice"},
		{name: "a key twice in an app", file: "apps:\n  - {id: \"1\", keys: [{key: k, secret: s}, {key: k, secret: t}]}\n", want: `FILE:2: apps[0]: app 1 lists key "k" twice`},
		{name: "a key in two apps", file: anApp + "  - {id: \"2\", keys: [{key: k, secret: s}]}\n", want: `FILE:2: apps: key "k" belongs to app 1 and to app 2`},
		{name: "key without a secret", file: "apps:\n  - {id: \"1\", keys: [{key: k}]}\n", want: "apps[0].keys[0].secret: is empty: authsvc and api sign with it; give secret or secret_file"},
		{name: "secret in a file that is not there", file: "apps:\n  - {id: \"1\", keys: [{key: k, secret_file: /nowhere/secret}]}\n", want: "FILE:2: apps[0].keys[0].secret_file: open /nowhere/secret: no such file or directory"},
		{name: "secret and secret_file", file: "apps:\n  - {id: \"1\", keys: [{key: k, secret: s, secret_file: FILE}]}\n", want: "FILE:2: apps[0].keys[0].secret: secret and secret_file are both there, want one of them"},
		{name: "negative limit", file: "apps:\n  - {id: \"1\", keys: [{key: k, secret: s}], limits: {event_bytes: -1}}\n", want: "FILE:2: apps[0]: app 1: limits.event_bytes is -1, want more than 0, or 0 for the default"},
		{name: "negative timeout", file: "apps:\n  - {id: \"1\", keys: [{key: k, secret: s}], activity_timeout: -5s}\n", want: "FILE:2: apps[0]: app 1: activity_timeout is -5s, want more than 0s, or 0s for the default"},
		{name: "history without ttl", file: "apps:\n  - {id: \"1\", keys: [{key: k, secret: s}], policies: [{match: \"a*\", history: {size: 5}}]}\n", want: `FILE:2: apps[0]: app 1: policy "a*": history.size needs history.ttl, such as 5m`},
		{name: "webhook that is no URL", file: "apps:\n  - {id: \"1\", keys: [{key: k, secret: s}], webhooks: [{url: example.com}]}\n", want: `FILE:2: apps[0]: app 1: webhook url "example.com" must begin with nats:, http:// or https://`},
		{name: "hook without a url", file: "apps:\n  - {id: \"1\", keys: [{key: k, secret: s}], hooks: [{name: h}]}\n", want: "apps[0].hooks[0].url: is empty: authsvc asks there; give url, such as https://example.com/hooks, or url_file"},
		{name: "hook that is no URL", file: "apps:\n  - {id: \"1\", keys: [{key: k, secret: s}], hooks: [{name: h, url: example.com}]}\n", want: `FILE:2: apps[0]: app 1: hook "h": url has no host; want http://, https://, grpc:// or grpcs:// and a host, or nats: and a subject`},
		{name: "hook that is not there", file: "apps:\n  - {id: \"1\", keys: [{key: k, secret: s}], policies: [{match: a, subscribe_hook: h}]}\n", want: `FILE:2: apps[0]: app 1: policy "a": subscribe_hook: there is no hook "h": the app has none, add hooks: [{name: h, url: https://...}]`},
		{name: "hook for a cache that is none", file: "apps:\n  - {id: \"1\", keys: [{key: k, secret: s}], hooks: [{name: h, url: \"http://a\"}], policies: [{match: a, cache_empty_hook: h}]}\n", want: `FILE:2: apps[0]: app 1: policy "a": cache_empty_hook needs cache_ttl, such as 30m: without it channels have no last event`},
		{name: "condition that is none", file: "apps:\n  - {id: \"1\", keys: [{key: k, secret: s}], policies: [{match: a, subscribe_if: \"usr == 'x'\"}]}\n", want: `FILE:2: apps[0].policies[0].subscribe_if: column 1: undeclared reference to 'usr' (did you mean 'user'?)`},
		{name: "token key that is none", file: "apps:\n  - {id: \"1\", keys: [{key: k, secret: s}], centrifugo: {token: {public_keys: [x]}}}\n", want: `FILE:2: apps[0].centrifugo.token: public_keys[0]: is not PEM, want a block such as -----BEGIN PUBLIC KEY-----`},
		{name: "Centrifugo for nobody", file: "apps:\n  - {id: \"1\", keys: [{key: k, secret: s}], centrifugo: {enabled: true}}\n", want: "FILE:2: apps[0].centrifugo: nobody could connect: set token (hmac_secret, public_keys or jwks_url), connect_hook or anonymous: true"},
		{name: "empty API key", file: "apps:\n  - {id: \"1\", keys: [{key: k, secret: s}], centrifugo: {api_keys: [{name: a}]}}\n", want: "apps[0].centrifugo.api_keys[0].secret: is empty: anybody would have it; give secret or secret_file"},
		{name: "unknown webhook event", file: "apps:\n  - {id: \"1\", keys: [{key: k, secret: s}], webhooks: [{url: \"http://a\", events: [left]}]}\n", want: `FILE:2: apps[0]: app 1: webhook event "left" is unknown; known are channel_occupied, channel_vacated, member_added, member_removed, client_event, cache_miss, subscription_count, connected, disconnected, unsubscribed`},
		{name: "address without a port", file: anApp + "gateway: {listen: \"6001\"}\n", want: `FILE:3: gateway: listen is "6001", want host:port or :port`},
		{name: "queue of no events", file: anApp + "gateway: {hook_queue: 0}\n", want: "FILE:3: gateway: hook_queue is 0, want 1 to 1048576"},
		{name: "half of TLS", file: anApp + "gateway: {tls: {cert: a.pem}}\n", want: "FILE:3: gateway.tls: cert and key go together, only one of them is set"},
		{name: "unknown role", file: anApp, args: []string{"--roles", "gatway"}, want: `--set roles: roles: "gatway" is not a role, want some of ` + roles},
		{name: "unknown role in the file", file: anApp + "roles: [gatway]\n", want: `FILE:3: roles: "gatway" is not a role, want some of ` + roles},
		{name: "one role alone without NATS", file: anApp, args: []string{"--roles", "gateway", "--set", "cluster.listen=:0"}, want: "--set roles: roles: only gateway would run, and nobody else could reach this node's own NATS server: set nats.urls to a shared one, or embedded.listen"},
		{name: "unknown variable", file: anApp, vars: []string{"CARILLON_GATEWAY_LISTN=:1"}, want: "CARILLON_GATEWAY_LISTN: unknown variable, did you mean CARILLON_GATEWAY_LISTEN?"},
		{name: "variable of the wrong type", file: anApp, vars: []string{"CARILLON_GATEWAY_LOOPS=x"}, want: `CARILLON_GATEWAY_LOOPS: gateway.loops: want a whole number, got "x"`},
		{name: "unknown key in a flag", file: anApp, args: []string{"--set", "gateway.lisen=:1"}, want: "--set: gateway.lisen: unknown key, did you mean gateway.listen?"},
		{name: "flag without a value", file: anApp, args: []string{"--set", "gateway.listen"}, want: `--set: "gateway.listen" has no value, want path=value`},
		{name: "section in a flag", file: anApp, args: []string{"--set", "gateway=x"}, want: "--set: gateway: is a section, set a key in it such as gateway.listen"},
		{name: "unknown flag", file: anApp, args: []string{"--port", "1"}, want: "unknown flag --port; see carillon --help"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			args := c.args
			file := filepath.Join(t.TempDir(), "carillon.yaml")
			if c.file != "" {
				if err := os.WriteFile(file, []byte(strings.ReplaceAll(c.file, "FILE", file)), 0o600); err != nil {
					t.Fatal(err)
				}
				args = append([]string{"-c", file}, args...)
			}
			if !strings.Contains(c.file, "gateway:") { // should it start after all, then on no port that others use
				args = append(args, "--set", "gateway.listen=127.0.0.1:0")
			}
			args = append(args, "--set", "ops.listen=127.0.0.1:0")
			want := "carillon: " + strings.ReplaceAll(c.want, "FILE", file) + "\n"
			for _, command := range [][]string{{"config", "check"}, {"serve"}} {
				code, stdout, stderr := carillon(t, c.vars, append(command, args...)...)
				if code != 2 || stderr != want || stdout != "" {
					t.Errorf("%s: exit code %d, %q on stdout\ngot  %swant %s", command, code, stdout, stderr, want)
				}
			}
		})
	}
}

// TestPortInUse: a port that somebody else has is an error at once, which
// names the key that is to be changed.
func TestPortInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	addr := taken.Addr().String()
	for _, key := range []string{"ops.listen", "gateway.listen", "api.listen", "embedded.listen", "cluster.listen"} {
		t.Run(key, func(t *testing.T) {
			args := []string{"serve", "--dev", "--set", "ops.listen=127.0.0.1:0", "--set", "gateway.listen=127.0.0.1:0", "--set", key + "=" + addr}
			if key == "cluster.listen" { // only a node that is not alone gossips
				args = append(args, "--set", "embedded.listen=127.0.0.1:0", "--set", "dev.page=false", "--roles", "router,presence,authsvc,api")
			}
			code, _, stderr := carillon(t, nil, args...)
			var said []string
			for line := range strings.Lines(stderr) {
				if strings.HasPrefix(line, "carillon: ") {
					said = append(said, line)
				}
			}
			if code != 1 || len(said) != 1 || !strings.Contains(said[0], key) || !strings.Contains(said[0], addr) || !strings.Contains(said[0], "address already in use") {
				t.Errorf("exit code %d, said %q; want 1 and a line with %s, %s and that it is in use", code, said, key, addr)
			}
		})
	}
}
