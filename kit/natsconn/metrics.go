package natsconn

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/telemetry"
)

type connMetrics struct {
	up          *prometheus.GaugeVec
	disconnects *prometheus.CounterVec
	reconnects  *prometheus.CounterVec
	slow        *prometheus.CounterVec
}

// roleMetrics are the children of one connection.
type roleMetrics struct {
	up          prometheus.Gauge
	disconnects prometheus.Counter
	reconnects  prometheus.Counter
}

func newConnMetrics(reg prometheus.Registerer) *connMetrics {
	byConn := []string{"conn"}
	return &connMetrics{
		up: telemetry.Register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "carillon_nats_connected", Help: "1 while the connection to NATS is up.",
		}, byConn)),
		disconnects: telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carillon_nats_disconnects_total", Help: "Connections to NATS lost.",
		}, byConn)),
		reconnects: telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carillon_nats_reconnects_total", Help: "Connections to NATS that came back.",
		}, byConn)),
		slow: telemetry.Register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "carillon_nats_slow_consumer_total", Help: "Times that a subscription began to drop messages.",
		}, []string{"subject"})),
	}
}

func (m *connMetrics) of(role string) roleMetrics {
	return roleMetrics{
		up:          m.up.WithLabelValues(role),
		disconnects: m.disconnects.WithLabelValues(role),
		reconnects:  m.reconnects.WithLabelValues(role),
	}
}
