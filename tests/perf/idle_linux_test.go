package perf

import (
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/leaktest"
	"github.com/carillon-rt/carillon/tests/env"
	"github.com/carillon-rt/carillon/tests/perf/client"
	"github.com/carillon-rt/carillon/tests/perf/gauge"
)

const (
	idleConnections = 5000
	// goroutineGrowthMax is for what comes and goes by itself, such as the
	// request that asks for the number.
	goroutineGrowthMax = 20
	// rssPerConnectionMax is twice the promise of 3 KB: garbage that was not
	// collected yet may be as much as what is alive.
	rssPerConnectionMax = 6 << 10

	within = 60 * time.Second
	mark   = '~'
)

func TestMain(m *testing.M) { leaktest.Main(m) }

func TestIdleConnectionsCostMemoryOnly(t *testing.T) {
	node := env.Start(t).Gateways[0]
	goroutines, rss := usage(t, node)
	fleet, err := client.New(client.Config{
		Addr: node.Public(), Key: env.Key, Connections: idleConnections, Mark: mark,
		Channels: func(int) []string { return []string{"news"} },
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := fleet.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	}()
	if err := fleet.Connect(within); err != nil {
		t.Fatal(err)
	}
	goroutinesAfter, rssAfter := usage(t, node)
	each := (rssAfter - rss) / idleConnections
	t.Logf("%d idle connections: %d goroutines more, %d bytes of memory each", idleConnections, goroutinesAfter-goroutines, each)
	if goroutinesAfter-goroutines >= goroutineGrowthMax {
		t.Errorf("goroutines grew from %d to %d", goroutines, goroutinesAfter)
	}
	if each > rssPerConnectionMax {
		t.Errorf("a connection takes %d bytes, want %d at most", each, rssPerConnectionMax)
	}
	publishOnce(t, fleet, node)
}

// publishOnce publishes once and sees that everybody gets it, once.
func publishOnce(t *testing.T, fleet *client.Fleet, node *env.Node) {
	t.Helper()
	app := client.App{Addr: node.API(), ID: env.AppID, Key: env.Key, Secret: env.Secret}
	p, err := client.NewHTTP(fleet, app, []byte(`{"name":"message","channel":"news","data":"~"}`), 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Publish(); err != nil {
		t.Fatal(err)
	}
	if err := fleet.Await(idleConnections, within); err != nil {
		t.Fatal(err)
	}
	for !p.Answered() {
		if err := fleet.Poll(within); err != nil {
			t.Fatal(err)
		}
	}
	// A second one follows the first on every connection: what came twice
	// would be seen here.
	if err := p.Publish(); err != nil {
		t.Fatal(err)
	}
	if err := fleet.Await(2*idleConnections, within); err != nil {
		t.Fatal(err)
	}
	if got := fleet.Messages(); got != 2*idleConnections {
		t.Errorf("%d messages arrived, want %d", got, 2*idleConnections)
	}
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
