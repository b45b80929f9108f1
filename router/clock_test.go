package router_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/proto/subject"
	"github.com/carillon-rt/carillon/router"
)

// A router whose machine's clock is an hour behind that of the one before it
// goes on from the time that gateways know, and tells the next one.
func TestRouterOnAMachineThatIsBehind(t *testing.T) {
	srv := natstest.Server(t)
	nc := srv.Conns(t).Live
	told := uint64(time.Now().Add(time.Hour).UnixMicro())
	gateway, err := nc.Subscribe(subject.Clock, func(m *nats.Msg) {
		for _, answer := range [][]byte{[]byte("noon"), strconv.AppendUint(nil, told, 10)} {
			if err := m.Respond(answer); err != nil {
				t.Error(err)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	tp := listen(t, nc)
	begins := func(node string) {
		t.Helper()
		start(t, srv.Deps(t, node, router.Role))
		if r := publishOne(t, newPublisher(t, srv.Conns(t).Req, node), event("plain-"+node, "x")); r.Err != nil {
			t.Fatal(r.Err)
		}
		eventually(t, "it is delivered", func() bool { return len(tp.of("plain-"+node)) == 1 })
		if left := tp.left("plain-" + node); left < told {
			t.Errorf("%s stamps what it publishes with %d, before %d", node, left, told)
		}
	}
	begins("r1")
	if err := gateway.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	begins("r2")
}
