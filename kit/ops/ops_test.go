package ops_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/carillon-rt/carillon/kit/ops"
	"github.com/carillon-rt/carillon/kit/telemetry"
)

func start(t *testing.T) *ops.Server {
	t.Helper()
	s, err := ops.New(ops.Config{Listen: "127.0.0.1:0", Pprof: true}, telemetry.NewMetrics())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func get(t *testing.T, s *ops.Server, path string) (int, string) {
	t.Helper()
	resp, err := http.Get("http://" + s.Addr() + path)
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

func expect(t *testing.T, s *ops.Server, path string, code int, parts ...string) {
	t.Helper()
	got, body := get(t, s, path)
	if got != code {
		t.Errorf("%s: %d, want %d: %s", path, got, code, body)
	}
	for _, part := range parts {
		if !strings.Contains(body, part) {
			t.Errorf("%s answers %q, want %q in it", path, body, part)
		}
	}
}

func TestHealth(t *testing.T) {
	s := start(t)
	var broken atomic.Bool
	s.SetStarting(true)
	s.Ready("nats", func() error {
		if broken.Load() {
			return errors.New("connection is reconnecting")
		}
		return nil
	})
	expect(t, s, "/livez", 200, "ok")
	expect(t, s, "/healthz", 200, "ok")
	expect(t, s, "/readyz", 503, "[-] starting: still starting", "[+] nats ok")
	expect(t, s, "/startupz", 503)

	s.SetStarting(false)
	broken.Store(true)
	expect(t, s, "/startupz", 503, "[-] nats: connection is reconnecting")
	broken.Store(false)
	expect(t, s, "/readyz", 200, "ok")
	expect(t, s, "/readyz?verbose", 200, "[+] nats ok\nok")

	broken.Store(true)
	expect(t, s, "/readyz", 503, "[-] nats: connection is reconnecting")
	expect(t, s, "/startupz", 200)
	expect(t, s, "/livez", 200)
	broken.Store(false)

	s.SetDraining(true)
	expect(t, s, "/readyz", 503, "[-] draining: draining")
	expect(t, s, "/livez", 200)
	s.SetDraining(false)
	expect(t, s, "/readyz", 200)

	s.Live("loop", func() error { return errors.New("stands still") })
	expect(t, s, "/livez?verbose", 503, "[-] loop: stands still")
}

func TestPages(t *testing.T) {
	s := start(t)
	page := func(text string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, text) })
	}
	s.Handle("/debug/loops", page("first"))
	s.Handle("/debug/loops", page("loops"))
	s.Handle("/debug/conn/", page("one connection"))
	expect(t, s, "/debug/loops", 200, "loops")
	expect(t, s, "/debug/conn/17/queue", 200, "one connection")
	expect(t, s, "/debug/", 200, `href="/debug/loops"`, `href="/debug/conn/"`, `href="/debug/pprof/"`)
	expect(t, s, "/", 200, "/metrics")
	expect(t, s, "/debug/loopz", 404, "no such page")
	expect(t, s, "/debug/pprof/", 200, "goroutine")
	expect(t, s, "/debug/pprof/goroutine?debug=1", 200, "goroutine profile")
	expect(t, s, "/metrics", 200, "go_goroutines", "process_open_fds", "go_build_info")
}

func TestAddressTaken(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if _, err := ops.New(ops.Config{Listen: ln.Addr().String()}, nil); err == nil {
		t.Error("a taken port was bound")
	}
	if err := (ops.Config{Listen: "7080"}).Validate(); err == nil {
		t.Error("an address without a colon was taken")
	}
}

func TestCloseUnused(t *testing.T) {
	s, err := ops.New(ops.Config{Listen: "127.0.0.1:0"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
