package centrifugoapi

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/telemetry"
)

// metrics of one way into the API. The first three are those of all APIs, see
// pusherapi.
type metrics struct {
	dialect  string
	requests *prometheus.CounterVec
	publish  prometheus.Observer
	read     prometheus.Observer
	limited  prometheus.Counter
	errors   map[uint32]prometheus.Counter // by code
}

// counted are the codes by which errors are counted. Those of applications are one.
var counted = [...]uint32{
	codeInternal, codeUnauthorized, codeUnknownChannel, codePermissionDenied, codeMethodNotFound, codeLimitExceeded, codeBadRequest,
	codeNotAvailable, codeTooManyRequests, codeUnrecoverable, codeConflict, codeApplication,
}

func newMetrics(reg prometheus.Registerer, dialect string) *metrics {
	buckets := []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}
	m := &metrics{
		dialect: dialect, errors: make(map[uint32]prometheus.Counter, len(counted)),
		requests: telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carillon_api_requests_total", Help: "API requests by dialect and status.",
		}, []string{"dialect", "code"})),
		publish: telemetry.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "carillon_api_publish_seconds", Help: "Time to answer a publishing request.", Buckets: buckets,
		}, []string{"dialect"})).WithLabelValues(dialect),
		read: telemetry.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "carillon_api_read_seconds", Help: "Time to answer any other request.", Buckets: buckets,
		}, []string{"dialect"})).WithLabelValues(dialect),
		limited: telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carillon_api_limited_total", Help: "API requests that were refused for a limit of the app, answered 429.",
		}, []string{"dialect", "reason"})).WithLabelValues(dialect, "publish_rate"),
	}
	errors := telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "carillon_api_centrifugo_errors_total",
		Help: "Errors that calls of the Centrifugo server API were answered with, by its codes; those of applications are 400.",
	}, []string{"code"}))
	for _, code := range counted {
		m.errors[code] = errors.WithLabelValues(strconv.Itoa(int(code)))
	}
	return m
}

// failed counts an error that is answered.
func (m *metrics) failed(code uint32) {
	if code == codeTooManyRequests {
		m.limited.Inc()
	}
	if c := m.errors[min(code, codeApplication)]; c != nil {
		c.Inc()
	}
}

// done counts a request: what publishes is timed apart from the rest.
func (m *metrics) done(name string, status int, took time.Duration) {
	m.requests.WithLabelValues(m.dialect, strconv.Itoa(status)).Inc()
	switch name {
	case "publish", "broadcast", "batch", "":
		m.publish.Observe(took.Seconds())
	default:
		m.read.Observe(took.Seconds())
	}
}
