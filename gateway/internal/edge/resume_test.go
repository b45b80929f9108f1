package edge

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/carillon-rt/carillon/gateway/internal/resume"
	"github.com/carillon-rt/carillon/proto/message"
)

// Past implements History: the newest of what was published at some time
// between the question and now.
func (w *world) Past(q resume.Question, answer func(*resume.Past)) {
	w.later(func() {
		if !w.kind && w.r.IntN(12) == 0 {
			answer(nil)
			return
		}
		w.mu.Lock()
		past := &resume.Past{Epoch: w.epoch, Newest: w.seq}
		items := w.topics[q.Key.Name].items
		for len(items) > 0 && items[len(items)-1].pos > q.Mark.Position && w.r.IntN(2) == 0 {
			items = items[:len(items)-1]
		}
		for i := range items {
			past.Entries = append(past.Entries, resume.Entry{Position: items[i].pos, Publication: &items[i].pub})
		}
		if !w.kind && w.r.IntN(3) == 0 && len(past.Entries) > 0 {
			cut := 1 + w.r.IntN(len(past.Entries))
			past.Floor, past.Entries = past.Entries[cut-1].Position, past.Entries[cut:]
		}
		w.mu.Unlock()
		answer(past)
	})
}

// stay is one subscription of a client that keeps its place.
type stay struct {
	tp     *topic
	since  message.Position // asked for, with the epoch
	placed bool
	rewind int

	// guarded by the client's mu
	answered bool
	failed   bool
	plain    bool // did not ask to keep its place
	r        struct {
		Recovered       bool
		Position, Epoch string
	}
	got []positioned
}

type positioned struct {
	n   int
	pos message.Position
}

// place is up to where the client has everything.
func (s *stay) place() message.Position {
	p, _ := strconv.ParseUint(s.r.Position, 10, 64)
	for _, g := range s.got {
		p = max(p, uint64(g.pos))
	}
	return message.Position(p)
}

// keeper is a client of the model that comes and goes on a topic and keeps its
// place. Each of its stays is a connection of its own.
type keeper struct {
	*modelClient
	stay *stay
}

func (c *keeper) hearStay(m *heard, position string) {
	s := c.stay
	switch m.Event {
	case "pusher_internal:subscription_succeeded":
		var data struct {
			Resume *json.RawMessage `json:"resume"`
		}
		if err := json.Unmarshal([]byte(m.text()), &data); err != nil || (data.Resume == nil) != s.plain {
			c.fault("succeeded with %s", m.text())
		} else if !s.plain && json.Unmarshal(*data.Resume, &s.r) != nil {
			c.fault("succeeded with %s", m.text())
		}
		s.answered = true
	case "pusher:subscription_error":
		s.answered, s.failed = true, true
	case "e":
		n, err := strconv.Atoi(m.text())
		pos, _ := strconv.ParseUint(position, 10, 64)
		if err != nil || (position == "") != s.plain || !s.answered {
			c.fault("item %s at %q", m.text(), position)
		}
		s.got = append(s.got, positioned{n, message.Position(pos)})
	case "pusher:pong":
		c.pongs++
	case "pusher:error":
	default:
		c.fault("what is this? %+v", m)
	}
}

// check compares a stay with what was published on its topic.
func (s *stay) check(epoch string, exact bool) error {
	if !s.answered || s.failed {
		return nil
	}
	items := s.tp.items[:s.tp.delivered]
	from := 0
	told, _ := strconv.ParseUint(s.r.Position, 10, 64)
	switch {
	case s.plain: // any run will do
		if len(s.got) == 0 {
			return nil
		}
		from = s.got[0].n
	case s.r.Epoch != epoch:
		return fmt.Errorf("told epoch %q, it is %q", s.r.Epoch, epoch)
	case s.r.Recovered && !s.placed:
		return fmt.Errorf("recovered without a place")
	case s.r.Recovered:
		from = countItems(s.tp.items, s.since)
	default:
		from = countItems(s.tp.items, message.Position(told))
		if rewound := from - countGot(s.got, message.Position(told)); rewound != from {
			if from-rewound > s.rewind {
				return fmt.Errorf("rewound by %d, wanted %d", from-rewound, s.rewind)
			}
			from = rewound
		}
	}
	for i, g := range s.got {
		if from+i >= len(s.tp.items) || g.n != from+i || !s.plain && g.pos != s.tp.items[g.n].pos {
			return fmt.Errorf("got %v, want all from %d (recovered %v since %d, told %d)", s.got, from, s.r.Recovered, s.since, told)
		}
	}
	if exact && !s.plain && from+len(s.got) < len(items) {
		return fmt.Errorf("got %v, want all from %d up to %d", s.got, from, len(items)-1)
	}
	return nil
}

func countItems(items []item, pos message.Position) int {
	n := 0
	for n < len(items) && items[n].pos <= pos {
		n++
	}
	return n
}

func countGot(got []positioned, pos message.Position) int {
	n := 0
	for n < len(got) && got[n].pos <= pos {
		n++
	}
	return n
}

// come begins a stay from where the last one ended.
func (w *world) come(last *stay) *keeper {
	names := []string{"durable-a", "durable-b"}
	s := &stay{tp: w.topics[names[w.r.IntN(2)]], rewind: w.r.IntN(4)}
	if last != nil && last.answered && !last.failed && !last.plain {
		s.tp, s.since, s.placed = last.tp, last.place(), true
	}
	if w.r.IntN(12) == 0 { // made up
		s.since, s.placed = message.Position(w.r.Uint64N(uint64(message.At(w.seq+3, 0)))), true
	}
	s.plain = w.r.IntN(6) == 0
	c := &keeper{modelClient: w.connectAs(false), stay: s}
	go c.readWith(func(raw []byte, m *heard) {
		var extra struct{ Position string }
		if json.Unmarshal(raw, &extra) != nil {
			c.fault("position in %s", raw)
		}
		c.hearStay(m, extra.Position)
	})
	wish := map[string]any{}
	if s.placed {
		wish["position"], wish["epoch"] = fmt.Sprint(uint64(s.since)), w.epoch
	}
	if s.rewind > 0 {
		wish["rewind"] = s.rewind
	}
	data := map[string]any{"channel": s.tp.name, "resume": wish}
	if s.plain {
		delete(data, "resume")
	}
	body, _ := json.Marshal(data) // can't fail
	c.say(`{"event":"pusher:subscribe","data":%s}`, body)
	return c
}

func (w *world) settleKeepers(keepers []*keeper, exact bool) {
	if err := w.f.edge.onLoops(w.t.Context(), func(*handler) {}); err != nil {
		w.t.Fatal(err)
	}
	for _, c := range keepers {
		c.mu.Lock()
		c.pings++
		want := c.pings
		c.mu.Unlock()
		c.say(`{"event":"pusher:ping"}`)
		c.mu.Lock()
		for !c.gone && c.pongs < want {
			c.cond.Wait()
		}
		if err := c.stay.check(w.epoch, exact && !c.gone && c.stay.answered); err != nil {
			w.t.Errorf("%s: %v", c.stay.tp.name, err)
		}
		for _, fault := range c.faults {
			w.t.Errorf("%s: %s", c.stay.tp.name, fault)
		}
		c.mu.Unlock()
	}
}

// TestNothingIsLostOrRepeatedBetweenStays: a client that comes back with its
// place, while publications are on their way to the gateway and routers answer
// when and what they like, gets what it missed and what follows as one run;
// or is told that it did not.
func TestNothingIsLostOrRepeatedBetweenStays(t *testing.T) {
	simulate(t, 150, func(w *world) {
		keepers := []*keeper{w.come(nil), w.come(nil), w.come(nil)}
		w.churn(len(keepers), func(i int) {
			c := keepers[i]
			w.settleKeepers([]*keeper{c}, true)
			w.leave(c.modelClient)
			c.mu.Lock()
			keepers[i] = w.come(c.stay)
			c.mu.Unlock()
		}, func() { w.settleKeepers(keepers, true) })
		w.settleKeepers(keepers, true)
		clients := make([]*modelClient, len(keepers))
		for i, c := range keepers {
			clients[i] = c.modelClient
		}
		w.end(clients)
	})
}

// simulate runs the world of each seed, of a tenth of them with -short, until
// one fails.
func simulate(t *testing.T, seeds uint64, run func(w *world)) {
	if testing.Short() {
		seeds = max(8, seeds/10)
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			w := newWorld(t, seed)
			for p := range partitions {
				w.f.edge.Epoch(p, w.epoch)
			}
			run(w)
		})
		if t.Failed() {
			return
		}
	}
}

// churn has 200 things happen, one after the other: publications are made and
// delivered, answers given, one of so many clients comes back, or all get what
// is due to them.
func (w *world) churn(clients int, again func(i int), settle func()) {
	for range 200 {
		i := w.r.IntN(clients)
		switch n := w.r.IntN(100); {
		case n < 35:
			w.publish(w.topic([]string{"durable-a", "durable-b", "plain-a"}[w.r.IntN(3)]), "")
		case n < 65:
			w.deliver(w.r.IntN(partitions))
		case n < 85:
			w.answerOne()
		case n < 97:
			again(i)
		default:
			settle()
		}
	}
}

// TestLongPastsAreGivenAsTheyAreRead: what a client missed may be more than it
// may leave unread.
func TestLongPastsAreGivenAsTheyAreRead(t *testing.T) {
	w := newWorld(t, 1)
	w.kind = true
	w.f.edge.Epoch(w.topics["durable-a"].key.Partition(partitions), w.epoch)
	tp := w.topics["durable-a"]
	const total = 300
	big := strings.Repeat("x", 10<<10) // 3 MiB together, the outbox takes 256 KiB
	publish := func() {
		w.publish(tp, "")
		tp.items[len(tp.items)-1].pub.Data = []byte(big)
	}
	for range total {
		publish()
	}
	for w.deliver(tp.key.Partition(partitions)) {
	}
	c := w.f.dial()
	c.send(`{"event":"pusher:subscribe","data":{"channel":"durable-a","resume":{"position":"0","epoch":%q}}}`, w.epoch)
	var asked []func()
	w.f.until("the past is asked for", func() bool { asked = append(asked, w.pendingNow()...); return len(asked) > 0 })
	asked[0]()
	publish() // while it catches up
	w.deliver(tp.key.Partition(partitions))
	c.expect(`\"recovered\":true`)
	for i := range total + 1 {
		c.expect(fmt.Sprintf(`"position":"%d"`, tp.items[i].pos))
	}
	c.send(`{"event":"pusher:unsubscribe","data":{"channel":"durable-a"}}`)
	w.f.until("nothing is left", func() bool { return w.f.edge.Stats().Channels == 0 })
}

// TestLongRecoveriesAreGivenAsTheyAreRead: the same for Centrifugo's clients,
// on several channels at once.
func TestLongRecoveriesAreGivenAsTheyAreRead(t *testing.T) {
	w := newWorld(t, 1)
	w.kind = true
	const total = 300
	names := []string{"durable-a", "durable-b"}
	for _, name := range names {
		tp := w.topics[name]
		w.f.edge.Epoch(tp.key.Partition(partitions), w.epoch)
		for range total {
			w.publish(tp, "")
			tp.items[len(tp.items)-1].pub.Data = []byte(`"` + strings.Repeat("x", 10<<10) + `"`)
		}
		for w.deliver(tp.key.Partition(partitions)) {
		}
	}
	c := w.f.client("42")
	for i, name := range names {
		c.send(`{"id":%d,"subscribe":{"channel":%q,"recover":true,"epoch":%q,"offset":1}}`, 2+i, name, w.epoch)
	}
	var asked []func()
	w.f.until("the past is asked for", func() bool { asked = append(asked, w.pendingNow()...); return len(asked) == len(names) })
	for _, answer := range asked {
		answer()
	}
	got := map[string]int{}
	for range len(names) * (1 + total) {
		said := c.expect("")
		if strings.HasPrefix(said, `{"id":`) {
			if !strings.HasSuffix(said, `"subscribe":{"recoverable":true,"epoch":"e1","recovered":true,"offset":1,"positioned":true,"was_recovering":true}}`) {
				t.Fatalf("subscribed with %.300s", said)
			}
			continue
		}
		name := said[len(`{"push":{"channel":"`):][:len(names[0])]
		if want := fmt.Sprintf(`"offset":%d`, w.topics[name].items[got[name]].pos); !strings.Contains(said, want) {
			t.Fatalf("%s: want %s, have %.100s...", name, want, said)
		}
		got[name]++
	}
	w.publish(w.topics[names[0]], "")
	w.deliver(w.topics[names[0]].key.Partition(partitions))
	c.expect(fmt.Sprintf(`"offset":%d`, w.topics[names[0]].items[total].pos))
}
