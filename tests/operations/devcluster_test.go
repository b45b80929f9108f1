package operations

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/carillon-rt/carillon/tests/client"
	"github.com/carillon-rt/carillon/tests/env"
)

// clusterNode is a node of `carillon cluster`, as it is printed.
var clusterNode = regexp.MustCompile(`(node-\d)  ws://(\S+)/app/.* health http://(\S+)/readyz .* pid (\d+)`)

// The cluster for developers: three nodes from one command, of which any may
// be killed and started again.
func TestDeveloperCluster(t *testing.T) {
	dir := t.TempDir()
	cmd := env.Command(t, nil, "cluster", "--free-ports", "--data", dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	printed := bufio.NewScanner(out)
	ended := false
	t.Cleanup(func() {
		if !ended {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			_, _ = io.Copy(io.Discard, out)
			_ = cmd.Wait()
		}
		if t.Failed() {
			logs, _ := filepath.Glob(filepath.Join(dir, "*.log"))
			for _, log := range logs {
				text, _ := os.ReadFile(log)
				t.Logf("%s:\n%s", log, text[max(0, len(text)-8<<10):])
			}
		}
	})
	reads := func(want string) string {
		t.Helper()
		for printed.Scan() {
			if strings.Contains(printed.Text(), want) {
				return printed.Text()
			}
		}
		t.Fatalf("ended before it printed %q: %v", want, printed.Err())
		return ""
	}
	types := func(line string) {
		t.Helper()
		if _, err := io.WriteString(in, line+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	public, ops := map[string]string{}, map[string]string{}
	for range 3 {
		m := clusterNode.FindStringSubmatch(reads("  ws://"))
		if m == nil {
			t.Fatal("a node is printed in another way")
		}
		public[m[1]], ops[m[1]] = m[2], m[3]
	}
	reads("^C stops them all")

	readers := []*client.Client{dialDev(t, public["node-1"]), dialDev(t, public["node-2"])}
	publish := func(through, data string) {
		t.Helper()
		calls := client.API{Base: "http://" + public[through], App: env.AppID, Key: env.Key, Secret: env.Secret, HTTP: noKeepAlive(t)}
		calls.MustPublish(t, client.Event{Name: "said", Data: data, Channels: []string{"durable-news"}, IdempotencyKey: data})
		for i, r := range readers {
			if f := r.Expect("said"); f.Text() != data {
				t.Errorf("reader %d got %s, want %s", i, f.Raw, data)
			}
		}
	}
	publish("node-3", "three nodes")
	types("kill 3")
	reads("node-3 is killed")
	for n := range 20 {
		publish("node-1", fmt.Sprint("two nodes ", n))
	}
	types("nonsense")
	reads("want kill or start")
	types("start node-3")
	reads("node-3: pid")
	eventually(t, "node-3 is ready again", func() bool { return answersReady(t, ops["node-3"]) })
	publish("node-3", "three again")
	for _, r := range readers {
		r.Close()
	}
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	ended = true
	_, _ = io.Copy(io.Discard, out)
	if err := cmd.Wait(); err != nil {
		t.Errorf("after ^C: %v", err)
	}
	for node, addr := range ops {
		if answersReady(t, addr) {
			t.Errorf("%s still runs", node)
		}
	}
}

func dialDev(t *testing.T, addr string) *client.Client {
	t.Helper()
	c := client.Dial(t, addr, env.Key, client.WithSecret(env.Secret))
	c.Subscribe("durable-news")
	return c
}

func noKeepAlive(t *testing.T) *http.Client {
	t.Helper()
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: client.Patience}
}

// answersReady says whether what listens at an ops port is ready.
func answersReady(t *testing.T, ops string) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), client.Patience)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+ops+"/readyz", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := noKeepAlive(t).Do(req)
	if err != nil {
		return false
	}
	res.Body.Close()
	return res.StatusCode == http.StatusOK
}
