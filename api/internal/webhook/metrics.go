package webhook

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/telemetry"
)

type metrics struct {
	attempts map[string]prometheus.Counter // by class of status
	seconds  prometheus.Histogram
	held     prometheus.Gauge

	// ends of an event for one endpoint, and of events that have no endpoint
	delivered, removed, dead, overflow, malformed, unwanted prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	attempts := telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "carillon_api_webhook_attempts_total", Help: "Webhook requests by class of status, or, over NATS, taken or refused; error: no answer.",
	}, []string{"code"}))
	events := telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "carillon_api_webhook_events_total",
		Help: "Webhook events by what became of them: delivered; dead (retries used up); overflow (too many waited, dead as well); " +
			"removed (webhook no longer configured); unwanted (no webhook asks for it); malformed.",
	}, []string{"reason"}))
	m := &metrics{
		attempts: map[string]prometheus.Counter{},
		seconds: telemetry.Register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "carillon_api_webhook_seconds", Help: "Time that endpoints take to answer.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		})),
		held: telemetry.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "carillon_api_webhook_held", Help: "Webhook events taken from the queue and not done.",
		})),
		delivered: events.WithLabelValues("delivered"), removed: events.WithLabelValues("removed"),
		dead: events.WithLabelValues("dead"), overflow: events.WithLabelValues("overflow"),
		malformed: events.WithLabelValues("malformed"), unwanted: events.WithLabelValues("unwanted"),
	}
	for _, c := range []string{"2xx", "3xx", "4xx", "5xx", "taken", "refused", "error"} {
		m.attempts[c] = attempts.WithLabelValues(c)
	}
	return m
}

// ended counts n events that an endpoint is done with.
func (m *metrics) ended(removed bool, n int) {
	if removed {
		m.removed.Add(float64(n))
		return
	}
	m.delivered.Add(float64(n))
}
