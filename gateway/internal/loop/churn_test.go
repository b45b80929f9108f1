package loop

import (
	"bytes"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/ws"
	"github.com/carillon-rt/carillon/gateway/internal/ws/wscase"
	"github.com/carillon-rt/carillon/kit/await"
)

// TestChurn has clients come, talk, flood, break the protocol and vanish at
// random while the loops fan out to all and close and abort some. Every Open
// must have one Closed, and nothing may be left.
func TestChurn(t *testing.T) {
	t.Run("system", func(t *testing.T) { churn(t, serve, 1) })
	t.Run("portable", func(t *testing.T) { churn(t, portable, 2) })
}

func churn(t *testing.T, start func(testing.TB, Config, *script) *server, seed uint64) {
	live := map[int32]Handle{} // of the loop
	var opened, closed atomic.Int64
	rng := rand.New(rand.NewPCG(seed, 3)) // of the loop
	frame := &Frame{Bytes: ws.AppendText(nil, bytes.Repeat([]byte("f"), 500))}
	var h *script
	h = &script{
		open: func(c *Conn) {
			opened.Add(1)
			live[c.Handle().Slot] = c.Handle()
			c.SetTimer(h.loop.Now() + rng.Int64N(3e8))
		},
		closed: func(c *Conn, _ Closure) {
			closed.Add(1)
			if live[c.Handle().Slot] != c.Handle() {
				t.Errorf("closed %+v, open is %+v", c.Handle(), live[c.Handle().Slot])
			}
			delete(live, c.Handle().Slot)
		},
		tick: func(c *Conn, _ int64) { c.SendText([]byte("tick")) },
		message: func(c *Conn, _ bool, p []byte) {
			switch rng.IntN(20) {
			case 0:
				c.Close(4000, "")
			case 1:
				c.Abort("")
			default:
				c.SendText(p)
			}
		},
		endTurn: func() {
			for slot, handle := range live {
				if h.loop.Conn(handle) != h.loop.ConnAt(slot) {
					t.Errorf("%+v is not in its slot", handle)
				}
				h.loop.ConnAt(slot).SendShared(frame)
			}
		},
	}
	s := start(t, Config{MaxSends: 3, OutboxBytesMax: 64 << 10, SendBufferBytes: 8 << 10, CloseTimeout: 30 * time.Millisecond, HeadTimeout: 30 * time.Millisecond}, h)
	var clients sync.WaitGroup
	for i := range uint64(8) {
		clients.Go(func() {
			rng := rand.New(rand.NewPCG(seed, 100+i))
			for range 20 {
				misbehave(t, s.addr, rng)
			}
		})
	}
	clients.Wait()
	await.True(t, "all are gone", func() bool { return s.loops[0].Stats().Connections == 0 })
	total := int64(0)
	for _, n := range s.loops[0].Stats().Closed {
		total += n
	}
	if opened.Load() != closed.Load() || total != closed.Load() || opened.Load() == 0 {
		t.Errorf("%d opened, %d closed, %d counted", opened.Load(), closed.Load(), total)
	}
	if got := s.loops[0].Stats().Panics; got != 0 {
		t.Errorf("%d panics", got)
	}
}

// misbehave is the life of one client.
func misbehave(t *testing.T, addr string, rng *rand.Rand) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(200 * time.Millisecond))
	text := wscase.Frame(wscase.Fin|wscase.Text, bytes.Repeat([]byte("t"), rng.IntN(2000)))
	in := []byte(handshake)
	for range rng.IntN(10) {
		in = append(in, text...)
	}
	switch rng.IntN(6) {
	case 0:
		in = in[:rng.IntN(len(in))]
	case 1:
		in = append(in, wscase.Frame(wscase.Fin|3, nil)...)
	case 2:
		in = append(in, wscase.Frame(wscase.Fin|wscase.Close, nil)...)
	}
	_, _ = conn.Write(in) // the server may be gone already
	buf := make([]byte, 4096)
	for range rng.IntN(30) {
		if _, err := conn.Read(buf); err != nil {
			return
		}
	}
}
