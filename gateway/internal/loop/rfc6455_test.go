package loop

import (
	"context"
	"testing"

	"github.com/carillon-rt/carillon/gateway/internal/ws/wscase"
	"github.com/carillon-rt/carillon/kit/await"
)

// TestRFC6455 runs the conformance table against a listening loop, on the
// system's poller and on the portable one.
func TestRFC6455(t *testing.T) {
	const messageBytesMax = 100_000
	cfg := Config{MessageBytesMax: messageBytesMax}
	t.Run("system", func(t *testing.T) { conform(t, serve(t, cfg, &script{}), messageBytesMax) })
	t.Run("portable", func(t *testing.T) { conform(t, portable(t, cfg, &script{}), messageBytesMax) })
}

func conform(t *testing.T, s *server, messageBytesMax int) {
	cases := wscase.Cases(messageBytesMax)
	if len(cases) < 60 {
		t.Fatalf("the table has %d cases", len(cases))
	}
	target := wscase.Target{Addr: s.addr, Path: "/", Echo: true}
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), wscase.Timeout)
			defer cancel()
			if err := target.Run(ctx, &c); err != nil {
				t.Error(err)
			}
		})
	}
	await.True(t, "all connections are gone", func() bool { return s.loops[0].Stats().Connections == 0 })
}

// TestRFC6455WithoutEcho runs the part of the table that makes sense against
// a server that greets and does not answer, as a real gateway does.
func TestRFC6455WithoutEcho(t *testing.T) {
	h := &script{open: func(c *Conn) { c.SendText([]byte("welcome")) }, message: func(*Conn, bool, []byte) {}}
	s := serve(t, Config{}, h)
	target := wscase.Target{Addr: s.addr, Path: "/"}
	ran := 0
	for _, c := range wscase.Cases(64 << 10) {
		if !target.Runs(&c) {
			continue
		}
		ran++
		t.Run(c.Name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), wscase.Timeout)
			defer cancel()
			if err := target.Run(ctx, &c); err != nil {
				t.Error(err)
			}
		})
	}
	if ran < 60 {
		t.Errorf("only %d cases ran", ran)
	}
}
