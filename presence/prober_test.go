package presence

import (
	"testing"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/presence"
)

// Nobody answers right after NATS is back: the gateways may not be back yet.
func TestNobodyIsGoneRightAfterNATSIsBack(t *testing.T) {
	srv := natstest.Server(t)
	conns := srv.Conns(t)
	p := newProber(conns.Req, natstest.Logger(t), nil)
	conns.OnReconnect(p.reconnected)
	gateway := presence.Mark{Node: "g", Incarnation: "1"}
	if !p.gone(t.Context(), gateway) {
		t.Fatal("a gateway that nobody answers for is not gone")
	}
	srv.Stop()
	srv.Start()
	await.True(t, "the connection is back", func() bool { return conns.Req.IsConnected() && conns.Req.Stats().Reconnects > 0 })
	if p.gone(t.Context(), gateway) {
		t.Fatal("a gateway is gone although it had no time to come back")
	}
}
