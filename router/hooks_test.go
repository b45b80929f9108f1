package router_test

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/await"
	"github.com/carillon-rt/carillon/kit/natstest"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/proto/hook"
	"github.com/carillon-rt/carillon/proto/message"
	"github.com/carillon-rt/carillon/proto/subject"
	"github.com/carillon-rt/carillon/router"
)

// TestHooksOutliveTheirQueue: an event of the time in which the work queue was
// away is there when the queue is.
func TestHooksOutliveTheirQueue(t *testing.T) {
	srv := natstest.Server(t)
	deps := srv.Deps(t, "r1", router.Role)
	start(t, deps)
	conns := srv.Conns(t)
	js, err := jetstream.New(conns.Req)
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), subject.HookStream); err != nil {
		t.Fatal(err)
	}
	publishOne(t, newPublisher(t, conns.Req), &message.Publication{
		Kind: message.ClientEvent, App: appID, Channel: "private-h", Event: "client-x", Data: []byte("1"),
	})
	eventually(t, "a failed attempt", func() bool { return metricSum(t, deps, "carillon_router_hooks_total") > 0 })
	// The server may still be removing the files of the one that was deleted.
	await.Success(t, "create the stream again", func() error {
		_, err := js.CreateStream(t.Context(), hook.StreamConfig(1))
		return err
	})
	eventually(t, "the event", func() bool {
		s, err := js.Stream(t.Context(), subject.HookStream)
		if err != nil {
			return false
		}
		var ev hook.Event
		msg, err := s.GetMsg(t.Context(), 1)
		return err == nil && json.Unmarshal(msg.Data, &ev) == nil && ev.Event == "client-x"
	})
}

// metricSum adds up all children of a counter that have these label values.
func metricSum(t *testing.T, deps service.Deps, name string, values ...string) (sum float64) {
	t.Helper()
	families, err := deps.Metrics.(prometheus.Gatherer).Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var has []string
			for _, l := range m.GetLabel() {
				has = append(has, l.GetValue())
			}
			if slices.ContainsFunc(values, func(v string) bool { return !slices.Contains(has, v) }) {
				continue
			}
			sum += m.GetCounter().GetValue()
		}
	}
	return sum
}
