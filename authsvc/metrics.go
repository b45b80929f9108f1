package authsvc

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/authz"
)

// outcome labels besides the reasons of a refusal.
const (
	outcomeAllow     = "allow"
	outcomeMalformed = "malformed"
)

// endpointMetrics are the resolved children of one endpoint.
type endpointMetrics struct {
	seconds  prometheus.Observer
	outcomes map[string]prometheus.Counter // complete after New
}

type metrics struct {
	seconds  *prometheus.HistogramVec
	outcomes *prometheus.CounterVec
	lost     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{
		seconds: telemetry.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "carillon_authsvc_decision_seconds", Help: "Time from taking a request to its answer.",
			Buckets: prometheus.ExponentialBuckets(1e-6, 4, 10),
		}, []string{"endpoint"})),
		outcomes: telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carillon_authsvc_decisions_total", Help: "Decisions: allow, malformed, or the reason of the refusal.",
		}, []string{"endpoint", "reason"})),
		lost: telemetry.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "carillon_authsvc_answers_lost_total", Help: "Answers that could not be given to NATS.",
		})),
	}
}

// endpoint resolves the children, so that counting takes no look-up by labels
// and every outcome is exported from 0.
func (m *metrics) endpoint(name string) endpointMetrics {
	e := endpointMetrics{seconds: m.seconds.WithLabelValues(name), outcomes: map[string]prometheus.Counter{}}
	for _, outcome := range []string{
		outcomeAllow, outcomeMalformed, string(authz.BadSignature), string(authz.BadData),
		string(authz.TooLarge), string(authz.Forbidden), string(authz.Unavailable),
	} {
		e.outcomes[outcome] = m.outcomes.WithLabelValues(name, outcome)
	}
	return e
}
