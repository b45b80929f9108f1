package badinput

import (
	"encoding/binary"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/carillon-rt/carillon/tests/env"
)

// badClientEvents breaks each condition of client events. What is refused must
// reach nobody: another member's next message is one that is allowed.
func (w *world) badClientEvents(t *testing.T) {
	const member = `{"user_id":"m"}`
	listener := w.greeted(t, env.Key)
	listener.subscribes(signed(listener.id, "presence-talk", `{"user_id":"listener"}`, env.Key, env.Secret))
	sender := w.greeted(t, env.Key)
	for _, s := range []string{
		signed(sender.id, "presence-talk", member, env.Key, env.Secret),
		signed(sender.id, "private-encrypted-talk", "", env.Key, env.Secret), subscribe("durable-talk", "", ""),
	} {
		sender.subscribes(s)
	}
	listener.gets(`{"event":"pusher_internal:member_added","channel":"presence-talk","data":"{\"user_id\":\"m\"}"}`)
	const rules = "only private and presence channels that are not encrypted take client events"
	for _, c := range []struct{ name, reason, message, told string }{
		{"public channel", "client_events", event("client-a", "durable-talk", "1"), "client event on channel durable-talk rejected: " + rules},
		{"encrypted channel", "client_events", event("client-a", "private-encrypted-talk", "1"), "client event on channel private-encrypted-talk rejected: " + rules},
		{"not subscribed", "not_subscribed", event("client-a", "private-other", "1"), "client event on channel private-other rejected: the connection is not subscribed to it"},
		{"no channel", "malformed", `{"event":"client-a","data":1}`, `the client event has no "channel", or one that is not a string`},
		{"name too long", "bad_event", event("client-"+strings.Repeat("x", 194), "presence-talk", "1"), "the event name has 201 bytes, at most 200 are allowed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			sender.t = t
			w.counts(t, refused(c.reason), 1, func() {
				sender.send(c.message)
				sender.gets(errorFrame(0, c.told))
				sender.alive()
			})
		})
	}
	t.Run("data too large", func(t *testing.T) {
		sender.t = t
		w.counts(t, refused("too_large"), 1, func() {
			sender.send(event("client-a", "presence-talk", `"`+strings.Repeat("x", 10<<10)+`"`))
			sender.gets(errorFrame(4301, "the data of the client event has 10242 bytes, at most 10240 are allowed"))
		})
	})
	t.Run("not enabled", func(t *testing.T) {
		w.counts(t, refused("client_events"), 1, func() {
			s := w.greeted(t, "wide-key")
			s.subscribes(signed(s.id, "private-a", "", "wide-key", "s"))
			s.send(event("client-a", "private-a", "1"))
			s.gets(errorFrame(0, "client events are not enabled for this app"))
		})
	})
	t.Run("too many", func(t *testing.T) {
		sender.t = t
		w.counts(t, refused("rate_limit"), 5, func() {
			burst := []byte(nil)
			for range 15 {
				burst = append(burst, frame(0x81, []byte(event("client-b", "presence-talk", "2")))...)
			}
			sender.write(burst) // read in one turn, whatever the machine does meanwhile
			for range 5 {
				sender.gets(errorFrame(4301, "client event rejected: at most 10 a second are allowed"))
			}
			sender.alive()
		})
	})
	for range 10 { // none of what was refused
		listener.gets(`{"event":"client-b","channel":"presence-talk","data":2,"user_id":"m"}`)
	}
	listener.alive()
}

func event(name, channel, data string) string {
	return `{"event":` + quoted(name) + `,"channel":` + quoted(channel) + `,"data":` + data + `}`
}

// tooMuch is what is right one by one and too much together.
func (w *world) tooMuch(t *testing.T) {
	t.Run("messages", func(t *testing.T) {
		const allowed = 50 // 5 a second over 10 s
		w.counts(t, closes("flood"), 1, func() {
			s := w.greeted(t, "narrow-key")
			s.write([]byte(strings.Repeat(string(frame(0x81, []byte(`{"event":"pusher:ping"}`))), 2*allowed)))
			for range allowed {
				s.gets(`{"event":"pusher:pong","data":"{}"}`)
			}
			s.gets(errorFrame(4100, "Too many messages: slow down"))
			s.closed(4100, "Too many messages: slow down")
		})
	})
	t.Run("subscriptions", func(t *testing.T) {
		const tries, limit = 10_000, 1_000
		channels := w.metric(t, "carillon_gateway_channels")
		w.counts(t, refused("subscriptions"), tries-limit, func() {
			s := w.greeted(t, "patient-key")
			took := s.subscribeMany(tries, limit)
			s.alive()
			t.Logf("%d subscribes, %d of them refused, took %v", tries, tries-limit, took)
			w.reaches(t, "carillon_gateway_channels", channels+limit)
			s.conn.Close()
		})
		w.reaches(t, "carillon_gateway_channels", channels)
	})
	t.Run("subscriptions in one burst", func(t *testing.T) {
		// Either the flood of messages or the flood of answers, which are four
		// times as long, is noticed first.
		flood, slow := w.metric(t, closes("flood")), w.metric(t, closes("slow"))
		s := w.greeted(t, env.Key)
		go func() { _, _ = s.conn.Write(manySubscribes(0, 10_000)) }() // ends with the connection
		op, payload := s.read()
		for op == ws.OpText {
			op, payload = s.read()
		}
		if op != ws.OpClose || binary.BigEndian.Uint16(payload) != 4100 {
			t.Fatalf("got op %d %q, want close 4100", op, payload)
		}
		if grown := w.metric(t, closes("flood")) - flood + w.metric(t, closes("slow")) - slow; grown != 1 {
			t.Errorf("%v closes are counted, want 1", grown)
		}
		w.unharmed(t)
	})
	t.Run("subscriptions cost the same", w.costsTheSame)
}

// costsTheSame: the ten-thousandth subscription of a connection costs what the
// first ones do. The process's own CPU time is compared, which other load
// disturbs less than the clock.
func (w *world) costsTheSame(t *testing.T) {
	const few, many = 1_000, 10_000
	cost := func(n int) float64 {
		s := w.greeted(t, "wide-key")
		before := w.metric(t, "process_cpu_seconds_total")
		s.subscribeMany(n, n)
		s.alive()
		used := w.metric(t, "process_cpu_seconds_total") - before
		s.conn.Close()
		return used / float64(n)
	}
	cost(few) // warm up
	first, last := cost(few), cost(many)
	t.Logf("CPU per subscription: %.0f us at %d, %.0f us at %d", first*1e6, few, last*1e6, many)
	// Quadratic would be ten times as much. The clock of CPU time ticks in
	// hundredths of a second, which is 10 us at the small number.
	if last > 4*first+20e-6 {
		t.Errorf("a subscription costs %.0f us among %d and %.0f us among %d", last*1e6, many, first*1e6, few)
	}
	w.unharmed(t)
}

// subscribeMany asks for n public channels, of which so many must succeed, and
// gives the time until the last answer. It reads the answers to some before it
// asks for more: it is greedy, not slow.
func (s *socket) subscribeMany(n, succeed int) time.Duration {
	s.t.Helper()
	const step = 100
	began := time.Now()
	succeeded, failed := 0, 0
	for asked := 0; asked < n; asked += step {
		s.write(manySubscribes(asked, step))
		for succeeded+failed < asked+step {
			switch got := s.text(); {
			case strings.Contains(got, "pusher_internal:subscription_succeeded"):
				succeeded++
			case strings.Contains(got, "pusher:subscription_error"):
				failed++
			case got != errorFrame(0, "the connection has 1000 subscriptions, the limit is 1000: unsubscribe from some first"):
				s.t.Fatalf("got %s", got)
			}
		}
	}
	if succeeded != succeed {
		s.t.Fatalf("%d of %d subscriptions succeeded, want %d", succeeded, n, succeed)
	}
	return time.Since(began)
}

// manySubscribes are n messages.
func manySubscribes(first, n int) []byte {
	var all []byte
	for i := range n {
		all = append(all, frame(0x81, []byte(subscribe("many-"+strconv.Itoa(first+i), "", "")))...)
	}
	return all
}
