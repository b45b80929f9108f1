package perf

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/tests/env"
	"github.com/carillon-rt/carillon/tests/load/fleet"
	"github.com/carillon-rt/carillon/tests/load/gauge"
	"github.com/carillon-rt/carillon/tests/load/publish"
	"github.com/carillon-rt/carillon/tests/load/scenario"
)

const (
	idleConnections = 5000
	// goroutineGrowthMax is for what comes and goes by itself, such as the
	// request that asks for the number.
	goroutineGrowthMax = 20
	// rssPerConnectionMax is well above the budget of 2 KB: garbage that was
	// not collected yet may be as much as what is alive.
	rssPerConnectionMax = 6 << 10

	within = 60 * time.Second
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestIdleConnectionsCostMemoryOnly(t *testing.T) {
	node := env.Start(t).Gateways[0]
	goroutines, rss := usage(t, node)
	r, after := publishToIdle(t, node)
	goroutinesAfter, rssAfter := after.goroutines, after.rss
	each := (rssAfter - rss) / idleConnections
	t.Logf("%d idle connections: %d goroutines more, %d bytes of memory each", idleConnections, goroutinesAfter-goroutines, each)
	if goroutinesAfter-goroutines >= goroutineGrowthMax {
		t.Errorf("goroutines grew from %d to %d", goroutines, goroutinesAfter)
	}
	if each > rssPerConnectionMax {
		t.Errorf("a connection takes %d bytes, want %d at most", each, rssPerConnectionMax)
	}
	if !r.Clean() || r.Tally.Delivered == 0 || r.Tally.Delivered%idleConnections != 0 {
		t.Errorf("what was published did not come to all, once: %+v", r.Tally)
	}
}

// held is what a node used while connections were there.
type held struct {
	goroutines int
	rss        int64
}

// publishToIdle makes the connections, looks at the node, and then publishes
// one message after the other, as soon as everybody has the one before.
func publishToIdle(t *testing.T, node *env.Node) (*scenario.Result, held) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	plan := fleet.Plan{Addrs: []string{node.Public()}, Dialect: "pusher", Key: env.Key, Connections: idleConnections, Shared: 1}
	f, err := fleet.New(plan)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := f.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	for deadline := time.Now().Add(within); !f.Connected(); {
		if err := f.Poll(100 * time.Millisecond); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) || f.Err() != nil {
			t.Fatalf("%d connections are there, %v", f.Live(), f.Err())
		}
	}
	goroutines, rss := usage(t, node)
	app := publish.App{Addr: node.API(), ID: env.AppID, Key: env.Key, Secret: env.Secret}
	p, err := publish.NewHTTP(app, publish.Message{Name: plan.Name, Bytes: 64}, 1, 0, f.Now)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	r, err := scenario.Run(context.Background(), scenario.Setup{
		Kind: scenario.Fanout, Plan: plan, Window: 1, Length: 100 * time.Millisecond, Within: within,
	}, f, p)
	if err != nil {
		t.Fatal(err)
	}
	return r, held{goroutines, rss}
}

func usage(t *testing.T, node *env.Node) (goroutines int, rss int64) {
	t.Helper()
	goroutines, err := gauge.Goroutines(t.Context(), node.Ops())
	if err != nil {
		t.Fatal(err)
	}
	if rss, err = gauge.ReadRSS(node.PID()); err != nil {
		t.Fatal(err)
	}
	return goroutines, rss
}
