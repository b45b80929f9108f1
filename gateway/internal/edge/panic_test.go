package edge

import (
	"testing"

	"github.com/carillon-rt/carillon/gateway/internal/hub"
	"github.com/carillon-rt/carillon/proto/channel"
)

// panics calls f as a loop calls its handler: a panic ends the call, not the
// loop.
func panics(t *testing.T, f func()) {
	t.Helper()
	defer func() {
		if recover() == nil {
			t.Error("the panic did not reach the loop, which counts it")
		}
	}()
	f()
}

// on runs f on the first loop and waits for it.
func (f *fixture) on(do func(h *handler)) {
	f.Helper()
	h, done := f.edge.handlers[0], make(chan struct{})
	h.run(func() {
		defer close(done)
		do(h)
	})
	<-done
}

func TestPanicInMailCostsNoOtherItem(t *testing.T) {
	f := start(t)
	ran := 0
	f.on(func(h *handler) {
		h.backlog.Add(1)
		panics(t, func() {
			h.Mail([]mail{
				{run: func() { panic("one") }},
				{run: func() { ran++ }},
				{run: func() { panic("two") }},
				{delivery: &hub.Delivery{Key: channel.Key{App: "1", Name: "nobody's"}}},
				{run: func() { ran++ }},
			})
		})
		if n := h.backlog.Load(); n != 0 {
			t.Errorf("%d deliveries are counted as waiting, none is", n)
		}
	})
	if ran != 2 {
		t.Errorf("%d of the 2 items beside the broken ones were handled", ran)
	}
}

func TestPanicInOneChannelCostsNoOther(t *testing.T) {
	f := start(t)
	f.dial()
	f.dial()
	good, bad := channel.Key{App: "1", Name: "good"}, channel.Key{App: "1", Name: "bad"}
	frames := []*hub.Frame{{Bytes: []byte("x")}}
	f.on(func(h *handler) {
		var slot int32
		h.each(func(c *client) { slot = c.conn.Handle().Slot })
		for _, key := range []channel.Key{bad, good} {
			h.table.Add(key, slot, 0, hub.Floor{})
			defer h.table.Remove(key, slot)
		}
		for turn := range 2 {
			broken := &hub.Delivery{Key: bad} // has no room for frames
			fine := &hub.Delivery{Key: good, Frames: frames}
			order := []*hub.Delivery{broken, fine}
			if turn == 1 {
				order = []*hub.Delivery{fine, broken}
			}
			for _, d := range order {
				h.arrive(d)
			}
			func() {
				defer func() { recover() }()
				h.EndTurn()
			}()
			h.EndTurn()
			for _, key := range []channel.Key{bad, good} {
				if n := len(h.table.Lookup(key).Turn()); n != 0 {
					t.Errorf("turn %d: %d deliveries of %s are stuck", turn, n, key)
				}
			}
		}
	})
}
