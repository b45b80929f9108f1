package edge

import (
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"github.com/gobwas/ws/wsutil"

	"github.com/carillon-rt/carillon/gateway/internal/fossil"
	"github.com/carillon-rt/carillon/proto/message"
)

// sojourn is one connection of a Centrifugo client of the model, with one
// subscription that keeps its place: its own, or the server's.
type sojourn struct {
	*wsClient
	tp       *topic
	since    message.Position
	recovers bool
	server   bool
	delta    bool // it is told differences

	mu   sync.Mutex
	cond *sync.Cond
	// guarded by mu
	answered, failed, gone bool
	recovered              bool
	offset                 message.Position
	epoch                  string
	got                    []positioned
	before                 []byte // data of the last
	syncs                  int
	faults                 []string
}

type publication struct {
	Data   json.RawMessage
	Offset message.Position
	Delta  bool
}

type subscription struct {
	Epoch        string
	Offset       message.Position
	Recovered    bool
	Publications []publication
}

// sojourn begins one, from where the last one ended.
func (w *world) sojourn(last *sojourn) *sojourn {
	names := []string{"durable-a", "durable-b"}
	v := &sojourn{wsClient: w.f.raw("/connection/websocket"), tp: w.topics[names[w.r.IntN(2)]], server: w.r.IntN(3) == 0}
	v.cond = sync.NewCond(&v.mu)
	epoch := w.epoch
	if last != nil && last.answered && !last.failed {
		v.tp, v.recovers, v.since = last.tp, true, last.place()
		if w.r.IntN(8) == 0 {
			epoch = "another"
		}
	}
	v.delta = !v.server && w.r.IntN(2) == 0
	go v.read()
	wish := map[string]any{"recover": v.recovers, "epoch": epoch, "offset": v.since}
	token := "42"
	connect := map[string]any{}
	if v.server {
		token += ":" + v.tp.name + ",cache-a" // which is made earlier or later
		connect["subs"] = map[string]any{v.tp.name: wish}
	}
	connect["token"] = token
	v.command(1, "connect", connect)
	if !v.server {
		wish["channel"] = v.tp.name
		if v.delta {
			wish["delta"] = "fossil"
		}
		v.command(2, "subscribe", wish)
	}
	return v
}

func (v *sojourn) command(id int, name string, body any) {
	text, _ := json.Marshal(map[string]any{"id": id, name: body}) // can't fail
	_ = wsutil.WriteClientText(v.conn, text)                      // its end is seen by read
}

// place is up to where the client has everything.
func (v *sojourn) place() message.Position {
	p := v.offset
	for _, g := range v.got {
		p = max(p, g.pos)
	}
	return p
}

func (v *sojourn) read() {
	for {
		raw, err := wsutil.ReadServerText(v.conn)
		v.mu.Lock()
		if err != nil {
			v.gone = true
			v.cond.Broadcast()
			v.mu.Unlock()
			return
		}
		v.hear(raw)
		v.cond.Broadcast()
		v.mu.Unlock()
	}
}

func (v *sojourn) hear(raw []byte) {
	var m struct {
		ID        int
		Error     *struct{ Code int }
		Connect   *struct{ Subs map[string]subscription }
		Subscribe *subscription
		Push      *struct{ Pub *publication }
	}
	if err := json.Unmarshal(raw, &m); err != nil {
		v.faults = append(v.faults, fmt.Sprintf("%s: %v", raw, err))
		return
	}
	switch {
	case m.Error != nil:
		v.answered, v.failed = true, true
	case m.Push != nil && m.Push.Pub != nil:
		if !v.answered {
			v.faults = append(v.faults, fmt.Sprintf("before the answer: %s", raw))
		}
		v.take(*m.Push.Pub)
	case m.Connect != nil && v.server:
		sub := m.Connect.Subs[v.tp.name]
		v.answer(&sub)
	case m.Subscribe != nil:
		v.answer(m.Subscribe)
	case m.ID > 2:
		v.syncs++
	}
}

func (v *sojourn) answer(s *subscription) {
	v.answered, v.recovered, v.offset, v.epoch = true, s.Recovered, s.Offset, s.Epoch
	for _, p := range s.Publications {
		v.take(p)
	}
}

// unquoted is a JSON string without quotes, and all else as it is.
func unquoted(text []byte) string {
	var s string
	if json.Unmarshal(text, &s) != nil {
		return string(text)
	}
	return s
}

func (v *sojourn) take(p publication) {
	text := []byte(p.Data)
	if v.delta {
		text = []byte(unquoted(text))
	}
	if p.Delta {
		var err error
		if text, err = fossil.Apply(v.before, text, 1<<20); err != nil {
			v.faults = append(v.faults, fmt.Sprintf("delta %s: %v", p.Data, err))
		}
	}
	v.before = text
	n, err := strconv.Atoi(unquoted(text))
	if err != nil {
		v.faults = append(v.faults, "data "+string(p.Data))
	}
	v.got = append(v.got, positioned{n, p.Offset})
}

// settle waits until everything that was said so far has been heard, and
// compares it with what was published.
func (w *world) settleVisits(visits []*sojourn) {
	if err := w.f.edge.onLoops(w.t.Context(), func(*handler) {}); err != nil {
		w.t.Fatal(err)
	}
	for _, v := range visits {
		v.mu.Lock()
		if v.answered && !v.failed { // else commands wait for connect
			want := v.syncs + 1
			v.command(10+want, "unsubscribe", map[string]any{"channel": "none"})
			for !v.gone && v.syncs < want {
				v.cond.Wait()
			}
			if err := w.check(v); err != nil {
				w.t.Errorf("%s (server %v): %v", v.tp.name, v.server, err)
			}
		}
		for _, f := range v.faults {
			w.t.Errorf("%s: %s", v.tp.name, f)
		}
		v.mu.Unlock()
	}
}

func (w *world) check(v *sojourn) error {
	from := countItems(v.tp.items, v.offset)
	switch {
	case v.epoch != w.epoch:
		return fmt.Errorf("told epoch %q, it is %q", v.epoch, w.epoch)
	case v.recovered && !v.recovers:
		return fmt.Errorf("recovered without a place")
	case v.recovered:
		from = countItems(v.tp.items, v.since)
	}
	for i, g := range v.got {
		if from+i >= len(v.tp.items) || g.n != from+i || g.pos != v.tp.items[g.n].pos {
			return fmt.Errorf("got %v, want all from %d (recovered %v since %d, told %d)", v.got, from, v.recovered, v.since, v.offset)
		}
	}
	if !v.gone && from+len(v.got) < v.tp.delivered {
		return fmt.Errorf("got %v, want all from %d up to %d", v.got, from, v.tp.delivered-1)
	}
	return nil
}

// TestCentrifugoMissesNothingBetweenVisits: a client that comes back with its
// place gets what it missed and what follows as one run, or is told that it
// did not, whatever is on its way meanwhile and in whichever order routers
// answer; the same holds for subscriptions of the server.
func TestCentrifugoMissesNothingBetweenVisits(t *testing.T) {
	simulate(t, 60, func(w *world) {
		w.long = w.r.IntN(2) == 0
		visits := []*sojourn{w.sojourn(nil), w.sojourn(nil), w.sojourn(nil)}
		w.churn(len(visits), func(i int) {
			v := visits[i]
			w.settleVisits([]*sojourn{v})
			v.conn.Close()
			v.mu.Lock()
			visits[i] = w.sojourn(v)
			v.mu.Unlock()
		}, func() { w.settleVisits(visits) })
		for w.answerOne() {
		}
		w.settleVisits(visits)
		for _, v := range visits {
			v.conn.Close()
		}
		w.f.until("nothing is left", func() bool {
			for w.answerOne() { // joins that are taken back
			}
			return w.f.edge.Stats().Channels == 0
		})
	})
}
