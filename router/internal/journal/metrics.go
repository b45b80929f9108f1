package journal

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/telemetry"
)

// Metrics of the writers.
type Metrics struct {
	reg          prometheus.Registerer
	publications *prometheus.CounterVec
	batches      *prometheus.CounterVec
	failed       *prometheus.CounterVec
	retries      *prometheus.CounterVec
	duplicates   *prometheus.CounterVec
	ack          *prometheus.HistogramVec
}

// laneCounters are the children of one class of lanes.
type laneCounters struct {
	publications, batches, retries, duplicates prometheus.Counter
	failed, late, refused, conflicts           prometheus.Counter
	ack                                        prometheus.Observer
}

// NewMetrics registers the writers' metrics; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carillon_router_" + name, Help: help,
		}, append([]string{"lane"}, labels...)))
	}
	return &Metrics{
		reg:          reg,
		publications: counter("publications_total", "Publications written."),
		batches:      counter("batches_total", "Batches written."),
		failed:       counter("publications_failed_total", "Publications answered with an error, by reason.", "reason"),
		retries:      counter("batch_retries_total", "Batches sent to the journal again."),
		duplicates:   counter("duplicates_total", "Publications whose idempotency key was used before."),
		ack: telemetry.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "carillon_router_append_seconds", Help: "Time from sending a batch to the journal's acknowledgement.",
			Buckets: []float64{.0001, .0002, .0005, .001, .002, .005, .01, .05, .2, 1, 5, 25},
		}, []string{"lane"})),
	}
}

func (m *Metrics) lane(liveOnly bool) laneCounters {
	name := "durable"
	if liveOnly {
		name = "live"
	}
	return laneCounters{
		publications: m.publications.WithLabelValues(name),
		batches:      m.batches.WithLabelValues(name),
		retries:      m.retries.WithLabelValues(name),
		duplicates:   m.duplicates.WithLabelValues(name),
		failed:       m.failed.WithLabelValues(name, "unavailable"),
		late:         m.failed.WithLabelValues(name, "late"),
		refused:      m.failed.WithLabelValues(name, "queue_full"),
		conflicts:    m.failed.WithLabelValues(name, "conflict"),
		ack:          m.ack.WithLabelValues(name),
	}
}

func (m *Metrics) watchQueue(waiting func() int) {
	telemetry.Register(m.reg, prometheus.GaugeFunc(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "carillon_router_queued_publications", Help: "Publications that wait to be written.",
	}, func() float64 { return float64(waiting()) })))
}
