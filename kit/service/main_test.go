package service

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/kit/natsembed"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

type gatewayConfig struct {
	Common  `yaml:",inline"`
	Gateway struct {
		Listen string `yaml:"listen"`
	} `yaml:"gateway"`
}

// testProcess is the process of a service whose ports are free ones and whose NATS server is real.
func testProcess(t *testing.T, build func(Deps) (Runner, error)) (p process, stdout, stderr *bytes.Buffer) {
	t.Helper()
	cfg := &gatewayConfig{Common: DefaultCommon()}
	cfg.Ops.Listen, cfg.Cluster.Listen, cfg.Node.Name = "127.0.0.1:0", "127.0.0.1:0", "node-1"
	cfg.Log.Level = slog.LevelError
	stdout, stderr = new(bytes.Buffer), new(bytes.Buffer)
	return process{name: "gateway", cfg: cfg, common: &cfg.Common, build: build, stdout: stdout, stderr: stderr}, stdout, stderr
}

func startNATS(t *testing.T) string {
	t.Helper()
	cfg := natsembed.DefaultConfig()
	cfg.Dir, cfg.Listen = t.TempDir(), "127.0.0.1:0"
	srv, err := natsembed.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Shutdown() })
	return srv.ClientURL()
}

func get(t *testing.T, deps Deps, path string) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + deps.Ops.Addr() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestLife takes a service through its whole life: built on open dependencies, ready, told to stop by a signal, stopped before them.
func TestLife(t *testing.T) {
	url := startNATS(t)
	var deps Deps
	p, _, stderr := testProcess(t, func(d Deps) (Runner, error) {
		deps = d
		if code, body := get(t, d, "/readyz"); code != 503 || !strings.Contains(body, "starting") {
			t.Errorf("while building: %d %s", code, body)
		}
		return RunnerFunc(func(ctx context.Context) error {
			if err := d.NATS.Req.Publish("x", nil); err != nil {
				t.Error(err)
			}
			waitFor(t, func() bool { code, _ := get(t, d, "/readyz"); return code == 200 })
			if _, body := get(t, d, "/debug/cluster"); !strings.Contains(body, "* node-1\t") {
				t.Errorf("cluster page is %q", body)
			}
			if _, body := get(t, d, "/debug/config"); !strings.Contains(body, "password: (redacted)") {
				t.Errorf("config page is %q", body)
			}
			if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
				t.Error(err)
			}
			<-ctx.Done()
			waitFor(t, func() bool { code, _ := get(t, d, "/readyz"); return code == 503 })
			if err := d.NATS.Req.Flush(); err != nil {
				t.Errorf("NATS is gone before the service: %v", err)
			}
			return nil
		}), nil
	})
	p.env = []string{"CARILLON_NATS_URLS=" + url, "CARILLON_ROUTER_WHATEVER=1"}
	if code := p.main([]string{"--set", "gateway.listen=:1", "--set", "nats.user=me", "--set", "nats.password=hush"}); code != ExitOK {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	if cfg := p.cfg.(*gatewayConfig); cfg.Gateway.Listen != ":1" {
		t.Errorf("listen is %q", cfg.Gateway.Listen)
	}
	local := deps.Cluster.Local()
	if local.Node != "node-1" || !slices.Equal(local.Roles, []string{"gateway"}) || local.Incarnation == "" {
		t.Errorf("member is %+v", local)
	}
	if !deps.NATS.Live.IsClosed() || !deps.NATS.Req.IsClosed() {
		t.Error("NATS connections are left open")
	}
	if conn, err := net.Dial("tcp", deps.Ops.Addr()); err == nil {
		conn.Close()
		t.Error("the ops port is left open")
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Error("the condition did not come true in 20 s")
			return
		}
	}
}

func TestMistakes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yml")
	if err := os.WriteFile(file, []byte("gatway:\n  listen: x\nrouter: {anything: goes}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		args []string
		env  []string
		code int
		want string
	}{
		{"unknown key", []string{"--config", file}, nil, ExitUsage, "gateway: " + file + ":1: gatway: unknown key, did you mean gateway?\n"},
		{"file from the environment", nil, []string{"CARILLON_CONFIG=" + file}, ExitUsage, "gateway: " + file + ":1: gatway: unknown key, did you mean gateway?\n"},
		{"unknown variable", nil, []string{"CARILLON_NATS_URL=x"}, ExitUsage, "gateway: CARILLON_NATS_URL: unknown variable, did you mean CARILLON_NATS_URLS?\n"},
		{"value", []string{"--set", "ops.listen=7080"}, nil, ExitUsage, "gateway: ops: listen is \"7080\", want host:port or :port\n"},
		{"argument", []string{"serve"}, nil, ExitUsage, "gateway: unexpected argument \"serve\"\n"},
		{"flag", []string{"--cnfig", "x"}, nil, ExitUsage, "flag provided but not defined: -cnfig\n"},
		{"help", []string{"--help"}, nil, ExitOK, "Usage of gateway:\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, _, stderr := testProcess(t, func(Deps) (Runner, error) { panic("built in spite of a mistake") })
			p.env = tt.env
			if code := p.main(tt.args); code != tt.code {
				t.Errorf("exit code %d, want %d", code, tt.code)
			}
			if !strings.HasPrefix(stderr.String(), tt.want) {
				t.Errorf("stderr is %q, want %q", stderr, tt.want)
			}
		})
	}
}

func TestPrintConfig(t *testing.T) {
	p, stdout, _ := testProcess(t, nil)
	if code := p.main([]string{"--print-config", "--set", "nats.user=me", "--set", "nats.password=hush"}); code != ExitOK {
		t.Fatalf("exit code %d", code)
	}
	if out := stdout.String(); !strings.Contains(out, "password: (redacted)") || strings.Contains(out, "hush") {
		t.Errorf("printed\n%s", out)
	}
}

func TestStartFailures(t *testing.T) {
	url := startNATS(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	boom := func(Deps) (Runner, error) { return nil, errors.New("no port for clients") }
	fails := func(Deps) (Runner, error) {
		return RunnerFunc(func(context.Context) error { return errors.New("accept broke") }), nil
	}
	tests := []struct {
		name  string
		set   []string
		build func(Deps) (Runner, error)
		want  string
	}{
		{"build", nil, boom, "gateway: start: no port for clients\n"},
		{"run", nil, fails, "gateway: gateway: accept broke\n"},
		{"ops port", []string{"--set", "ops.listen=" + taken.Addr().String()}, boom, "gateway: start: bind ops port (ops.listen): "},
		{"gossip port", []string{"--set", "cluster.listen=" + taken.Addr().String()}, boom, "gateway: start: bind gossip port "},
		{"creds", []string{"--set", "nats.creds_file=/nonexistent/x"}, boom, "gateway: start: nats.creds_file: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, _, stderr := testProcess(t, tt.build)
			if code := p.main(append([]string{"--set", "nats.urls=" + url}, tt.set...)); code != ExitFailure {
				t.Errorf("exit code %d, want %d", code, ExitFailure)
			}
			if !strings.HasPrefix(stderr.String(), tt.want) {
				t.Errorf("stderr is %q, want %q", stderr, tt.want)
			}
		})
	}
}

// TestStopWhileConnecting is told to stop before NATS ever answered: a normal end.
func TestStopWhileConnecting(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	url := "nats://" + ln.Addr().String()
	ln.Close()
	p, _, _ := testProcess(t, func(Deps) (Runner, error) { panic("built without NATS") })
	p.common.NATS.URLs = []string{url}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if err := p.serve(ctx); err != nil {
		t.Error(err)
	}
}

// TestDrainOverOps is drained by request: the service stops and the node leaves, yet the process stays until it is told to end.
func TestDrainOverOps(t *testing.T) {
	url := startNATS(t)
	var deps Deps
	p, _, _ := testProcess(t, func(d Deps) (Runner, error) {
		deps = d
		return RunnerFunc(func(ctx context.Context) error {
			<-ctx.Done()
			return nil
		}), nil
	})
	p.common.NATS.URLs = []string{url}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	built := p.build
	ready := make(chan struct{})
	p.build = func(d Deps) (Runner, error) {
		defer close(ready)
		return built(d)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.serve(ctx) }()
	<-ready
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range 2 { // the second finds it done
		resp, err := client.Post("http://"+deps.Ops.Addr()+"/drain", "", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("the drain is answered %s", resp.Status)
		}
	}
	if !deps.NATS.Req.IsClosed() {
		t.Error("the node has not left NATS")
	}
	if code, body := get(t, deps, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "draining") {
		t.Errorf("a drained node is ready: %d %s", code, body)
	}
	if code, body := get(t, deps, "/livez"); code != http.StatusOK {
		t.Errorf("a drained node is to be restarted: %d %s", code, body)
	}
	select {
	case err := <-ended:
		t.Errorf("the process ended by itself: %v", err)
	default:
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
