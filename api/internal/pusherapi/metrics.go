package pusherapi

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/carillon-rt/carillon/kit/telemetry"
)

// statuses are all that the API answers with.
var statuses = [...]int{
	http.StatusOK, http.StatusAccepted, http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound,
	http.StatusMethodNotAllowed, http.StatusRequestTimeout, http.StatusConflict, http.StatusRequestEntityTooLarge, http.StatusTooManyRequests,
	http.StatusInternalServerError,
	http.StatusServiceUnavailable,
}

// spanNames are the names of server spans by route.
var spanNames = [...]string{
	routeNone: "pusher", routeEvents: "pusher events", routeBatch: "pusher batch_events", routeChannels: "pusher channels",
	routeChannel: "pusher channel", routeUsers: "pusher users", routeChannelEvents: "pusher channel events",
	routeTerminate: "pusher terminate_connections", routeUp: "pusher up", routeReady: "pusher ready",
}

// metrics has its children resolved, as a trigger should cost no label look-up.
type metrics struct {
	requests map[int]prometheus.Counter
	publish  prometheus.Observer
	read     prometheus.Observer
	overRate prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	requests := telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "carillon_api_requests_total", Help: "API requests by dialect and status.",
	}, []string{"dialect", "code"}))
	buckets := []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5}
	publish := telemetry.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "carillon_api_publish_seconds", Help: "Time to answer a publishing request.", Buckets: buckets,
	}, []string{"dialect"}))
	read := telemetry.Register(reg, prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "carillon_api_read_seconds", Help: "Time to answer any other request.", Buckets: buckets,
	}, []string{"dialect"}))
	limited := telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "carillon_api_limited_total", Help: "API requests that were refused for a limit of the app, answered 429.",
	}, []string{"dialect", "reason"}))
	m := &metrics{
		overRate: limited.WithLabelValues("pusher", "publish_rate"),
		requests: make(map[int]prometheus.Counter, len(statuses)),
		publish:  publish.WithLabelValues("pusher"), read: read.WithLabelValues("pusher"),
	}
	for _, status := range statuses {
		m.requests[status] = requests.WithLabelValues("pusher", strconv.Itoa(status))
	}
	return m
}

func (m *metrics) done(r route, status int, took time.Duration) {
	if c := m.requests[status]; c != nil {
		c.Inc()
	}
	switch r {
	case routeEvents, routeBatch, routeChannelEvents:
		m.publish.Observe(took.Seconds())
	case routeChannels, routeChannel, routeUsers, routeTerminate:
		m.read.Observe(took.Seconds())
	}
}

func endSpan(span trace.Span, status int) {
	span.SetAttributes(attribute.Int("http.response.status_code", status))
	if status >= http.StatusInternalServerError {
		span.SetStatus(codes.Error, http.StatusText(status))
	}
	span.End()
}
