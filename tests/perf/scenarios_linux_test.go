package perf

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/tests/env"
)

// TestScenarios runs `carillon bench` as a user does, small and short, with
// every scenario and every way to publish.
func TestScenarios(t *testing.T) {
	const token = "the secret of tokens"
	node := env.Start(t, env.Set("embedded.listen=127.0.0.1:0"), env.Set(fmt.Sprintf("apps=[{id: %q, keys: [{key: %q, secret: %q}], "+
		"policies: [{match: durable-*, history: {size: 10, ttl: 1m}}], "+
		"centrifugo: {enabled: true, anonymous: true, token: {hmac_secret: %q}}}]", env.AppID, env.Key, env.Secret, token))).Gateways[0]
	for name, args := range map[string][]string{
		"connect":            {"connect", "-n", "200"},
		"two processes":      {"fanout", "-n", "40", "--workers", "2", "--window", "4"},
		"idle":               {"idle", "-n", "50", "--ping", "50ms"},
		"fanout over HTTP":   {"fanout", "-n", "50", "--window", "8"},
		"fanout at a rate":   {"fanout", "-n", "50", "--rate", "50"},
		"batches":            {"fanout", "-n", "50", "--via", "batch"},
		"fanout over NATS":   {"fanout", "-n", "50", "--via", "nats", "--window", "16", "--batch", "4"},
		"as the api service": {"channels", "-n", "50", "--via", "router", "--window", "16", "--shared", "2", "--mix", "0.1"},
		"durable":            {"channels", "-n", "20", "--via", "router", "--prefix", "durable-", "--window", "16"},
		"spread":             {"channels", "-n", "50", "--spread", "5"},
		"churn":              {"churn", "-n", "50", "--window", "5", "--prefix", "private-"},
		"presence":           {"presence", "-n", "40"},
		"storm":              {"storm", "-n", "300"},
		"slow":               {"slow", "-n", "40", "--rate", "100", "--size", "2000", "--slow", "0.1"},
		"publish":            {"publish", "--publishers", "4"},
		"centrifugo":         {"fanout", "-n", "50", "--dialect", "centrifugo", "--window", "8"},
		"protobuf":           {"channels", "-n", "50", "--dialect", "centrifugo-protobuf", "--own", "1", "--prefix", "private-", "--token", token},
		"centrifugo's churn": {"churn", "-n", "50", "--dialect", "centrifugo", "--window", "5", "--prefix", "private-", "--token", token},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "run.json")
			args := append([]string{"bench"}, args...)
			args = append(args, "--no-check", "--url", "ws://"+node.Public(), "--nats", node.NATS(), "--length", "300ms", "--warmup", "20ms",
				"--app", env.AppID, "--key", env.Key, "--secret", env.Secret, "--json", file)
			out, err := env.Command(t, nil, args...).CombinedOutput()
			if err != nil {
				t.Fatalf("carillon %s: %v\n%s", strings.Join(args, " "), err, out)
			}
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var report struct {
				Result struct {
					Figures []struct{ Name string }
					Counts  struct{ Joined, Refused int64 }
				}
			}
			if err := json.Unmarshal(raw, &report); err != nil {
				t.Fatal(err)
			}
			if r := report.Result; len(r.Figures) == 0 || r.Counts.Joined == 0 || r.Counts.Refused != 0 {
				t.Errorf("%+v\n%s", r, out)
			}
		})
	}
}

// TestLossIsAFailure: messages that do not arrive end the run with an error.
func TestLossIsAFailure(t *testing.T) {
	node := env.Start(t).Gateways[0]
	cmd := env.Command(t, nil, "bench", "fanout", "-n", "10", "--no-check", "--url", "ws://"+node.Public(), "--rate", "200", "--length", "200ms",
		"--size", "20000", "--within", "300ms")
	out, err := cmd.CombinedOutput()
	if err == nil || !strings.Contains(string(out), "not everything arrived") || !strings.Contains(string(out), "413") {
		t.Errorf("events that the API refuses as too large: %v\n%s", err, out)
	}
}
