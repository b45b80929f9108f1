package edge

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	codec "github.com/carillon-rt/carillon/gateway/internal/dialect/centrifugo"
	"github.com/carillon-rt/carillon/gateway/internal/dialect/pusher"
	"github.com/carillon-rt/carillon/proto/app"
	"github.com/carillon-rt/carillon/proto/authz"
	"github.com/carillon-rt/carillon/proto/control"
)

// witness remembers what it is told of clients.
type witness struct {
	mu sync.Mutex
	// guarded by mu
	told []string
}

// Tell implements Events.
func (w *witness) Tell(id string, ev Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if age := time.Since(time.UnixMilli(ev.AtMs)); id != "1" || age < 0 || age > patience {
		w.told = append(w.told, fmt.Sprintf("an event of app %s, %s old", id, age))
	}
	text := fmt.Sprintf("%s %s", ev.SocketID, ev.Kind)
	for _, more := range []string{ev.User, ev.Channel} {
		if more != "" {
			text += " " + more
		}
	}
	if ev.Kind != app.ClientConnected {
		text += fmt.Sprintf(" %d %q", ev.Code, ev.Reason)
	}
	w.told = append(w.told, text)
}

// expect waits for what is told next, in any order.
func (w *witness) expect(f *fixture, want ...string) {
	f.Helper()
	f.until("events", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.told) >= len(want)
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.told[:len(want)]
	w.told = w.told[len(want):]
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		f.Fatalf("told %q, want %q", got, want)
	}
}

// witnessed starts an edge whose app wants to know these events.
func witnessed(t *testing.T, events ...string) (*fixture, *witness) {
	t.Helper()
	w, a := &witness{}, &answers{}
	f := startWith(t, func(cfg *Config) {
		cfg.Answers, cfg.History, cfg.Events = a, a, w
		cfg.Protocols = []Protocol{Pusher(pusher.New("")), Centrifugo(codec.New(codec.JSON))}
	}, func(settings *app.App) {
		settings.Centrifugo = app.Centrifugo{Enabled: true}
		settings.Webhooks = []app.Webhook{{URL: "http://x", Events: events}}
	})
	return f, w
}

// Each connection and each subscription that a client knows of is told to have
// ended once, with what the client saw of it.
func TestEventsOfClients(t *testing.T) {
	f, w := witnessed(t, app.ClientConnected, app.ClientDisconnected, app.ClientUnsubscribed)
	goodbye := func(c *wsClient) {
		if err := wsutil.WriteClientMessage(c.conn, ws.OpClose, ws.NewCloseFrameBody(1000, "bye")); err != nil {
			t.Fatal(err)
		}
	}

	c := f.dial()
	w.expect(f, c.id+" connected")
	c.subscribe("a")
	c.subscribe("b")
	c.send(`{"event":"pusher:subscribe","data":{"channel":"private-x"}}`) // refused
	c.expect("pusher:error")
	c.send(`{"event":"pusher:unsubscribe","data":{"channel":"a"}}`)
	w.expect(f, c.id+` unsubscribed a 0 ""`)
	goodbye(c)
	w.expect(f, c.id+` unsubscribed b 0 ""`, c.id+` disconnected 0 ""`)

	c = f.dial()
	w.expect(f, c.id+" connected")
	c.subscribe("a")
	_ = c.conn.Close()
	w.expect(f, c.id+` unsubscribed a 1006 "connection lost"`, c.id+` disconnected 1006 "connection lost"`)

	c = f.dial()
	w.expect(f, c.id+" connected")
	for range 11 {
		c.send(`nonsense`)
	}
	c.expectClose(1002)
	w.expect(f, c.id+` disconnected 1002 "Not a message of the protocol: a JSON object with an event is expected"`)

	d := f.client("42:own")
	w.expect(f, d.id+" connected 42")
	d.join("news")
	d.send(`{"id":3,"unsubscribe":{"channel":"news"}}`)
	w.expect(f, d.id+` unsubscribed 42 news 0 ""`)
	d.send(`{"id":4,"subscribe":{"channel":"news"}}`)
	d.expect(`{"id":3,`)
	d.expect(`{"id":4,`)
	operate := func(op control.Operation) {
		op.User = "42"
		f.edge.Control(control.Command{App: "1", Operation: &op})
	}
	operate(control.Operation{Unsubscribe: "news"})
	w.expect(f, d.id+` unsubscribed 42 news 2000 "server unsubscribe"`)
	operate(control.Operation{Disconnect: &authz.Verdict{Code: 4501, Text: "enough"}})
	w.expect(f, d.id+` unsubscribed 42 own 4501 "enough"`, d.id+` disconnected 42 4501 "enough"`)

	// Who never was connected is not told to have gone.
	e := f.raw("/connection/websocket")
	e.send(`{"id":1,"rpc":{}}`)
	e.expectClose(3501)
	f.raw("/app/none?protocol=7").expectClose(4001)
	f.until("all gone", func() bool { s := f.edge.Stats(); return s.Opened == s.Closed })
	w.expect(f)
	if len(w.told) > 0 {
		t.Errorf("told %q besides", w.told)
	}
}

// What an app does not list it is not told.
func TestEventsThatNobodyListed(t *testing.T) {
	f, w := witnessed(t, app.ClientDisconnected)
	c := f.dial()
	c.subscribe("a")
	c.send(`{"event":"pusher:unsubscribe","data":{"channel":"a"}}`)
	c.subscribe("b")
	_ = c.conn.Close()
	w.expect(f, c.id+` disconnected 1006 "connection lost"`)

	f, w = witnessed(t)
	c = f.dial()
	c.subscribe("a")
	_ = c.conn.Close()
	f.until("gone", func() bool { return f.edge.Stats().Closed == 1 })
	if len(w.told) > 0 {
		t.Errorf("told %q", w.told)
	}
}
