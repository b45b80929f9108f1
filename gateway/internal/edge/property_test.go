package edge

import (
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/carillon-rt/carillon/proto/channel"
	"github.com/carillon-rt/carillon/proto/control"
)

// spell is one subscription of one client, from the request to its end.
type spell struct {
	tp   *topic
	from int // items that had been delivered when it was asked for

	// guarded by the client's mu
	open     bool // items may come
	answered bool
	snapshot int // items that the answer includes, -1 if it does not say
	must     int // items that had been delivered when the test saw the answer, -1 before
	ended    int // number of the ping sent after unsubscribe, 0 before
	got      []int
}

// modelClient is a client that keeps what it hears, by subscription.
type modelClient struct {
	*wsClient
	second bool
	user   string // "" until sign-in was sent

	mu   sync.Mutex
	cond *sync.Cond
	// guarded by mu
	spells []*spell
	faults []string
	pings  int
	pongs  int
	gone   bool
}

func (w *world) connect() *modelClient {
	c := w.connectAs(w.r.IntN(2) == 0)
	go c.readWith(func(_ []byte, m *heard) { c.hear(m) })
	return c
}

// connectAs is a client of either encoding that does not read yet.
func (w *world) connectAs(second bool) *modelClient {
	c := &modelClient{second: second}
	c.cond = sync.NewCond(&c.mu)
	path := "/app/k?protocol=7"
	if c.second {
		path = "/second" + path
	}
	c.wsClient = w.f.raw(path)
	hello := c.expect("connection_established")
	_, rest, _ := strings.Cut(hello, `socket_id\":\"`)
	c.id, _, _ = strings.Cut(rest, `\"`)
	w.ids = append(w.ids, c.id)
	return c
}

func (c *modelClient) readWith(hear func(raw []byte, m *heard)) {
	for {
		msg, err := wsutil.ReadServerText(c.conn)
		c.mu.Lock()
		var m heard
		switch {
		case err != nil:
			c.gone = true
		case json.Unmarshal(msg, &m) != nil:
			c.fault("not JSON: %s", msg)
		default:
			hear(msg, &m)
		}
		c.cond.Broadcast()
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (c *modelClient) fault(format string, args ...any) {
	c.faults = append(c.faults, fmt.Sprintf(format, args...))
}

var (
	memberID  = regexp.MustCompile(`"user_id":"(\d+)"`)
	rosterIDs = regexp.MustCompile(`"ids":\[([^\]]*)\]`)
	watched   = regexp.MustCompile(`"(#online-w\d):(\d+)"`)
)

func (c *modelClient) hear(m *heard) {
	switch m.Event {
	case "pusher:pong":
		c.pongs++
	case "pusher_internal:subscription_succeeded":
		c.answer(m, true)
	case "pusher:subscription_error":
		c.answer(m, false)
	case "pusher:cache_miss":
		c.active(m.Channel, true).snapshot = 0
	case "pusher_internal:member_added":
		c.item(m.Channel, memberID.FindStringSubmatch(m.text()))
	case "pusher_internal:watchlist_events":
		if found := watched.FindStringSubmatch(m.text()); found != nil {
			c.item(found[1], found[1:])
			return
		}
		for _, s := range c.spells {
			s.answered = s.answered || strings.HasPrefix(s.tp.name, "#")
		}
	case "e", "second-e":
		if c.second != (m.Event == "second-e") {
			c.fault("a frame of the other encoding: %v", m)
		}
		c.item(m.Channel, []string{"", m.text()})
	case "pusher:error", "pusher:signin_success":
	default:
		c.fault("what is this? %+v", m)
	}
}

// active gives the subscription that a message about a channel belongs to:
// one that has ended is active until the pong after its end.
func (c *modelClient) active(name string, open bool) *spell {
	for _, s := range c.spells {
		if s.tp.name == name && s.open == open && (s.ended == 0 || c.pongs < s.ended) && (open || !s.answered) {
			return s
		}
	}
	return nil
}

func (c *modelClient) answer(m *heard, yes bool) {
	s := c.active(m.Channel, false)
	if s == nil {
		c.fault("an answer about %s that nobody waits for", m.Channel)
		return
	}
	s.open, s.answered = yes, true
	if found := rosterIDs.FindStringSubmatch(m.text()); found != nil {
		s.snapshot = 0
		for id := range strings.SplitSeq(found[1], ",") {
			if id != "" && id != fmt.Sprintf("%q", fmt.Sprint(s.snapshot)) {
				c.fault("roster of %s: %s", m.Channel, found[1])
			}
			if id != "" {
				s.snapshot++
			}
		}
	}
}

func (c *modelClient) item(name string, number []string) {
	s := c.active(name, true)
	if s == nil || len(number) < 2 {
		c.fault("%s: item %v without a subscription", name, number)
		return
	}
	n, err := strconv.Atoi(number[1])
	if err != nil {
		c.fault("%s: item %q", name, number[1])
	}
	if s.snapshot < 0 && strings.Contains(name, "cache-") { // the cached one
		s.snapshot = n + 1
		return
	}
	s.got = append(s.got, n)
}

// see notes how much had been delivered when answers were there.
func (c *modelClient) see() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.spells {
		if s.answered && s.must < 0 {
			s.must = s.tp.delivered
		}
	}
}

// check compares what a subscription has got with the truth; exact says that
// everything that was delivered must be there.
func (c *modelClient) check(s *spell, exact bool) error {
	if !s.open {
		return nil
	}
	from, till := s.from, s.tp.delivered
	if strings.HasPrefix(s.tp.name, "presence-") && len(s.got) > 0 { // another one's roster may have told more
		till = min(max(till, slices.Max(s.got)+1), len(s.tp.items))
	}
	if s.snapshot >= 0 {
		if s.snapshot < s.from {
			return fmt.Errorf("was told of %d items, %d had been delivered before it asked", s.snapshot, s.from)
		}
		from = s.snapshot
	}
	var all []int
	missable := 0 // of all, because they came before the answer
	for n := from; n < till; n++ {
		if s.tp.items[n].pub.Exclude == c.id {
			continue
		}
		all = append(all, n)
		if s.snapshot < 0 && (s.must < 0 || n < s.must) {
			missable++
		}
	}
	if len(s.got) == 0 && (!exact || missable == len(all)) {
		return nil
	}
	at := 0
	if len(s.got) > 0 {
		at = slices.Index(all, s.got[0])
	}
	switch {
	case at < 0 || at > missable:
		return fmt.Errorf("begins wrong: got %v of %v, may miss the first %d", s.got, all, missable)
	case len(s.got) > len(all)-at || !slices.Equal(s.got, all[at:at+len(s.got)]):
		return fmt.Errorf("gap, repeat or disorder: got %v of %v", s.got, all)
	case exact && at+len(s.got) < len(all):
		return fmt.Errorf("ends early: got %v of %v", s.got, all)
	}
	return nil
}

// subscribe begins a spell on tp unless one is there.
func (w *world) subscribe(c *modelClient, tp *topic) {
	c.mu.Lock()
	for _, s := range c.spells {
		if s.tp == tp && s.ended == 0 && (s.open || !s.answered) {
			c.mu.Unlock()
			return
		}
	}
	c.spells = append(c.spells, &spell{tp: tp, from: tp.delivered, snapshot: -1, must: -1})
	c.mu.Unlock()
	c.say(`{"event":"pusher:subscribe","data":{"channel":%q,"auth":"ok","channel_data":"u%d"}}`, tp.name, w.r.IntN(2))
}

func (w *world) unsubscribe(c *modelClient) {
	c.mu.Lock()
	var open []*spell
	for _, s := range c.spells {
		if s.ended == 0 && (s.open || !s.answered) && !strings.HasPrefix(s.tp.name, "#") {
			open = append(open, s)
		}
	}
	if len(open) == 0 {
		c.mu.Unlock()
		return
	}
	s := open[w.r.IntN(len(open))]
	c.pings++
	s.ended = c.pings
	c.mu.Unlock()
	c.say(`{"event":"pusher:unsubscribe","data":{"channel":%q}}`, s.tp.name)
	c.say(`{"event":"pusher:ping"}`)
}

func (w *world) signIn(c *modelClient) {
	if c.user != "" {
		return
	}
	c.user = fmt.Sprint("user", w.r.IntN(2))
	c.mu.Lock()
	for _, name := range []string{"w0", "w1"} {
		tp := w.topics[channel.OnlinePrefix+name]
		c.spells = append(c.spells, &spell{tp: tp, from: tp.delivered, open: true, snapshot: -1, must: -1})
	}
	c.mu.Unlock()
	c.say(`{"event":"pusher:signin","data":{"auth":"ok","user_data":%q}}`, c.user)
}

// say sends, unless the connection has gone: then read finds out.
func (c *modelClient) say(format string, args ...any) {
	_ = wsutil.WriteClientText(c.conn, fmt.Appendf(nil, format, args...))
}

// leave closes in one of several ways.
func (w *world) leave(c *modelClient) {
	conn := c.conn
	if b, ok := conn.(*buffered); ok {
		conn = b.Conn
	}
	tcp := conn.(*net.TCPConn)
	switch w.r.IntN(4) {
	case 0:
		_ = wsutil.WriteClientMessage(c.conn, ws.OpClose, ws.NewCloseFrameBody(1000, ""))
	case 1:
		_ = tcp.SetLinger(0)
		_ = tcp.Close()
	case 2:
		_ = tcp.Close()
	case 3:
		c.say("no JSON at all")
		_ = tcp.CloseWrite()
	}
}

// settle waits until everything delivered has reached the clients, and
// compares.
func (w *world) settle(clients []*modelClient) {
	if err := w.f.edge.onLoops(w.t.Context(), func(*handler) {}); err != nil {
		w.t.Fatal(err)
	}
	for _, c := range clients {
		c.mu.Lock()
		c.pings++
		want := c.pings
		c.mu.Unlock()
		c.say(`{"event":"pusher:ping"}`)
		c.mu.Lock()
		for !c.gone && c.pongs < want {
			c.cond.Wait()
		}
		for _, s := range c.spells {
			if err := c.check(s, s.ended == 0 && !c.gone && s.answered); err != nil {
				w.t.Errorf("client %s on %s: %v (%+v)", c.id, s.tp.name, err, *s)
			}
		}
		for _, fault := range c.faults {
			w.t.Errorf("client %s: %s", c.id, fault)
		}
		c.mu.Unlock()
	}
}

func (w *world) topic(names ...string) *topic {
	if len(names) > 0 {
		return w.topics[names[0]]
	}
	all := []string{
		"plain-a", "plain-b", "private-a", "cache-a", "cache-b", "private-cache-a", "presence-a", "presence-b",
		channel.OnlinePrefix + "w0", channel.OnlinePrefix + "w1",
	}
	return w.topics[all[w.r.IntN(len(all))]]
}

// step does one random thing; it returns the clients that are there then.
func (w *world) step(clients []*modelClient) []*modelClient {
	clients = slices.DeleteFunc(clients, func(c *modelClient) bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.gone && w.r.IntN(20) == 0 // kept for a while: it is compared, and talked to in vain
	})
	if len(clients) < 2 || len(clients) < 7 && w.r.IntN(15) == 0 {
		clients = append(clients, w.connect())
	}
	c := clients[w.r.IntN(len(clients))]
	switch n := w.r.IntN(100); {
	case n < 20:
		if tp := w.topic(); !strings.HasPrefix(tp.name, "#") {
			w.subscribe(c, tp)
		}
	case n < 26:
		w.unsubscribe(c)
	case n < 28:
		w.signIn(c)
	case n < 50:
		exclude := ""
		if w.r.IntN(3) == 0 {
			exclude = w.ids[w.r.IntN(len(w.ids))]
		}
		w.publish(w.topic(), exclude)
	case n < 75:
		for _, c := range clients {
			c.see()
		}
		for range w.r.IntN(6) + 1 {
			w.deliver(w.r.IntN(partitions))
		}
	case n < 93:
		for range w.r.IntN(3) + 1 {
			w.answerOne()
		}
	case n < 95:
		w.leave(c)
	case n < 96:
		w.f.edge.Control(control.Command{App: "1", TerminateUser: fmt.Sprint("user", w.r.IntN(2))})
	default:
		w.settle(clients)
	}
	return clients
}

// end lets everybody go, answers what is left, and looks for remains.
func (w *world) end(clients []*modelClient) {
	w.settle(clients)
	for _, c := range clients {
		w.leave(c)
	}
	w.f.until("all are gone", func() bool {
		for _, c := range clients {
			_ = c.conn.Close()
		}
		for w.answerOne() {
		}
		s := w.f.edge.Stats()
		return s.Opened == s.Closed
	})
	if err := w.f.edge.onLoops(w.t.Context(), func(h *handler) {
		clients := 0
		h.each(func(*client) { clients++ })
		if len(h.users) > 0 || clients > 0 || h.table.Subscriptions() > 0 || h.table.Channels() > 0 || h.backlog.Load() != 0 {
			w.t.Errorf("loop %d keeps %d users, %d clients, %d subscriptions, %d channels, %d deliveries",
				h.index, len(h.users), clients, h.table.Subscriptions(), h.table.Channels(), h.backlog.Load())
		}
	}); err != nil {
		w.t.Fatal(err)
	}
	s := w.f.edge.Stats()
	if s.Channels != 0 || s.Connections["1"] != 0 {
		w.t.Errorf("the node wants %d channels and counts %d connections", s.Channels, s.Connections["1"])
	}
	for _, l := range s.Loops {
		if l.Panics > 0 {
			w.t.Errorf("%d panics", l.Panics)
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for what, n := range w.counts {
		if n != 0 {
			w.t.Errorf("%s: %d are left", what, n)
		}
	}
}

// TestEveryClientGetsExactlyItsSubscriptions: whatever clients, services and
// partitions do, a client gets what was delivered between the answer to its
// subscription and its unsubscribe, in order and once, without what excludes
// it; and nothing remains of a client that is gone.
func TestEveryClientGetsExactlyItsSubscriptions(t *testing.T) {
	seeds, steps := uint64(150), 300
	if testing.Short() {
		seeds = 10
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := newWorld(t, seed)
			var clients []*modelClient
			for range steps {
				clients = w.step(clients)
			}
			w.end(clients)
		})
		if t.Failed() {
			return
		}
	}
}
