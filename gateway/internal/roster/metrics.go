package roster

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/telemetry"
)

type metrics struct {
	deltas, snapshots, deltaFailed, malformed prometheus.Counter
	joinDone, joinFull, joinFailed            prometheus.Counter
}

func newMetrics(reg prometheus.Registerer, depth func() float64) *metrics {
	counter := func(name, help string) prometheus.Counter {
		return telemetry.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "carillon_gateway_" + name, Help: help}))
	}
	joins := telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "carillon_gateway_joins_total", Help: "Answers to connections that joined a presence channel.",
	}, []string{"reason"}))
	telemetry.Register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "carillon_gateway_roster_queue", Help: "Changes of subscriptions and members that are not summed up yet.",
	}, depth))
	return &metrics{
		deltas:      counter("presence_deltas_total", "Deltas made for presence owners, snapshots included."),
		snapshots:   counter("presence_snapshots_total", "Snapshots made for presence owners."),
		deltaFailed: counter("presence_deltas_failed_total", "Deltas sent without a usable answer; they are repeated."),
		malformed:   counter("presence_malformed_total", "Messages of presence nodes that could not be read."),
		joinDone:    joins.WithLabelValues("joined"),
		joinFull:    joins.WithLabelValues("full"),
		joinFailed:  joins.WithLabelValues("failed"),
	}
}
