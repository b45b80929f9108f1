package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/standalone"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// carillon runs a command line without any environment.
func carillon(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = Main(t.Context(), args, nil, strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

func TestCommands(t *testing.T) {
	file := filepath.Join(t.TempDir(), "two.yaml")
	two := "apps:\n  - {id: \"1\", keys: [{key: k1, secret: s1}]}\n  - {id: \"2\", keys: [{key: old, secret: x, disabled: true}, {key: k2, secret: s2}]}\n"
	if err := os.WriteFile(file, []byte(two), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		args []string
		code int
		want string // in stdout when the code is 0, else in stderr
	}{
		{"help", []string{"--help"}, 0, "serve"},
		{"nothing", nil, 0, "serve"},
		{"unknown command", []string{"sevre"}, 2, "sevre"},
		{"version", []string{"version"}, 0, "carillon "},
		{"check", []string{"config", "check", "--dev"}, 0, "router, presence, authsvc, api, gateway on an embedded NATS server"},
		{"check finds a mistake", []string{"config", "check", "--dev", "--set", "ops.lisen=:1"}, 2, "ops.lisen: unknown key, did you mean ops.listen?"},
		{"print hides secrets", []string{"config", "print", "--dev"}, 0, "(redacted)"},
		{"schema", []string{"config", "schema"}, 0, `"$schema"`},
		{"reference", []string{"config", "reference"}, 0, "`CARILLON_GATEWAY_LISTEN`"},
		{"serve with a mistake", []string{"serve"}, 2, "there are none"},
		{"serve without its file", []string{"serve", "-c", "/nowhere.yaml"}, 2, "/nowhere.yaml"},
		{
			"sign a private channel as documented",
			[]string{"sign", "channel", "1234.1234", "private-foobar", "--key", "278d425bdf160c739803", "--secret", "7ad3773142a6692b25b8"},
			0, `{"auth":"278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"}`,
		},
		{
			"sign a presence channel as documented",
			[]string{"sign", "channel", "1234.1234", "presence-foobar", "--data", `{"user_id":10,"user_info":{"name":"Mr. Channels"}}`, "--key", "278d425bdf160c739803", "--secret", "7ad3773142a6692b25b8"},
			0, `31935e7d86dba64c2a90aed31fdc61869f9b22ba9d8863bba239c03ca481bc80`,
		},
		{
			"sign a user as documented",
			[]string{"sign", "user", "1234.1234", `{"id":"12345"}`, "--key", "278d425bdf160c739803", "--secret", "7ad3773142a6692b25b8"},
			0, `4708d583dada6a56435fb8bc611c77c359a31eebde13337c16ab43aa6de336ba`,
		},
		{"sign with the app's first key in use", []string{"sign", "channel", "1.2", "private-a", "-c", file, "--app", "2"}, 0, `{"auth":"k2:`},
		{"sign with which app", []string{"sign", "channel", "1.2", "private-a", "-c", file}, 2, "--app: 1, 2"},
		{"sign with an unknown app", []string{"sign", "channel", "1.2", "private-a", "--app", "7"}, 2, "there is no app 7, only 1001"},
		{"sign for no socket", []string{"sign", "channel", "12", "private-a"}, 2, "digits.digits"},
		{"sign for a bad channel", []string{"sign", "channel", "1.2", "private a"}, 2, "channel name holds"},
		{"sign a user that is not JSON", []string{"sign", "user", "1.2", "ada"}, 2, "not JSON"},
		{"sign an encrypted channel", []string{"sign", "channel", "1.2", "private-encrypted-a", "--master-key", "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}, 0, `"shared_secret":"`},
		{"sign with a short master key", []string{"sign", "channel", "1.2", "private-encrypted-a", "--master-key", "MDEy"}, 2, "32 bytes"},
		{"sign a request", []string{"sign", "request", "get", "/apps/1001/channels", "--query", "info=a,b"}, 0, "curl 'http://127.0.0.1:6001/apps/1001/channels?auth_key=carillon-dev-key&"},
		{"sign a request with a query in its path", []string{"sign", "request", "GET", "/apps?x=1"}, 2, "--query"},
		{"a cluster of two", []string{"cluster", "--nodes", "2"}, 2, "want 3 to 9"},
		{"key without secret", []string{"publish", "1", "c", "e", "d", "--key", "k"}, 2, "go together"},
		{"publish to an encrypted channel", []string{"publish", "1001", "private-encrypted-a", "e", "d"}, 2, "--master-key"},
		{"publish to nobody", []string{"publish", "1001", "c", "e", "d", "--url", "http://127.0.0.1:1"}, 1, "call the API"},
		{"drain of nobody", []string{"drain", "--url", "http://127.0.0.1:1"}, 1, "no answer from the node"},
		{"health of nobody", []string{"health", "--url", "http://127.0.0.1:1"}, 1, "no answer from the node"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, stdout, stderr := carillon(t, c.args...)
			got := stdout
			if c.code != 0 {
				got = stderr
			}
			if code != c.code || !strings.Contains(got, c.want) {
				t.Errorf("code %d, want %d with %q\nstdout: %s\nstderr: %s", code, c.code, c.want, stdout, stderr)
			}
		})
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	if _, out, _ := carillon(t, "config", "print", "--dev"); strings.Contains(out, "carillon-dev-secret") {
		t.Error("config print shows a secret")
	}
}

func TestConfigFileFromEnvironment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(file, []byte("nonsense: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, errs bytes.Buffer
	code := Main(t.Context(), []string{"config", "check"}, []string{"CARILLON_CONFIG=" + file}, strings.NewReader(""), &out, &errs)
	if code != ExitUsage || !strings.Contains(errs.String(), file+":1: nonsense") {
		t.Errorf("code %d: %s", code, errs.String())
	}
}

// The reference in docs/ is the one that the binary prints.
func TestReferenceIsCurrent(t *testing.T) {
	for file, command := range map[string]string{"configuration.md": "reference", "carillon.schema.json": "schema"} {
		_, want, _ := carillon(t, "config", command)
		got, err := os.ReadFile("../../../docs/" + file)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != want {
			t.Errorf("docs/%s is not current: run make config-docs", file)
		}
	}
}

// A whole life: serve, be healthy, publish, stop.
func TestServe(t *testing.T) {
	addresses := filepath.Join(t.TempDir(), "addresses.json")
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs bytes.Buffer
	done := make(chan int, 1)
	go func() {
		done <- Main(ctx, []string{
			"serve", "--dev", "--addresses-file", addresses, "--set", "gateway.listen=127.0.0.1:0", "--set", "ops.listen=127.0.0.1:0",
			"--set", "gateway.drain.propagation=100ms", "--set", "gateway.drain.window=0s",
		}, nil, strings.NewReader(""), &out, &errs)
	}()
	stop := sync.OnceValue(func() int {
		cancel()
		return <-done
	})
	defer stop()
	at := awaitAddresses(t, addresses)
	awaitHealth(t, at.Ops)
	if code, stdout, stderr := carillon(t, "publish", "1001", "news", "greeting", "{}", "--url", "http://"+at.Public); code != 0 || stdout != "{}\n" {
		t.Errorf("publish: code %d, %s%s", code, stdout, stderr)
	}
	if code, _, stderr := carillon(t, "publish", "1001", "news", "greeting", "{}", "--url", "http://"+at.Public, "--key", "x", "--secret", "y"); code != 1 || !strings.Contains(stderr, "401") {
		t.Errorf("publish with a wrong key: code %d, %s", code, stderr)
	}
	drainNode(t, at.Ops)
	if code := stop(); code != 0 {
		t.Errorf("serve ended with %d: %s", code, errs.String())
	}
	for _, want := range []string{"http://" + at.Public + "/", "carillon publish --url", "curl -H"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the welcome lacks %q:\n%s", want, out.String())
		}
	}
}

// drainNode wants the drain to outlast those who do not wait for it.
func drainNode(t *testing.T, ops string) {
	t.Helper()
	if code, _, stderr := carillon(t, "drain", "--url", "http://"+ops, "--timeout", "1ms"); code != ExitFailure || !strings.Contains(stderr, "has not drained within 1ms") {
		t.Errorf("an impatient drain: code %d, %s", code, stderr)
	}
	for range 2 { // the second finds it done
		if code, stdout, stderr := carillon(t, "drain", "--url", "http://"+ops); code != ExitOK || stdout != "drained\n" {
			t.Errorf("drain: code %d, %s%s", code, stdout, stderr)
		}
	}
	http.DefaultClient.CloseIdleConnections()
}

func awaitAddresses(t *testing.T, file string) (at standalone.Addresses) {
	t.Helper()
	await.True(t, "the addresses file", func() bool {
		raw, err := os.ReadFile(file)
		return err == nil && json.Unmarshal(raw, &at) == nil
	})
	return at
}

func awaitHealth(t *testing.T, ops string) {
	t.Helper()
	await.True(t, "readiness", func() bool {
		code, _, _ := carillon(t, "health", "--url", "http://"+ops)
		return code == ExitOK
	})
	http.DefaultClient.CloseIdleConnections()
}
