package rollcall

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/telemetry"
)

type metrics struct {
	doubts       [reasons]prometheus.Counter
	done, failed prometheus.Counter
	malformed    prometheus.Counter
	waiting      prometheus.Gauge
}

func newMetrics(reg prometheus.Registerer) *metrics {
	counters := func(name, help string) *prometheus.CounterVec {
		return telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{Name: "carillon_gateway_" + name, Help: help}, []string{"reason"}))
	}
	m := &metrics{
		malformed: telemetry.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "carillon_gateway_presence_beats_malformed_total", Help: "Heartbeats of presence nodes that could not be read.",
		})),
		waiting: telemetry.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "carillon_gateway_presence_repairs_waiting", Help: "Channels whose presence is being asked for, or waits for it.",
		})),
	}
	doubts := counters("presence_doubts_total", "Times that events of presence may have been missed, by shard and partition.")
	for why := range reasons {
		m.doubts[why] = doubts.WithLabelValues(why.String())
	}
	repairs := counters("presence_repairs_total", "Channels whose presence was asked for because of that.")
	m.done, m.failed = repairs.WithLabelValues("done"), repairs.WithLabelValues("failed")
	return m
}

func (m *metrics) doubt(counts [reasons]uint64) {
	for why, n := range counts {
		m.doubts[why].Add(float64(n))
	}
}
