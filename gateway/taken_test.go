package gateway

import (
	"net"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/app"
)

// A gateway that can't have its port leaves nothing behind.
func TestTakenPort(t *testing.T) {
	deps := natstest.Server(t).Deps(t, "gw", Role)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	apps, err := app.NewRegistry([]app.App{{ID: "1", Keys: []app.Key{{Key: "k"}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Run("New", func(t *testing.T) {
		leaktest.Check(t)
		cfg := testConfig()
		cfg.Listen = taken.Addr().String()
		if _, err := New(cfg, deps, apps, Options{}); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Fatalf("New with a taken port: %v", err)
		}
	})
}
