package loop

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	gobwas "github.com/gobwas/ws"

	"github.com/carillon-rt/carillon/gateway/internal/ws"
	"github.com/carillon-rt/carillon/kit/await"
)

func TestWorst(t *testing.T) {
	debts := []debt{{1, 100, 5}, {2, 300, 9}, {3, 200, 7}, {4, 200, 6}, {5, 1, 1}, {6, 200, 6}}
	for _, tt := range []struct {
		excess int64
		want   string
	}{
		{-10, "[]"},
		{0, "[]"},
		{1, "[2]"},
		{300, "[2]"},
		{301, "[2 4]"},
		{501, "[2 4 6]"},
		{701, "[2 4 6 3]"},
		{1001, "[2 4 6 3 1 5]"},
		{1 << 40, "[2 4 6 3 1 5]"},
	} {
		slots := []int32{}
		for _, d := range worst(append([]debt(nil), debts...), tt.excess) {
			slots = append(slots, d.slot)
		}
		if got := fmt.Sprint(slots); got != tt.want {
			t.Errorf("to free %d bytes: %s, want %s", tt.excess, got, tt.want)
		}
	}
	if len(worst(nil, 1)) != 0 {
		t.Error("somebody was chosen of none")
	}
}

// Three stop reading, and the memory runs out: the one that costs most is
// closed, the others get everything later, and those that read all the while
// notice nothing.
func TestTheWorstOutboxIsShed(t *testing.T) {
	const limit, piece = 1 << 20, 8 << 10
	f, said := &fan{}, &lines{}
	s := startHandler(t, Config{
		SendBufferBytes: 8 << 10, OutboxBytesMax: 64 << 20, OutboxAgeMax: time.Minute, MemoryMax: limit,
		Log: slog.New(slog.NewTextHandler(said, nil)),
	}, f.script())
	stalled := make([]*client, 3)
	for i := range stalled {
		stalled[i] = s.open()
		limitReadBuffer(t, stalled[i].conn)
	}
	received := make([]atomic.Int64, 2)
	for i := range received {
		go s.open().countFrames(&received[i])
	}
	frame := &Frame{Bytes: ws.AppendText(nil, bytes.Repeat([]byte("m"), piece))}
	send := func(to, n int) {
		s.on(func() {
			for range n {
				s.loops[0].ConnAt(int32(to)).SendShared(frame)
			}
		})
	}
	pieces := []int{2, 8, 32} // 16 KiB, 64 KiB, 256 KiB, of which the kernel takes some
	for i, n := range pieces {
		send(i, n)
	}
	rounds := 0
	for f.closed.n.Load() == 0 {
		if rounds++; rounds > 2*limit/piece {
			t.Fatal("nobody was closed")
		}
		send(1, 4)
		send(3, 1)
		send(4, 1)
		await.True(t, "the others have it", func() bool {
			return received[0].Load() == int64(rounds) && received[1].Load() == int64(rounds)
		})
	}
	if got := f.closed.all(); len(got) != 1 || got[0] != "slow 4100" {
		t.Errorf("closed: %v", got)
	}
	if st := s.loops[0].Stats(); st.SlowMemory != 1 || st.SlowBytes != 0 || st.OutboxBytes > limit*7/8 {
		t.Errorf("closed %d for memory and %d for bytes, %d bytes are left", st.SlowMemory, st.SlowBytes, st.OutboxBytes)
	}
	if !strings.Contains(said.String(), "read slowest were closed") {
		t.Errorf("the log says %q", said.String())
	}
	stalled[1].readsPieces(piece, -1)
	stalled[0].readsPieces(piece, pieces[0])
	stalled[2].readsPieces(piece, pieces[2])
	await.True(t, "nothing waits any more", func() bool { return s.loops[0].Stats().OutboxBytes == 0 })
	s.on(func() {
		if b := &s.loops[0].writer.backlog; len(b.slots) != 0 || b.bytes != 0 {
			t.Errorf("%v with %d bytes are remembered", b.slots, b.bytes)
		}
	})
}

// readsPieces reads n whole frames, or with -1 as many as come before a close
// frame.
func (c *client) readsPieces(bytes, n int) {
	c.t.Helper()
	for i := 0; i != n; i++ {
		op, b := c.frame()
		if op == gobwas.OpClose && n < 0 {
			if code, _ := gobwas.ParseCloseFrameData(b); code != 4100 {
				c.t.Errorf("closed with %d, want 4100", code)
			}
			return
		}
		if op != gobwas.OpText || len(b) != bytes {
			c.t.Fatalf("frame %d has %d bytes and kind %d", i, len(b), op)
		}
	}
}

// lines is a log that can be read while it is written.
type lines struct{ text atomic.Value }

func (l *lines) Write(p []byte) (int, error) {
	l.text.Store(l.String() + string(p))
	return len(p), nil
}

func (l *lines) String() string {
	text, _ := l.text.Load().(string)
	return text
}

// Connections count while they are there, those with TLS for what they cost.
func TestFull(t *testing.T) {
	for _, way := range []struct {
		name  string
		start func(testing.TB, Config, *script) *server
		each  int64
	}{{"system", serve, connectionBytes}, {"portable", portable, connectionBytes + pipeBytes}} {
		t.Run(way.name, func(t *testing.T) {
			s := way.start(t, Config{MemoryMax: 2 * way.each}, &script{})
			full := func() (is bool) {
				s.on(func() { is = s.loops[0].Full() })
				return is
			}
			first := s.open()
			if full() {
				t.Error("full with one connection of two")
			}
			s.open()
			if !full() {
				t.Error("not full with two connections of two")
			}
			_ = first.conn.Close()
			await.True(t, "there is room again", func() bool { return !full() })
		})
	}
}
