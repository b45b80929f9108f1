package presence

import (
	"encoding/json"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/carillon-rt/carillon/presence/internal/replica"
	"github.com/carillon-rt/carillon/proto/presence"
	"github.com/carillon-rt/carillon/proto/subject"
)

// emit sends what the replica of a seat has left in w.out: events first, then
// the answers, because who is answered may rely on the events being out; the
// note comes last, because who reads it may rely on both.
func (w *worker) emit(s *seat) {
	out := &w.out
	for i := range out.Effects {
		e := &out.Effects[i]
		e.AtMs -= w.clock.behind // others go by their machines' clocks
		if e.Live {
			w.svc.metrics.events.Inc()
			w.lost(w.announce.add(s.shard, e))
		}
		if e.Hook {
			w.svc.hooks.Put(e.Key.App, hookID(w.svc.node, s.shard, e.Version), hookEvent(e))
		}
	}
	if len(out.Replies) > 0 {
		w.pending = append(w.pending, out.Replies...)
	}
	for _, ask := range out.Asks {
		data, err := json.Marshal(presence.SnapshotRequest{Shard: ask.Shard})
		if err == nil {
			w.send(subject.GatewaySnapshot(ask.Node), data)
		}
	}
	out.Reset()
	if n, ok := s.replica.TakeNote(); ok && (w.view == nil || !w.view.sole) {
		w.notes = append(w.notes, noteOf{s.shard, n})
	}
}

// noteOf is a note that waits for the end of the turn.
type noteOf struct {
	shard int
	note  presence.Note
}

// flush ends a turn.
func (w *worker) flush() {
	w.lost(w.announce.flush())
	for i := range w.pending {
		r := &w.pending[i]
		w.reply(r.To, &r.Reply)
	}
	clear(w.pending)
	w.pending = w.pending[:0]
	for i := range w.notes {
		if data, err := json.Marshal(w.notes[i].note); err == nil {
			w.send(subject.PresenceNotes(w.notes[i].shard), data)
		}
	}
	clear(w.notes)
	w.notes = w.notes[:0]
}

func (w *worker) lost(n int, err error) {
	if err == nil {
		return
	}
	w.svc.metrics.eventsLost.Add(float64(n))
	w.svc.log.Error("events lost", "events", n, "err", err)
}

func (w *worker) reply(to string, r *presence.Reply) {
	if to == "" {
		return
	}
	w.buf = presence.AppendReply(w.buf[:0], r)
	w.send(to, w.buf)
}

// send publishes; what fails is asked for or sent again by the other side.
func (w *worker) send(to string, data []byte) {
	if to == "" {
		return
	}
	if err := w.svc.nc.Publish(to, data); err != nil {
		w.svc.log.Warn("message not sent", "subject", to, "bytes", len(data), "err", err)
	}
}

// gauges are what a worker has added to the gauges of the process.
type gauges struct{ owned, standby, channels, members, online float64 }

// measure brings the gauges up to date.
func (w *worker) measure() {
	var now gauges
	for _, s := range w.seats {
		switch s.replica.Role() {
		case replica.Owner:
			now.owned++
			channels, members, online := s.replica.Shard().Size()
			now.channels += float64(channels)
			now.members += float64(members)
			now.online += float64(online)
		case replica.Standby:
			now.standby++
		}
	}
	m := w.svc.metrics
	for _, g := range []struct {
		gauge    prometheus.Gauge
		was, now float64
	}{
		{m.owned, w.gauges.owned, now.owned},
		{m.standby, w.gauges.standby, now.standby},
		{m.channels, w.gauges.channels, now.channels},
		{m.members, w.gauges.members, now.members},
		{m.online, w.gauges.online, now.online},
	} {
		if g.now != g.was {
			g.gauge.Add(g.now - g.was)
		}
	}
	w.gauges = now
}
