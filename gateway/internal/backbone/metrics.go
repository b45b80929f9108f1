package backbone

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/telemetry"
)

// feedMetrics has no partition label: a partition is found in the log.
type feedMetrics struct {
	batches      prometheus.Counter
	publications prometheus.Counter
	repeats      prometheus.Counter
	malformed    prometheus.Counter
	repairs      prometheus.Counter
	repaired     prometheus.Counter
	broken       prometheus.Counter
	behind       prometheus.Gauge
	failed       prometheus.Counter
}

func newFeedMetrics(reg prometheus.Registerer, recentBytes func() int) *feedMetrics {
	counter := func(name, help string) prometheus.Counter {
		return telemetry.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "carillon_gateway_" + name, Help: help}))
	}
	telemetry.Register(reg, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "carillon_gateway_recent_bytes", Help: "Memory of the batches that are kept for clients that come back.",
	}, func() float64 { return float64(recentBytes()) }))
	return &feedMetrics{
		batches:      counter("batches_total", "Batches delivered."),
		publications: counter("batch_publications_total", "Publications in the batches delivered, whether anybody here wants them or not."),
		repeats:      counter("batch_repeats_total", "Batches dropped because they had been delivered before."),
		malformed:    counter("batch_malformed_total", "Messages that could not be read and were ignored."),
		repairs:      counter("repairs_total", "Gaps that were read from the stream."),
		repaired:     counter("repaired_batches_total", "Batches that came from the stream to fill a gap."),
		broken:       counter("partitions_broken_total", "Gaps that could not be filled; subscribers were told."),
		failed:       counter("stream_reads_failed_total", "Reads of the stream without an answer, or with a refusal."),
		behind: telemetry.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "carillon_gateway_partitions_behind", Help: "Partitions that are being repaired or have not started.",
		})),
	}
}
