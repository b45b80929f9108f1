package loop

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/carillon-rt/carillon/gateway/internal/ws"
	"github.com/carillon-rt/carillon/gateway/internal/ws/wscase"
	"github.com/carillon-rt/carillon/kit/await"
	gobwas "github.com/gobwas/ws"
)

// slowScript closes slow connections with a code of their own.
type slowScript struct{ *script }

func (slowScript) SlowClose(*Conn) (int, string) { return 4100, "too slow" }

// TestBlockedOutputKeepsItsOrder: a client that reads late gets every byte of
// shared and private frames in the order they were queued.
func TestBlockedOutputKeepsItsOrder(t *testing.T) {
	run := func(t *testing.T, start func(testing.TB, Config, *script) *server) {
		const rounds, perRound = 200, 10
		s := start(t, Config{SendBufferBytes: 8 << 10, OutboxBytesMax: 64 << 20, OutboxAgeMax: time.Minute}, &script{})
		c := s.open()
		n := uint32(0)
		next := func() []byte {
			b := binary.BigEndian.AppendUint32(nil, n)
			b = append(b, bytes.Repeat([]byte{byte(n)}, int(n%3000))...)
			n++
			return ws.AppendFrame(nil, ws.OpBinary, b)
		}
		for range rounds {
			s.on(func() {
				conn := s.loops[0].ConnAt(0)
				for i := range perRound {
					if i%3 == 0 {
						conn.Send(next())
					} else {
						conn.SendShared(&Frame{Bytes: next()})
					}
				}
			})
		}
		await.True(t, "the connection blocked", func() bool { return s.loops[0].Stats().WouldBlock > 0 })
		for want := range uint32(rounds * perRound) {
			_, b := c.frame()
			if got := binary.BigEndian.Uint32(b); got != want || len(b) != 4+int(want%3000) || bytes.Count(b[4:], []byte{byte(want)}) != len(b)-4 {
				t.Fatalf("frame %d: number %d, %d bytes", want, got, len(b))
			}
		}
		pending := -1
		await.True(t, "nothing is pending", func() bool {
			s.on(func() { pending = s.loops[0].ConnAt(0).Pending() })
			return pending == 0
		})
		c.write(wscase.Frame(wscase.Fin|wscase.Text, []byte("alive")))
		c.wantText("alive")
	}
	t.Run("system", func(t *testing.T) { run(t, serve) })
	t.Run("portable", func(t *testing.T) { run(t, portable) })
}

// limitReadBuffer keeps the kernel from taking everything for the client.
func limitReadBuffer(t *testing.T, conn net.Conn) {
	t.Helper()
	if err := conn.(*net.TCPConn).SetReadBuffer(8 << 10); err != nil {
		t.Fatal(err)
	}
}

// fan is a handler's state for tests that publish to all connections.
type fan struct {
	slots  []int32
	closed journal
}

func (f *fan) script() *script {
	return &script{
		open: func(c *Conn) { f.slots = append(f.slots, c.Handle().Slot) },
		closed: func(c *Conn, why Closure) {
			f.closed.add("%v %d", why.Cause, why.Code)
			for i, slot := range f.slots {
				if slot == c.Handle().Slot {
					f.slots = append(f.slots[:i], f.slots[i+1:]...)
					return
				}
			}
		},
	}
}

func (f *fan) publish(s *server, send func(c *Conn)) {
	s.on(func() {
		for _, slot := range f.slots {
			send(s.loops[0].ConnAt(slot))
		}
	})
}

// TestASlowReaderIsClosedAndOthersAreNot publishes until the reader that
// doesn't read is over its limit of bytes; the others get everything.
func TestASlowReaderIsClosedAndOthersAreNot(t *testing.T) {
	frame := &Frame{Bytes: ws.AppendText(nil, bytes.Repeat([]byte("m"), 4<<10))}
	t.Run("shared frames", func(t *testing.T) {
		closeSlowReader(t, func(c *Conn) { c.SendShared(frame) })
	})
	t.Run("private frames", func(t *testing.T) {
		closeSlowReader(t, func(c *Conn) { c.Send(frame.Bytes) })
	})
	t.Run("both", func(t *testing.T) {
		closeSlowReader(t, func(c *Conn) { c.Send(frame.Bytes); c.SendShared(frame); c.Send(frame.Bytes) })
	})
}

func closeSlowReader(t *testing.T, send func(c *Conn)) {
	f := &fan{}
	s := startHandler(t, Config{SendBufferBytes: 8 << 10, OutboxBytesMax: 256 << 10}, f.script())
	slow := s.open()
	limitReadBuffer(t, slow.conn)
	received := make([]atomic.Int64, 5)
	for i := range received {
		c := s.open()
		go c.countFrames(&received[i])
	}
	publishUntilClosed(t, s, f, send, received)
	if got := f.closed.all(); len(got) != 1 || got[0] != "slow 4100" {
		t.Errorf("closed: %v", got)
	}
	if st := s.loops[0].Stats(); st.SlowBytes != 1 || st.Closed[CauseSlow] != 1 {
		t.Errorf("counted %d, %d", st.SlowBytes, st.Closed[CauseSlow])
	}
	slow.readsItsClose()
}

// countFrames reads frames until the connection ends.
func (c *client) countFrames(n *atomic.Int64) {
	for {
		h, err := gobwas.ReadHeader(c.in)
		if err != nil {
			return
		}
		if _, err := io.CopyN(io.Discard, c.in, h.Length); err != nil {
			return
		}
		n.Add(1)
	}
}

// publishUntilClosed publishes, each time until all that read have it.
func publishUntilClosed(t *testing.T, s *server, f *fan, send func(c *Conn), received []atomic.Int64) {
	t.Helper()
	for published := 1; f.closed.n.Load() == 0; published++ {
		if published > 10_000 {
			t.Fatal("the slow reader was never closed")
		}
		before := received[0].Load()
		f.publish(s, send)
		await.True(t, "the others have it", func() bool {
			all := received[0].Load()
			for i := range received {
				if n := received[i].Load(); n == before || n != all {
					return false
				}
			}
			return true
		})
	}
}

// readsItsClose reads what was under way: whole frames, then why it was
// closed.
func (c *client) readsItsClose() {
	c.t.Helper()
	for {
		op, b := c.frame()
		if op == gobwas.OpClose {
			if code, reason := gobwas.ParseCloseFrameData(b); code != 4100 || reason != "too slow" {
				c.t.Errorf("closed with %d %q", code, reason)
			}
			break
		}
		if string(b) != strings.Repeat("m", 4<<10) {
			c.t.Fatalf("a frame of %d bytes was damaged", len(b))
		}
	}
	c.wantEnd()
}

// startHandler serves with slowScript around h.
func startHandler(t *testing.T, cfg Config, h *script) *server {
	t.Helper()
	l, err := New[func()](cfg, slowScript{h})
	if err != nil {
		t.Fatal(err)
	}
	h.loop = l
	s := &server{t: t, loops: []*Loop[func()]{l}}
	s.start(listenPlain)
	return s
}

// TestAnAnswerMayBeLargerThanTheOutbox: a message for one client only is what
// it asked for. One such message is none too many, whatever its size; what
// waits besides is.
func TestAnAnswerMayBeLargerThanTheOutbox(t *testing.T) {
	f := &fan{}
	s := startHandler(t, Config{OutboxBytesMax: 64 << 10, OutboxAgeMax: time.Minute}, f.script())
	c := s.open()
	answer := bytes.Repeat([]byte("a"), 4<<20) // more than the kernel takes
	f.publish(s, func(c *Conn) { c.SendMessage(answer, true) })
	f.publish(s, func(c *Conn) { c.SendText([]byte("more")) })
	if _, b := c.frame(); !bytes.Equal(b, answer) {
		t.Fatalf("read %d bytes", len(b))
	}
	c.wantText("more")
	f.publish(s, func(c *Conn) { c.SendMessage(answer, true) })
	frame := &Frame{Bytes: ws.AppendText(nil, answer[:1<<20])}
	for range 1 + len(answer)>>20 { // what the kernel took of the answer may wait besides, too
		f.publish(s, func(c *Conn) { c.SendShared(frame) })
	}
	await.True(t, "it was closed", func() bool { return f.closed.n.Load() == 1 })
	if st := s.loops[0].Stats(); st.SlowBytes != 1 {
		t.Errorf("counted %d", st.SlowBytes)
	}
}

func TestAReaderThatStopsIsClosedForAge(t *testing.T) {
	f := &fan{}
	s := serve(t, Config{SendBufferBytes: 8 << 10, OutboxBytesMax: 64 << 20, OutboxAgeMax: 50 * time.Millisecond, CloseTimeout: 50 * time.Millisecond}, f.script())
	c := s.open()
	limitReadBuffer(t, c.conn)
	frame := &Frame{Bytes: ws.AppendText(nil, bytes.Repeat([]byte("m"), 8<<20))}
	f.publish(s, func(c *Conn) { c.SendShared(frame) })
	await.True(t, "it was closed", func() bool { return f.closed.n.Load() == 1 })
	if got := f.closed.all()[0]; got != "slow 1008" {
		t.Errorf("closed: %v", got)
	}
	if got := s.loops[0].Stats().SlowAge; got != 1 {
		t.Errorf("counted %d", got)
	}
	await.True(t, "the socket was closed after the timeout", func() bool { return s.loops[0].Stats().Connections == 0 })
}
