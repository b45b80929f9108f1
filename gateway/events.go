package gateway

import (
	"strconv"
	"sync/atomic"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/gateway/internal/edge"
	"github.com/carillon-rt/carillon/kit/service"
	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/hook"
)

// events puts what happens to clients into the work queue of webhooks.
type events struct {
	*hook.Queue
	run string // begins the ids of this run of the node

	// atomic
	last atomic.Uint64
}

var _ edge.Events = (*events)(nil)

func newEvents(nc *nats.Conn, size int, deps service.Deps) (*events, error) {
	total := telemetry.Register(deps.Metrics, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "carillon_gateway_hooks_total", Help: "Webhook events about clients that the work queue has, that were tried again because it was away, or lost because it was away for long or too many waited.",
	}, []string{"reason"}))
	var counters [hook.Lost + 1]prometheus.Counter
	for fate := range counters {
		counters[fate] = total.WithLabelValues(hook.Fate(fate).String())
	}
	queue, err := hook.NewQueue(nc, hook.QueueConfig{
		Size: size, Log: deps.Log, Count: func(fate hook.Fate, n int) { counters[fate].Add(float64(n)) },
	})
	if err != nil {
		return nil, err
	}
	telemetry.Register(deps.Metrics, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "carillon_gateway_hooks_waiting", Help: "Webhook events about clients that wait for the work queue.",
	}, func() float64 { return float64(queue.Len()) }))
	local := deps.Cluster.Local()
	return &events{Queue: queue, run: local.Node + "/" + local.Incarnation + "/"}, nil
}

// Tell implements edge.Events.
func (e *events) Tell(app string, ev edge.Event) {
	e.Put(app, e.run+strconv.FormatUint(e.last.Add(1), 36), hook.Event{
		Name: ev.Kind, Channel: ev.Channel, UserID: ev.User, SocketID: ev.SocketID, Code: ev.Code, Reason: ev.Reason, TimeMs: ev.AtMs,
	})
}
