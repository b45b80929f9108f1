package authsvc

import (
	"strconv"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/authz"
)

// outcome labels besides the reasons of a refusal.
const (
	outcomeAllow     = "allow"
	outcomeMalformed = "malformed"
	outcomeBusy      = "busy" // too many wait for the application
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

	waiting    prometheus.Gauge
	ruleErrors *prometheus.CounterVec
	keySets    *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	m := &metrics{
		seconds: telemetry.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "carillon_authsvc_decision_seconds", Help: "Time from taking a request to its answer.",
			Buckets: prometheus.ExponentialBuckets(1e-6, 4, 10),
		}, []string{"endpoint"})),
		outcomes: telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carillon_authsvc_decisions_total", Help: "Decisions: allow, malformed, busy, or the reason of the refusal.",
		}, []string{"endpoint", "reason"})),
		lost: telemetry.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "carillon_authsvc_answers_lost_total", Help: "Answers that could not be given to NATS.",
		})),
		waiting: telemetry.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "carillon_authsvc_waiting", Help: "Decisions that are being made and may wait for the application.",
		})),
		ruleErrors: telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carillon_authsvc_rule_errors_total", Help: "Conditions of policies that could not be evaluated, which is a no.",
		}, []string{"app"})),
		keySets: telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carillon_authsvc_key_set_fetches_total", Help: "Tries to fetch the key set of an issuer of tokens.",
		}, []string{"ok"})),
	}
	for _, ok := range []bool{true, false} {
		m.keySets.WithLabelValues(strconv.FormatBool(ok)) // exported from 0
	}
	return m
}

// endpoint resolves the children, so that counting takes no look-up by labels
// and every outcome is exported from 0.
func (m *metrics) endpoint(name string) endpointMetrics {
	e := endpointMetrics{seconds: m.seconds.WithLabelValues(name), outcomes: map[string]prometheus.Counter{}}
	for _, outcome := range []string{
		outcomeAllow, outcomeMalformed, outcomeBusy, string(authz.BadSignature), string(authz.BadData),
		string(authz.TooLarge), string(authz.Forbidden), string(authz.Unavailable), string(authz.BadToken), string(authz.ForeignToken),
		string(authz.TokenExpired), string(authz.NoChannel), string(authz.NoMethod), string(authz.NotAvailable),
	} {
		e.outcomes[outcome] = m.outcomes.WithLabelValues(name, outcome)
	}
	return e
}

func (m *metrics) keySetFetched(ok bool) { m.keySets.WithLabelValues(strconv.FormatBool(ok)).Inc() }
