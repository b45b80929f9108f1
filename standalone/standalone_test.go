package standalone_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/config"
	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/kit/loopback"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/standalone"
	"github.com/carillon-rt/carillon/standalone/internal/apicall"
)

func TestMain(m *testing.M) { leaktest.Main(m) }

// start runs a node with these settings (key=value) on top of the development ones, on free ports, and returns when it is
// ready. stop ends it and fails the test if it did not end well.
func start(t *testing.T, settings ...string) (at standalone.Addresses, stop func()) {
	t.Helper()
	cfg := standalone.DefaultDevConfig()
	set := append([]string{
		"ops.listen=127.0.0.1:0", "gateway.listen=127.0.0.1:0", "embedded.dir=" + t.TempDir(), "dev.temporary_data=false",
	}, settings...)
	if err := standalone.Load(config.Source{Set: set}, &cfg); err != nil {
		t.Fatalf("configuration: %v", err)
	}
	started, done := make(chan standalone.Addresses, 1), make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	node := standalone.New(cfg, standalone.Options{Log: natstest.Logger(t), Started: func(at standalone.Addresses) error {
		started <- at
		return nil
	}})
	go func() { done <- node.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	select {
	case at = <-started:
	case err := <-done:
		done <- nil
		t.Fatalf("did not start: %v", err)
	case <-time.After(patience):
		t.Fatal("did not start in time")
	}
	awaitReady(t, at.Ops)
	return at, stop
}

func awaitReady(t *testing.T, ops string) {
	t.Helper()
	await.Success(t, "readiness", func() error {
		res, err := http.Get("http://" + ops + "/readyz?verbose")
		if err != nil {
			t.Fatalf("ops port: %v", err)
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusOK {
			return fmt.Errorf("%s: %s", res.Status, body)
		}
		return nil
	})
}

func TestEventReachesSubscribers(t *testing.T) {
	at, _ := start(t, `apps=[{id: "1001", keys: [{key: carillon-dev-key, secret: carillon-dev-secret}], client_events: true, policies: [{match: "durable-*", history: {size: 10, ttl: 1m}}]}]`)
	one, two := dial(t, at.Public), dial(t, at.Public)
	for _, channel := range []string{"public", "private-a", "durable-a", "cache-b"} {
		t.Run(channel, func(t *testing.T) {
			one.subscribe(channel, "")
			two.subscribe(channel, "")
			if strings.HasPrefix(channel, "cache-") {
				one.expect("pusher:cache_miss")
				two.expect("pusher:cache_miss")
			}
			data := `{"text":"<b>ö</b>", "n": 1.0}`
			publish(t, at.Public, apicall.Event{Name: "greeting", Data: data, Channels: []string{channel}})
			for _, c := range []*client{one, two} {
				if got := c.expect("greeting"); got.Channel != channel || got.text() != data {
					t.Errorf("got %s on %s, want %s", got.text(), got.Channel, data)
				}
			}
		})
	}
	t.Run("the publisher's own connection is left out", func(t *testing.T) {
		publish(t, at.Public, apicall.Event{Name: "first", Data: "1", Channels: []string{"public"}, SocketID: one.socketID})
		publish(t, at.Public, apicall.Event{Name: "second", Data: "2", Channels: []string{"public"}})
		one.expect("second")
		two.expect("first")
	})
}

func TestPresence(t *testing.T) {
	at, _ := start(t)
	ada := dial(t, at.Public)
	answer := ada.subscribe("presence-room", `{"user_id":"ada","user_info":{"name":"Ada"}}`)
	if !strings.Contains(answer.text(), `"ada"`) {
		t.Errorf("roster %s", answer.text())
	}
	bela := dial(t, at.Public)
	bela.subscribe("presence-room", `{"user_id":"bela"}`)
	if got := ada.expect("pusher_internal:member_added").text(); !strings.Contains(got, `"bela"`) {
		t.Errorf("member_added %s", got)
	}
	bela.conn.Close()
	if got := ada.expect("pusher_internal:member_removed").text(); !strings.Contains(got, `"bela"`) {
		t.Errorf("member_removed %s", got)
	}
}

func TestWrongSignatureIsRefused(t *testing.T) {
	at, _ := start(t)
	c := dial(t, at.Public)
	c.send("pusher:subscribe", map[string]string{"channel": "private-a", "auth": cred.Key + ":" + strings.Repeat("0", 64)})
	c.expect("pusher:error")
	if got := c.expect("pusher:subscription_error"); got.Channel != "private-a" {
		t.Errorf("refusal is about %q", got.Channel)
	}
	call, err := apicall.Trigger(cred.App, apicall.Event{Name: "e", Data: "d", Channels: []string{"c"}})
	if err != nil {
		t.Fatal(err)
	}
	wrong := cred
	wrong.Secret = "wrong"
	if status, body, err := call.Do(t.Context(), "http://"+at.Public, wrong); err != nil || status != http.StatusUnauthorized {
		t.Errorf("got %d %s %v, want 401", status, body, err)
	}
}

// What was acknowledged on a durable channel is there after a restart.
func TestRestartKeepsCachedValue(t *testing.T) {
	dir := "embedded.dir=" + t.TempDir()
	at, stop := start(t, dir)
	publish(t, at.Public, apicall.Event{Name: "price", Data: "42", Channels: []string{"cache-prices"}})
	stop()
	at, _ = start(t, dir)
	c := dial(t, at.Public)
	c.subscribe("cache-prices", "")
	if got := c.expect("price").text(); got != "42" {
		t.Errorf("cached value %s, want 42", got)
	}
}

// A password of the embedded server is for others: the node itself knows it.
func TestEmbeddedPassword(t *testing.T) {
	at, _ := start(t, "embedded.listen=127.0.0.1:0", "embedded.user=nats", "embedded.password=pw")
	c := dial(t, at.Public)
	c.subscribe("news", "")
	publish(t, at.Public, apicall.Event{Name: "greeting", Data: "hello", Channels: []string{"news"}})
	if got := c.expect("greeting").text(); got != "hello" {
		t.Errorf("got %s, want hello", got)
	}
}

func TestTemporaryDataIsRemoved(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	_, stop := start(t, "dev.temporary_data=true")
	if dirs, _ := filepath.Glob(os.TempDir() + "/carillon-*"); len(dirs) != 1 {
		t.Fatalf("directories while it runs: %v, want one", dirs)
	}
	stop()
	if dirs, _ := filepath.Glob(os.TempDir() + "/carillon-*"); len(dirs) != 0 {
		t.Errorf("left behind: %v", dirs)
	}
}

// Two nodes with different roles on a shared NATS server are one installation.
func TestRolesApart(t *testing.T) {
	shared := "nats.urls=" + natstest.Server(t).URL()
	seed := loopback.Addr(t)
	backAt, _ := start(t, shared, "dev.page=false", "node.name=back", "cluster.listen="+seed, "roles=router,presence,authsvc,api", "api.listen=127.0.0.1:0")
	if backAt.Public != "" || backAt.API == "" || backAt.NATS != "" {
		t.Errorf("the back listens at %+v, want only an API port", backAt)
	}
	frontAt, _ := start(t, shared, "dev.page=false", "node.name=front", "cluster.listen=127.0.0.1:0", "cluster.seeds="+seed, "roles=gateway")
	if frontAt.API != "" || frontAt.Public == "" {
		t.Errorf("the front listens at %+v, want only a public port", frontAt)
	}
	c := dial(t, frontAt.Public)
	c.subscribe("private-a", "")
	publish(t, backAt.API, apicall.Event{Name: "greeting", Data: "hello", Channels: []string{"private-a"}})
	if got := c.expect("greeting").text(); got != "hello" {
		t.Errorf("got %s, want hello", got)
	}
}

func TestDemoPage(t *testing.T) {
	get := func(t *testing.T, settings ...string) int {
		at, _ := start(t, settings...)
		res, err := http.Get("http://" + at.Public + "/")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		return res.StatusCode
	}
	t.Run("in dev mode", func(t *testing.T) {
		if got := get(t); got != http.StatusOK {
			t.Errorf("GET / is %d, want 200", got)
		}
	})
	t.Run("not otherwise", func(t *testing.T) {
		if got := get(t, "dev.page=false"); got != http.StatusNotFound {
			t.Errorf("GET / is %d, want 404", got)
		}
	})
}

// A port that is taken is an error that names it, and leaves nothing behind.
func TestFailedStart(t *testing.T) {
	leaktest.Check(t)
	at, _ := start(t)
	cfg := standalone.DefaultDevConfig()
	src := config.Source{Set: []string{"ops.listen=" + at.Ops, "gateway.listen=127.0.0.1:0"}}
	if err := standalone.Load(src, &cfg); err != nil {
		t.Fatal(err)
	}
	err := standalone.New(cfg, standalone.Options{Log: natstest.Logger(t)}).Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), at.Ops) {
		t.Errorf("got %v, want an error that names %s", err, at.Ops)
	}
}
