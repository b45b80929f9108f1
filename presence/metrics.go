package presence

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/kit/telemetry"
	"github.com/carillon-rt/carillon/proto/hook"
)

type metrics struct {
	owned, standby            prometheus.Gauge
	channels, members, online prometheus.Gauge
	deltas, resyncs           prometheus.Counter
	malformed, notOwner       prometheus.Counter
	queries                   prometheus.Counter
	evictions                 prometheus.Counter
	events                    prometheus.Counter
	eventsLost                prometheus.Counter
	turnSeconds               prometheus.Histogram
	hooks                     [hook.Lost + 1]prometheus.Counter // by their fate
}

func newMetrics(reg prometheus.Registerer) *metrics {
	gauge := func(name, help string) prometheus.Gauge {
		return telemetry.Register(reg, prometheus.NewGauge(prometheus.GaugeOpts{Name: "carillon_presence_" + name, Help: help}))
	}
	counter := func(name, help string) prometheus.Counter {
		return telemetry.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{Name: "carillon_presence_" + name, Help: help}))
	}
	return &metrics{
		owned:      gauge("shards_owned", "Shards that this node owns."),
		standby:    gauge("shards_standby", "Shards that this node follows."),
		channels:   gauge("channels", "Occupied channels in the shards owned."),
		members:    gauge("members", "Members of presence channels in the shards owned."),
		online:     gauge("online_users", "Signed-in users in the shards owned."),
		deltas:     counter("deltas_total", "Deltas taken from gateways, as owner or standby."),
		resyncs:    counter("resyncs_total", "Deltas answered with a request for a snapshot."),
		malformed:  counter("malformed_total", "Messages that could not be read."),
		notOwner:   counter("not_owner_total", "Deltas and queries refused because the shard has moved."),
		queries:    counter("queries_total", "Queries answered."),
		evictions:  counter("evictions_total", "Dead gateways taken out of a shard."),
		events:     counter("events_total", "Events published to subscribers."),
		eventsLost: counter("events_lost_total", "Events that could not be given to NATS."),
		turnSeconds: telemetry.Register(reg, prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "carillon_presence_event_lag_seconds", Help: "From taking a delta off the queue to its events and answer being out.",
			Buckets: prometheus.ExponentialBuckets(1e-5, 4, 10),
		})),
		hooks: [...]prometheus.Counter{
			hook.Sent:    counter("hooks_total", "Webhook events stored."),
			hook.Retried: counter("hooks_retried_total", "Webhook events that had to be sent again."),
			hook.Lost:    counter("hooks_dropped_total", "Webhook events lost because the stream did not take them in time, or too many waited."),
		},
	}
}

// hooked counts what became of webhook events.
func (m *metrics) hooked(fate hook.Fate, n int) { m.hooks[fate].Add(float64(n)) }
