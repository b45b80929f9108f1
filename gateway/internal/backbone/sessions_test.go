package backbone

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/natsconn"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/exchange"
	"github.com/carillon-rt/carillon/proto/subject"
)

// meeting is one gateway's side: its host answers polls when told to.
type meeting struct {
	*Sessions
	nc    *nats.Conn
	polls chan func(exchange.Reply)

	mu sync.Mutex
	// guarded by mu
	bodies []string
}

// Exchange implements Host.
func (m *meeting) Exchange(req *exchange.Request, answer func(exchange.Reply)) {
	switch req.Op {
	case exchange.Find:
		answer(exchange.Reply{Status: 200})
	case exchange.Send:
		m.mu.Lock()
		m.bodies = append(m.bodies, req.Name+req.ID+": "+string(req.Body))
		m.mu.Unlock()
		answer(exchange.Reply{Status: 204})
	default:
		m.polls <- answer
	}
}

func meet(t *testing.T, url, node string) *meeting {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	ask, err := natsconn.NewRequester(nc, 100)
	if err != nil {
		t.Fatal(err)
	}
	m := &meeting{Sessions: NewSessions(nc, node, ask, slog.New(slog.DiscardHandler), nil), nc: nc, polls: make(chan func(exchange.Reply), 8)}
	ctx, stop := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = ask.Run(ctx) })
	running.Go(func() {
		if err := m.Run(ctx, m); err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(func() { stop(); running.Wait(); nc.Close() })
	return m
}

func (m *meeting) claim(t *testing.T, name string) error {
	t.Helper()
	done := make(chan error, 1)
	m.Claim(name, func(err error) { done <- err })
	select {
	case err := <-done:
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("a claim is not answered")
		return nil
	}
}

// asking sends a request and returns where the answer comes.
func (m *meeting) asking(node string, req exchange.Request) chan exchange.Reply {
	done := make(chan exchange.Reply, 1)
	m.Ask(node, &req, func(rep exchange.Reply) { done <- rep })
	return done
}

func TestSessionsAreFound(t *testing.T) {
	url := natstest.Server(t).URL()
	a, b := meet(t, url, "node-a"), meet(t, url, "node-b")
	if rep := <-b.asking("", exchange.Request{Op: exchange.Send, Name: "x"}); rep.Status != 404 {
		t.Errorf("a session that nobody has: %+v", rep)
	}
	if err := a.claim(t, "x"); err != nil {
		t.Fatal(err)
	}
	if err := b.claim(t, "x"); !errors.Is(err, exchange.ErrElsewhere) {
		t.Errorf("the second claim: %v", err)
	}
	if rep := <-b.asking("", exchange.Request{Op: exchange.Send, Name: "x", Body: []byte("[]")}); rep.Status != 204 {
		t.Errorf("%+v", rep)
	}
	await.True(t, "node-a serves its own", func() bool {
		return (<-b.asking("node-a", exchange.Request{Op: exchange.Send, ID: "y", Body: []byte("1")})).Status == 204
	})
	a.mu.Lock()
	if got := strings.Join(a.bodies, ", "); got != "x: [], y: 1" {
		t.Errorf("the host got %s", got)
	}
	a.mu.Unlock()

	poll := b.asking("", exchange.Request{Op: exchange.Poll, Name: "x", Wait: 10 * time.Second})
	(<-a.polls)(exchange.Reply{Status: 200, Body: []byte("late")})
	if rep := <-poll; rep.Status != 200 || string(rep.Body) != "late" {
		t.Errorf("%+v", rep)
	}
	poll = b.asking("", exchange.Request{Op: exchange.Poll, Name: "x", Wait: 10 * time.Second})
	(<-a.polls)(exchange.Reply{Status: 200, Body: make([]byte, a.nc.MaxPayload())})
	if rep := <-poll; rep.Status != 503 {
		t.Errorf("an answer that is too large became %d", rep.Status)
	}
	if got := testutil.ToFloat64(a.metrics.dropped); got != 1 {
		t.Errorf("%v answers were dropped", got)
	}

	a.Release("x")
	await.True(t, "the name is free", func() bool { return b.claim(t, "x") == nil })
	b.Release("y") // of which it knows nothing
}

func TestSessionsOfNobody(t *testing.T) {
	url := natstest.Server(t).URL()
	a := meet(t, url, "node-a")
	for _, node := range []string{"node-b", "", "*", ">", "a b", "a..b", ".a", "a.", "a\r\nb"} {
		if rep := <-a.asking(node, exchange.Request{Op: exchange.Send, ID: "y"}); rep.Status != 404 {
			t.Errorf("node %q: %+v", node, rep)
		}
	}
	await.True(t, "the node is there, but its host does not answer", func() bool {
		return (<-a.asking("node-a", exchange.Request{Op: 99, ID: "y", Wait: time.Millisecond})).Status == 503
	})
	msg, err := a.nc.Request(subject.GatewaySession("node-a"), []byte("nonsense"), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if rep, err := exchange.ParseReply(msg.Data); err != nil || rep.Status != 400 {
		t.Errorf("%+v, %v", rep, err)
	}
}
