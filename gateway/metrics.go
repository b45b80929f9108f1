package gateway

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/gateway/internal/edge"
	"github.com/carillon-rt/carillon/gateway/internal/loop"
	"github.com/carillon-rt/carillon/kit/telemetry"
)

// collector exports what loops and hub count. The counters live in the loops
// and are read when somebody scrapes: counting costs the hot path nothing
// but an addition.
type collector struct {
	edge *edge.Edge // immutable
}

func registerMetrics(reg prometheus.Registerer, e *edge.Edge) {
	if reg != nil {
		reg.MustRegister(collector{e})
	}
}

// unreadCounter counts what net/http refuses before any handler sees it.
func unreadCounter(reg prometheus.Registerer) prometheus.Counter {
	return telemetry.Register(reg, prometheus.NewCounter(prometheus.CounterOpts{
		Name: "carillon_gateway_http_unread_total", Help: "HTTP requests that could not be read, or did not arrive in time.",
	}))
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("carillon_gateway_"+name, help, labels, nil)
}

// figure is one metric that is a sum over the loops.
type figure struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	of   func(*loop.Stats) int64
}

var (
	descConnections  = desc("connections", "Connections of each app.", "app")
	descChannels     = desc("channels", "Channels with a subscriber on this node.")
	descMessages     = desc("messages_total", "Messages of clients.")
	descPublications = desc("publications_total", "Publications that a loop had subscribers for.")
	descDeliveries   = desc("deliveries_total", "Publications handed to connections.")
	descCloses       = desc("closes_total", "Connections that this node closed.", "reason")
	descTurned       = desc("connections_refused_total", "Clients refused before they had a session.", "reason")
	descRefused      = desc("refused_total", "Messages of clients that were refused.", "reason")
	descResumes      = desc("resumes_total", "Subscriptions that wanted to keep their place, by what became of it.", "reason")
	descOperations   = desc("operations_total", "What backends wanted of connections of this node, one for each connection.", "operation")
	descEnded        = desc("connections_ended_total", "Connections that ended, by how the transport saw it.", "reason")
	descSlow         = desc("slow_total", "Connections closed because they read too slowly.", "reason")
	descTurn         = desc("loop_turn_max_seconds", "Longest turn of any loop since the last scrape.")
	descMailbox      = desc("mailbox_depth", "Items that wait in the fullest mailbox.")
	descPosts        = desc("http_posts_total", "HTTP requests that brought messages of clients without WebSockets.")
	descRelays       = desc("http_relays_total", "HTTP requests by which clients receive from a session without a stream of its own, or of another loop or gateway.")
	descOvertaken    = desc("overtaken_total", "Publications of channels that are not stored that came after later ones of their channel, and were dropped.")
	descKnown        = desc("presence_events_dropped_total", "Member events that the subscribers of this node knew already.")

	figures = []figure{
		{desc("sockets", "Sockets, those included that are not connections yet."), prometheus.GaugeValue, func(s *loop.Stats) int64 { return s.Connections }},
		{desc("accepted_total", "Sockets accepted."), prometheus.CounterValue, func(s *loop.Stats) int64 { return s.Accepted }},
		{desc("opened_total", "WebSocket upgrades, streams, and sessions of clients that poll."), prometheus.CounterValue, func(s *loop.Stats) int64 { return s.Opened }},
		{desc("handed_over_total", "Connections given to the HTTP handler."), prometheus.CounterValue, func(s *loop.Stats) int64 { return s.HandedOver }},
		{desc("requests_answered_total", "HTTP requests that a loop has answered itself."), prometheus.CounterValue, func(s *loop.Stats) int64 { return s.Answered }},
		{desc("requests_refused_total", "Requests answered with an error before they were anything."), prometheus.CounterValue, func(s *loop.Stats) int64 { return s.Refused }},
		{desc("sockets_dropped_total", "Sockets closed without an answer, far above the limit of connections."), prometheus.CounterValue, func(s *loop.Stats) int64 { return s.Dropped }},
		{desc("head_timeouts_total", "Sockets whose request head did not come in time."), prometheus.CounterValue, func(s *loop.Stats) int64 { return s.HeadTimeouts }},
		{desc("received_bytes_total", "Bytes read from clients."), prometheus.CounterValue, func(s *loop.Stats) int64 { return s.BytesIn }},
		{desc("sent_bytes_total", "Bytes written to clients."), prometheus.CounterValue, func(s *loop.Stats) int64 { return s.BytesOut }},
		{desc("outbox_bytes", "Bytes that wait in the gateway for clients that read slowly; a frame counts once for each."), prometheus.GaugeValue, func(s *loop.Stats) int64 { return s.OutboxBytes }},
		{desc("writes_total", "System calls that wrote."), prometheus.CounterValue, func(s *loop.Stats) int64 { return s.Writes }},
		{desc("writes_blocked_total", "Writes that the kernel did not take whole."), prometheus.CounterValue, func(s *loop.Stats) int64 { return s.WouldBlock }},
		{desc("mail_refused_total", "Items that a full mailbox refused."), prometheus.CounterValue, func(s *loop.Stats) int64 { return s.MailRefused }},
		{desc("panics_total", "Panics of handlers; each cost one connection."), prometheus.CounterValue, func(s *loop.Stats) int64 { return s.Panics }},
		{desc("loop_turns_total", "Turns of all loops."), prometheus.CounterValue, func(s *loop.Stats) int64 { return s.Turns }},
	}
)

// Describe implements prometheus.Collector.
func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		descConnections, descChannels, descMessages, descPublications, descDeliveries, descCloses, descTurned, descRefused, descResumes, descOperations,
		descEnded, descSlow, descTurn, descMailbox, descKnown, descOvertaken, descPosts, descRelays,
	} {
		ch <- d
	}
	for _, f := range figures {
		ch <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	s := c.edge.Stats()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	for app, n := range s.Connections {
		gauge(descConnections, float64(n), app)
	}
	gauge(descChannels, float64(s.Channels))
	count(descMessages, float64(s.Messages))
	count(descPublications, float64(s.Publications))
	count(descDeliveries, float64(s.Deliveries))
	count(descKnown, float64(s.KnownMemberEvents))
	count(descOvertaken, float64(s.Overtaken))
	count(descPosts, float64(s.Posts))
	count(descRelays, float64(s.Relays))
	for why, n := range s.Closes {
		count(descCloses, float64(n), why.String())
	}
	for why, n := range s.Turned {
		count(descTurned, float64(n), why.String())
	}
	for why, n := range s.Refused {
		count(descRefused, float64(n), why.String())
	}
	for what, n := range s.Resumes {
		count(descResumes, float64(n), edge.Resume(what).String())
	}
	for what, n := range s.Operations {
		count(descOperations, float64(n), edge.Operation(what).String())
	}
	collectLoops(s.Loops, gauge, count)
	for _, f := range figures {
		var sum int64
		for i := range s.Loops {
			sum += f.of(&s.Loops[i])
		}
		ch <- prometheus.MustNewConstMetric(f.desc, f.kind, float64(sum))
	}
}

func collectLoops(loops []loop.Stats, gauge, count func(*prometheus.Desc, float64, ...string)) {
	ended := map[loop.Cause]int64{}
	var slowBytes, slowAge, slowMemory, turn, depth int64
	for i := range loops {
		l := &loops[i]
		for cause, n := range l.Closed {
			ended[cause] += n
		}
		slowBytes, slowAge, slowMemory = slowBytes+l.SlowBytes, slowAge+l.SlowAge, slowMemory+l.SlowMemory
		turn, depth = max(turn, l.TurnTimeMax), max(depth, l.MailboxDepth)
	}
	for cause, n := range ended {
		count(descEnded, float64(n), cause.String())
	}
	count(descSlow, float64(slowBytes), "bytes")
	count(descSlow, float64(slowAge), "age")
	count(descSlow, float64(slowMemory), "memory")
	gauge(descTurn, float64(turn)/1e9)
	gauge(descMailbox, float64(depth))
}
