package loop

import (
	"testing"
	"time"

	"github.com/carillon-rt/carillon/kit/await"
	gobwas "github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// silence is connections that are asked whether they are still there: one
// round is what 25 s are to an idle gateway, pressed into the time that it
// takes.
type silence struct {
	server  *server
	clients *bareClients
	pong    []byte
	heard   int // pongs of this round; of the loop
	done    chan struct{}
	buf     []byte
}

const pingText = `{"event":"pusher:ping","data":"{}"}`

func newSilence(t testing.TB, conns int) *silence {
	p := &silence{done: make(chan struct{}, 1), buf: make([]byte, 4096)}
	frame := gobwas.MaskFrame(gobwas.NewTextFrame([]byte(`{"event":"pusher:pong","data":{}}`)))
	pong, err := gobwas.CompileFrame(frame)
	if err != nil {
		t.Fatal(err)
	}
	p.pong = pong
	h := &script{
		tick: func(c *Conn, now int64) {
			c.SendText([]byte(pingText))
			c.SetTimer(now + int64(25*time.Second))
		},
		message: func(*Conn, bool, []byte) {
			if p.heard++; p.heard == conns {
				p.heard = 0
				p.done <- struct{}{}
			}
		},
	}
	p.server = serve(t, Config{}, h)
	p.clients = openBare(t, p.server.listener.Addr(), conns)
	return p
}

// round has all timers come, and every client answer.
func (p *silence) round(t testing.TB) {
	l := p.server.loops[0]
	l.Post(func() { l.Each(func(c *Conn) { c.SetTimer(1) }) })
	p.clients.drain(p.buf, 2+len(pingText))
	for _, fd := range p.clients.fds {
		if _, err := unix.Write(fd, p.pong); err != nil {
			t.Fatal(err)
		}
	}
	<-p.done
}

// BenchmarkKeepAlive is the tick that pings, the write and the pong of 4,000
// connections. The budget is 0.4 us of CPU per connection and second at an
// interval of 25 s, 10 us per exchange; nearly all of it is the kernel's.
func BenchmarkKeepAlive(b *testing.B) {
	const conns = 4000
	p := newSilence(b, conns)
	onLoop := func() (cpu time.Duration) {
		p.server.on(func() { cpu = threadCPU() })
		return cpu
	}
	before := onLoop()
	for range b.N {
		p.round(b)
	}
	each := float64((onLoop() - before).Nanoseconds()) / 1000 / conns / float64(b.N)
	b.ReportMetric(each, "loop-us/exchange")
	b.ReportMetric(each/25, "us/conn/s")
}

// BenchmarkWheel is the timing wheel alone: each of 100,000 idle connections
// is met and put on once in 25 s.
func BenchmarkWheel(b *testing.B) {
	const conns, interval = 100_000, int64(25 * time.Second)
	var s slots
	w := &wheel{slots: &s}
	for i := range conns {
		c := s.take()
		c.timerAt = interval * int64(i) / conns
		w.arm(c)
	}
	now := int64(0)
	look := func(c *Conn) {
		if c.timerAt <= now {
			c.timerAt = now + interval
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		for end := now + interval; now < end; now += wheelTick {
			w.advance(now, timersPerTurn, look)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/conns, "ns/conn")
}

// TestKeepAliveAllocatesNothing: neither the tick, nor the ping, nor its pong.
func TestKeepAliveAllocatesNothing(t *testing.T) {
	const conns, rounds = 200, 10
	p := newSilence(t, conns)
	// The runtime allocates something now and then, and each round posts twice.
	if got := mallocsPer(rounds, func() { p.round(t) }); got > 20 {
		t.Errorf("%v allocations for %d pings and pongs, want none", got, conns)
	}
	p.clients.close()
	await.True(t, "all are gone", func() bool { return p.server.loops[0].Stats().Connections == 0 })
}
