package hook

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/telemetry"
)

// Outcomes of questions.
const (
	answered     = "answered"     // a result, which may be none
	refused      = "refused"      // an error of the application
	disconnected = "disconnected" // the application ends the connection
	fromCache    = "cached"       // besides one of the above
	timeout      = "timeout"
	unreachable  = "unreachable" // no connection, or no NATS responder
	overloaded   = "overloaded"  // HTTP 429 or 5xx, gRPC Unavailable or ResourceExhausted
	status       = "status"      // another status that is no success
	malformed    = "malformed"   // not the message that it should be, or nonsense
	full         = "full"        // of requests that are under way, or wait
	open         = "open"        // not asked, as it has failed too often
)

var outcomes = []string{
	answered, refused, disconnected, fromCache, timeout, unreachable, overloaded, status, malformed, full, open,
}

func outcomeOf(out Answer) string {
	switch v := out.Verdict(); {
	case v == nil:
		return answered
	case v.Disconnect:
		return disconnected
	}
	return refused
}

type metrics struct {
	seconds *prometheus.HistogramVec
	total   *prometheus.CounterVec
	open    *prometheus.GaugeVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{
		seconds: telemetry.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "carillon_authsvc_hook_seconds", Help: "Time until a hook's answer, or until none was awaited any more.",
			Buckets: prometheus.ExponentialBuckets(0.0005, 2, 14),
		}, []string{"app", "hook"})),
		total: telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carillon_authsvc_hook_requests_total", Help: "Questions to hooks by their outcome.",
		}, []string{"app", "hook", "outcome"})),
		open: telemetry.Register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "carillon_authsvc_hook_open", Help: "1 while a hook is not asked because it has failed too often.",
		}, []string{"app", "hook"})),
	}
}

// of resolves the counters of an endpoint, so that each is exported from 0.
func (m *metrics) of(key name) map[string]prometheus.Counter {
	counters := map[string]prometheus.Counter{}
	for _, o := range outcomes {
		counters[o] = m.total.WithLabelValues(key.app, key.hook, o)
	}
	return counters
}
