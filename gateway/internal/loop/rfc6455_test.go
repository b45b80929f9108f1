package loop

import (
	"context"
	"testing"

	"github.com/carillon-rt/carillon/gateway/internal/ws/wscase"
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
	eventually(t, "all connections are gone", func() bool { return s.loops[0].Stats().Connections == 0 })
}
