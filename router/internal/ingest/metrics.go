package ingest

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/publisher"
)

// Metrics of the doors.
type Metrics struct {
	requests, documents, plain prometheus.Counter
	malformed, expired         prometheus.Counter
	redelivered, terminated    prometheus.Counter
	delayed, overRate          prometheus.Counter
	held                       prometheus.Gauge
	refused                    map[publisher.Code]prometheus.Counter
}

var reasons = map[publisher.Code]string{
	publisher.Unavailable: "unavailable", publisher.Busy: "busy", publisher.UnknownApp: "unknown_app",
	publisher.AppDisabled: "app_disabled", publisher.BadChannel: "bad_channel", publisher.BadEvent: "bad_event",
	publisher.TooLarge: "too_large", publisher.BadPublication: "bad_publication",
}

// NewMetrics registers the doors' metrics; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	counter := func(name, help string) prometheus.Counter {
		return telemetry.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
			Name: "carillon_router_" + name, Help: help,
		}))
	}
	refused := telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "carillon_router_publications_refused_total", Help: "Publications refused at the door, by reason.",
	}, []string{"reason"}))
	m := &Metrics{
		requests:    counter("requests_total", "Publish requests of api and gateways."),
		documents:   counter("documents_total", "Publish requests of backends."),
		plain:       counter("plain_total", "Plain messages taken from the work queue."),
		malformed:   counter("requests_malformed_total", "Publish requests that could not be read."),
		expired:     counter("requests_expired_total", "Publish requests answered before all of their publications were written."),
		redelivered: counter("plain_redelivered_total", "Plain messages that came again."),
		terminated:  counter("plain_terminated_total", "Plain messages removed because they can never be published."),
		delayed:     counter("plain_delayed_total", "Plain messages that had to wait, because their app was over limits.publishes_per_second."),
		held: telemetry.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "carillon_router_plain_held", Help: "Plain messages that wait for their turn at this router now.",
		})),
		overRate: refused.WithLabelValues("publish_rate"),
		refused:  map[publisher.Code]prometheus.Counter{},
	}
	for code, reason := range reasons {
		m.refused[code] = refused.WithLabelValues(reason)
	}
	return m
}

func (m *Metrics) refuse(err error) {
	var e *publisher.Error
	if !errors.As(err, &e) {
		return
	}
	if c := m.refused[e.Code]; c != nil {
		c.Inc()
	}
}
